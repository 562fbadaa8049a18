"""Report by exception: what is worth sending, and that alarm detection cannot tell the difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.report_by_exception import (
    BROUGHT_MAX_BYTES,
    METRICS_PER_DEVICE_MAX,
    Calm,
    Deadband,
    DeadbandBook,
    DeviceReports,
    MetricPlan,
    calm_of,
    is_change,
)
from plantwire.domain.rule_book import DeviceRules, RuleBook, compile_rule
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import (
    QUALITY_BAD,
    QUALITY_GOOD,
    QUALITY_STALE,
    AlarmEvent,
    AlarmRule,
    Limit,
    Metric,
    TelemetryFrame,
)

T0 = 1_767_225_600_000
TEN_PERCENT = Deadband(percent=10)
HOT = AlarmRule("hot", 1, "*", "t", (Limit(1, above=90, deadband=2), Limit(0, above=100, deadband=2)))


def frame(
    at_ms: int, *metrics: Metric, arrival_ms: int | None = None, **values: float | str
) -> TelemetryFrame:
    """A frame of T0 + `at_ms`, which arrives when it is measured unless a test says otherwise."""
    read = tuple(
        Metric(name, None, value) if isinstance(value, str) else Metric(name, float(value))
        for name, value in values.items()
    )
    arrived = T0 + (at_ms if arrival_ms is None else arrival_ms)
    return TelemetryFrame("press-1", "hall", None, T0 + at_ms, arrived, "http", False, (*metrics, *read))


def plans(rules: DeviceRules, deadband: Deadband | None = TEN_PERCENT) -> Callable[[str], MetricPlan | None]:
    return lambda name: MetricPlan(deadband, calm_of(rules.for_metric(name)))


def reports(*rules: AlarmRule, deadband: Deadband | None = TEN_PERCENT) -> DeviceReports:
    return DeviceReports(plans(RuleBook(rules).for_device("press-1"), deadband))


def told(device: DeviceReports, *frames: TelemetryFrame) -> list[TelemetryFrame | None]:
    return [device.take(frame) for frame in frames]


@pytest.mark.parametrize(
    ("deadband", "last", "value", "changed"),
    [
        (TEN_PERCENT, 100, 110, False),
        (TEN_PERCENT, 100, 110.001, True),
        (TEN_PERCENT, 100, 90, False),
        (TEN_PERCENT, -100, -89, True),
        (TEN_PERCENT, 0, 1e-300, True),
        (TEN_PERCENT, 0, 0, False),
        (TEN_PERCENT, 1e308, -1e308, True),
        (Deadband(absolute=2), 100, 102, False),
        (Deadband(absolute=2), 100, 97.9, True),
        (Deadband(absolute=2, percent=10), 100, 109, False),
        (Deadband(absolute=2, percent=10), 1, 2.5, False),
        (Deadband(), 1, 1, False),
        (Deadband(), 1, 1.0000001, True),
        (Deadband(absolute=5), 0, 1, True),
        (Deadband(absolute=5), 1, 0, True),
        (Deadband(absolute=5), 1, 2, False),
        (TEN_PERCENT, 1, math.nan, True),
    ],
)
def test_the_deadband(deadband: Deadband, last: float, value: float, changed: bool) -> None:
    assert is_change(deadband, Metric("t", last), Metric("t", value)) == changed


@pytest.mark.parametrize(
    ("last", "metric", "changed"),
    [
        (Metric("t", 1.0), Metric("t", 1.0, None, QUALITY_BAD), True),
        (Metric("t", None, "auto"), Metric("t", None, "auto"), False),
        (Metric("t", None, "auto"), Metric("t", None, "hand"), True),
        (Metric("t", None, "auto"), Metric("t", 1.0), True),
        (Metric("t", 1.0), Metric("t", None, None), True),
        (Metric("t", None, None, QUALITY_STALE), Metric("t", None, None, QUALITY_STALE), False),
    ],
)
def test_quality_text_and_kind(last: Metric, metric: Metric, changed: bool) -> None:
    assert is_change(Deadband(absolute=1e9), last, metric) == changed


def test_the_first_value_a_change_and_a_long_silence_go_on() -> None:
    frames = [frame(at, t=v) for at, v in ((0, 50), (1, 52), (2, 46), (3, 56), (4, 56), (60_003, 56))]
    device = reports()
    assert told(device, *frames) == [frames[0], None, None, frames[3], None, frames[5]]
    assert device.left_out == 3


def test_a_clock_that_stands_still_does_not_silence_a_device() -> None:
    frames = [frame(0, t=50, arrival_ms=at) for at in (0, 1_000, 60_000)]
    assert told(reports(), *frames) == [frames[0], None, frames[2]]


def test_what_is_new_in_a_frame_goes_on_without_the_rest() -> None:
    device = reports()
    first = frame(0, a=1.0, b=2.0, mode="auto")
    assert told(device, first, frame(1, a=1.0, b=3.0, mode="auto"), frame(2, a=1.0, b=3.0, mode="hand")) == [
        first,
        frame(1, b=3.0),
        frame(2, mode="hand"),
    ]
    assert device.left_out == 4


def test_a_metric_without_deadband_goes_on_and_so_does_history() -> None:
    device = reports(deadband=None)
    frames = [frame(at, t=50) for at in range(3)]
    assert told(device, *frames) == frames
    past = [msgspec.structs.replace(frame(at, t=50), historical=True) for at in range(3)]
    assert told(reports(), *past) == past


def test_what_carries_edge_state_goes_on_whole() -> None:
    device = reports()
    diverged = msgspec.structs.replace(frame(1, t=50), edge_state=b"state")
    assert told(device, frame(0, t=50), diverged, frame(2, t=50))[1:] == [diverged, None]


@pytest.mark.parametrize("value", [90, 89.9, 89, 95, 101])
def test_near_or_beyond_a_limit_every_value_goes_on(value: float) -> None:
    """Above 88 a limit of 90 with a deadband of 2 may be in force."""
    frames = [frame(at, t=value) for at in range(5)]
    assert told(reports(HOT), *frames) == frames


def test_the_value_that_clears_goes_on_though_it_is_within_the_deadband() -> None:
    frames = [frame(at, t=v) for at, v in enumerate((95, 89, 88, 87, 87))]
    assert told(reports(HOT), *frames) == [*frames[:3], None, None]


def test_until_an_off_delay_is_over_every_value_goes_on() -> None:
    slow = msgspec.structs.replace(HOT, off_delay_ms=1000)
    frames = [frame(at, t=v) for at, v in ((0, 95), (10, 50), (600, 50), (1009, 50), (1010, 50), (1011, 50))]
    assert told(reports(slow), *frames) == [*frames[:5], None]


def test_while_one_metric_is_in_alarm_the_device_reports_in_full() -> None:
    frames = [frame(0, t=95, other=1), frame(1, t=95, other=1), frame(2, other=1), frame(3, t=50, other=1)]
    device = reports(HOT)
    assert told(device, *frames) == frames
    assert device.take(frame(4, t=50, other=1)) is None


def test_a_late_value_brings_along_what_makes_it_late() -> None:
    device = reports(HOT)
    device.take(frame(0, t=50))
    assert device.take(frame(2000, t=51)) is None
    late = device.take(frame(1000, t=95))
    assert late == frame(2000, Metric("t", 51, None, QUALITY_GOOD, T0 + 2000),
                         Metric("t", 95, None, QUALITY_GOOD, T0 + 1000), arrival_ms=1000)  # fmt: skip


def test_a_text_that_goes_on_alone_does_not_stand_for_the_number_that_tells_the_time() -> None:
    """Detection takes a device's time from frames with numbers: one that is a minute behind the number that
    was left out is too late there too.
    """
    device, detector = reports(HOT), DeviceDetector("press-1", RuleBook([HOT]).for_device("press-1"))
    frames = [frame(0, t=50), frame(1100, t=50, mode="auto"), frame(-59_900, t=95, arrival_ms=1200)]
    assert [e for arrived in frames for e in detect(detector, device.take(arrived))] == []


def test_a_text_alone_says_nothing_of_the_time() -> None:
    device, detector = reports(HOT), DeviceDetector("press-1", RuleBook([HOT]).for_device("press-1"))
    frames = [frame(0, t=50), frame(100_000, mode="auto"), frame(30_000, t=95, arrival_ms=100_001)]
    assert [e.kind for arrived in frames for e in detect(detector, device.take(arrived))] == ["RAISED"]


def test_what_did_not_get_through_is_reported_again() -> None:
    device = reports(HOT)
    frames = [frame(at, t=50, mode="auto") for at in range(4)]
    assert told(device, *frames[:2]) == [frames[0], None]
    device.forget_told()
    assert told(device, *frames[2:]) == [frames[2], None]


def test_other_rules_have_every_value_reported_again_and_count_at_once() -> None:
    device = reports()
    frames = [frame(at, t=95) for at in range(5)]
    assert told(device, *frames[:2]) == [frames[0], None]
    device.forget_told(plans(RuleBook([HOT]).for_device("press-1")))
    assert told(device, *frames[2:4]) == frames[2:4]
    device.forget_told(lambda _name: None)
    assert told(device, frame(10, t=50), frame(11, t=50)) == [frame(10, t=50), frame(11, t=50)]


def test_a_device_of_too_many_metrics_is_not_thinned() -> None:
    device = reports()
    names = [f"m{n}" for n in range(METRICS_PER_DEVICE_MAX + 1)]
    many = frame(0, *(Metric(name, 1.0) for name in names))
    again = frame(1, *(Metric(name, 1.0) for name in names))
    assert told(device, many, again) == [many, again]
    assert len(device) == METRICS_PER_DEVICE_MAX


def test_a_large_frame_that_is_late_still_fits_a_record() -> None:
    names = [f"{n:05}".ljust(256, "é") for n in range(1_500)]
    device = reports(AlarmRule("r", 1, "*", "*", (Limit(0, above=1e9),)))
    device.take(frame(0, *(Metric(name, 1.0) for name in names)))
    assert device.take(frame(2000, *(Metric(name, 1.0) for name in names))) is None
    late = device.take(frame(1000, *(Metric(name, 1.0) for name in names)))
    assert late is not None
    plain = len(FRAME_CODEC.encode(frame(1000, *(Metric(name, 1.0, None, 192, T0) for name in names))))
    assert len(FRAME_CODEC.encode(late)) <= plain + BROUGHT_MAX_BYTES


def test_calm_is_where_no_limit_of_any_rule_holds() -> None:
    cold = AlarmRule("cold", 1, "*", "t", (Limit(1, below=10, deadband=3),), off_delay_ms=5)
    assert calm_of([compile_rule(HOT), compile_rule(cold)]) == Calm(13, 88, 5)
    assert calm_of([]) is None


def test_the_first_deadband_that_matches_counts() -> None:
    first, second = Deadband(absolute=1), Deadband(absolute=2)
    book = DeadbandBook([("press-*", "temp*", first), ("press-1", "*", second)])
    of = book.for_device("press-1")
    assert of is not None
    assert [of("temperature"), of("pressure")] == [first, second]
    other = book.for_device("press-2")
    assert other is not None
    assert other("pressure") is None
    assert book.for_device("oven-1") is None


DELAYS = st.sampled_from([0, 0, 500, 3_000])


@st.composite
def rule_lists(draw: st.DrawFn) -> list[AlarmRule]:
    rules = []
    for number in range(draw(st.integers(1, 3))):
        limits = []
        for severity in sorted(draw(st.sets(st.integers(0, 3), min_size=1, max_size=3))):
            above, below = 8.0 - 2 * severity, draw(st.sampled_from([None, 2.0 * severity - 8.0]))
            limits.append(Limit(severity, above + 0.5, below, draw(st.sampled_from([0.0, 0.5, 1.0]))))
        metric = draw(st.sampled_from(["a", "b", "*"]))
        on_delay_ms, off_delay_ms = draw(DELAYS), draw(DELAYS)
        rules.append(AlarmRule(f"r{number}", 1, "*", metric, tuple(limits), on_delay_ms, off_delay_ms))
    return rules


CALM_VALUES = [0.0, 0.1, 0.2, 0.25, 0.5, 1.0]
OTHER_VALUES = [1.5, 2.0, 2.4, 2.5, 2.6, 3.0, 5.0, 9.0, -1.0, -2.5, -9.0]
METRICS = st.builds(
    Metric,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(CALM_VALUES * 8 + OTHER_VALUES),
    st.none(),
    st.sampled_from([QUALITY_GOOD] * 25 + [QUALITY_BAD]),
)
STEPS = st.fixed_dictionaries(
    {
        "metrics": st.lists(METRICS, min_size=1, max_size=4),
        # How far the device's clock moves on, and how late this frame is.
        "step_ms": st.sampled_from([0, 1, 100, 400, 700, 2_000, 4_000, 10_000, 40_000]),
        "late_ms": st.sampled_from([0] * 8 + [1, 50, 300, 900, 5_000, 30_000, 59_000, 61_000, 80_000]),
        "metric_late_ms": st.sampled_from([None] * 6 + [-200, 1, 300, 5_000, 61_000]),
        "text": st.sampled_from([None] * 8 + ["auto", "hand"]),
        "timer_ms": st.sampled_from([None] * 5 + [0, 500, 5_000, 70_000]),
    }
)


def series(steps: list[dict[str, Any]]) -> list[tuple[TelemetryFrame, int | None]]:
    """Frames and, after some of them, the event time of a timer."""
    frames, at_ms = [], 0
    for number, step in enumerate(steps):
        at_ms += step["step_ms"]
        frame_ms = at_ms - step["late_ms"]
        own = step["metric_late_ms"]
        metrics = [
            metric if own is None or n else msgspec.structs.replace(metric, event_time_ms=T0 + frame_ms - own)
            for n, metric in enumerate(step["metrics"])
        ]
        if step["text"]:
            metrics.append(Metric("mode", None, step["text"]))
        timer_ms = None if step["timer_ms"] is None else T0 + at_ms + step["timer_ms"]
        # All arrive within less than STEP_AFTER_MS: no clock is taken to be put back.
        frames.append((frame(frame_ms, *metrics, arrival_ms=100_000 + number), timer_ms))
    return frames


def detect(detector: DeviceDetector, taken: TelemetryFrame | None) -> list[AlarmEvent]:
    if taken is None or taken.historical:
        return []
    return detector.take_frame(msgspec.to_builtins(taken, builtin_types=(bytes,)), taken.received_time_ms)


DEADBANDS = st.builds(
    Deadband, st.sampled_from([0.0, 0.3, 2.0, 100.0]), st.sampled_from([0.0, 10.0, 1000.0]),
    st.sampled_from([1_000, 60_000, 10**9, 10**9]),
)  # fmt: skip


@given(rule_lists(), st.lists(STEPS, min_size=5, max_size=40), DEADBANDS, st.sets(st.sampled_from("abc")))
@settings(max_examples=600, deadline=None)
def test_alarms_are_the_same_in_what_goes_on_as_in_everything(
    rules: list[AlarmRule], steps: list[dict[str, Any]], deadband: Deadband, not_thinned: set[str]
) -> None:
    of_device = RuleBook(rules).for_device("press-1")
    device = DeviceReports(
        lambda name: MetricPlan(
            None if name in not_thinned else deadband, calm_of(of_device.for_metric(name))
        )
    )
    everything, thinned = DeviceDetector("press-1", of_device), DeviceDetector("press-1", of_device)
    expected: list[AlarmEvent] = []
    found: list[AlarmEvent] = []
    for arrived, timer_ms in series(steps):
        expected += detect(everything, arrived)
        found += detect(thinned, device.take(arrived))
        assert found == expected
        if timer_ms is not None:
            expected += everything.run_timers(timer_ms)
            found += thinned.run_timers(timer_ms)
            assert found == expected
    event(f"events: {min(len(expected), 3)}")
    event(f"left out: {min(device.left_out, 3)}")


@given(rule_lists(), rule_lists(), st.lists(STEPS, min_size=4, max_size=30), st.integers(1, 29))
@settings(max_examples=300, deadline=None)
def test_alarms_are_the_same_when_rules_change_and_the_gateway_starts_anew(
    before: list[AlarmRule], after: list[AlarmRule], steps: list[dict[str, Any]], change: int
) -> None:
    """In order of time: what was late before a start is not known after it."""
    in_order = [{**step, "late_ms": 0, "metric_late_ms": None} for step in steps]
    deadband = Deadband(percent=50, max_silence_ms=10**9)
    everything, thinned = (DeviceDetector("press-1", RuleBook(before).for_device("press-1")) for _ in "12")
    device = DeviceReports(plans(RuleBook(before).for_device("press-1"), deadband))
    for number, (arrived, timer_ms) in enumerate(series(in_order)):
        if number == change % len(steps):
            rules = RuleBook([msgspec.structs.replace(rule, version=2) for rule in after]).for_device(
                "press-1"
            )
            moment = arrived.event_time_ms
            assert thinned.take_rules(rules, moment) == everything.take_rules(rules, moment)
            if change % 2:
                device.forget_told(plans(rules, deadband))
            else:
                device = DeviceReports(plans(rules, deadband))
        assert detect(thinned, device.take(arrived)) == detect(everything, arrived)
        if timer_ms is not None:
            assert thinned.run_timers(timer_ms) == everything.run_timers(timer_ms)


def test_a_clock_put_back_is_believed_as_without_thinning() -> None:
    of_device = RuleBook([HOT]).for_device("press-1")
    device = DeviceReports(plans(of_device))
    everything, thinned = DeviceDetector("press-1", of_device), DeviceDetector("press-1", of_device)
    frames = [frame(at, t=50) for at in range(0, 10_000, 1000)]
    frames += [frame(at - 500_000, t=95, arrival_ms=at) for at in range(10_000, 90_000, 1000)]
    expected = [e for arrived in frames for e in detect(everything, arrived)]
    assert [e for arrived in frames for e in detect(thinned, device.take(arrived))] == expected
    assert [e.kind for e in expected] == ["RAISED"]
    assert thinned.clock.steps == everything.clock.steps == 1
