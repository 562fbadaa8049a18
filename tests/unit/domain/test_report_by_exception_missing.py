"""What is left out is not missed: silences are told the same in what goes on as in everything."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.report_by_exception import Deadband, DeviceReports, MetricPlan, calm_of
from plantwire.domain.rule_book import WHOLE_DEVICE, DeviceRules, RuleBook
from plantwire.schemas.records import QUALITY_BAD, AlarmEvent, AlarmRule, Limit, Metric, Missing
from tests.unit.domain.test_report_by_exception import DEADBANDS, STEPS, T0, detect, frame, series

LIMITS = AlarmRule("hot", 1, "*", "a", (Limit(1, above=8),))
METRIC = AlarmRule("lost", 1, "*", "a", (), missing=(Missing(0, 20_000), Missing(1, 5_000)))
MODE = AlarmRule("mode", 1, "*", "mode", (), missing=(Missing(1, 9_000),))
DEVICE = AlarmRule("silent", 1, "*", WHOLE_DEVICE, (), missing=(Missing(2, 3_000),))


def reports(rules: DeviceRules, deadband: Deadband) -> DeviceReports:
    def plan_of(name: str) -> MetricPlan:
        awaited = rules.silences_of(name)
        return MetricPlan(None if awaited else deadband, calm_of(rules.for_metric(name)))

    return DeviceReports(plan_of, is_awaited=rules.watch_silence)


def told(events: list[AlarmEvent]) -> list[Any]:
    """In no order: who has fewer frames notices later."""
    return sorted((e.alarm_id, e.revision, e.kind, e.event_time_ms, e.severity) for e in events)


@given(
    st.sets(st.sampled_from([LIMITS, METRIC, MODE, DEVICE]), min_size=1),
    st.lists(STEPS, min_size=5, max_size=40),
    DEADBANDS,
)
@settings(max_examples=400, deadline=None)
def test_silences_are_the_same_in_what_goes_on_as_in_everything(
    rules: set[AlarmRule], steps: list[dict[str, Any]], deadband: Deadband
) -> None:
    of_device = RuleBook(rules).for_device("press-1")
    device = reports(of_device, deadband)
    everything, thinned = DeviceDetector("press-1", of_device), DeviceDetector("press-1", of_device)
    expected: list[AlarmEvent] = []
    found: list[AlarmEvent] = []
    arrived = series(steps)
    for taken, timer_ms in arrived:
        expected += detect(everything, taken)
        found += detect(thinned, device.take(taken))
        if timer_ms is not None:
            expected += everything.run_timers(timer_ms, timer_ms)
            found += thinned.run_timers(timer_ms, timer_ms)
            assert told(found) == told(expected)
    end_ms = max(taken.event_time_ms for taken, _ in arrived) + 100_000
    expected += everything.run_timers(end_ms, end_ms)
    found += thinned.run_timers(end_ms, end_ms)
    assert told(found) == told(expected)


def test_of_a_device_that_is_awaited_each_frame_brings_one_good_value() -> None:
    rules = RuleBook([DEVICE]).for_device("press-1")
    device = reports(rules, Deadband(percent=10, max_silence_ms=10**9))
    device.take(frame(0, x=1.0, y=1.0))
    taken = device.take(frame(1, x=1.0, y=1.0))
    assert taken is not None
    assert [metric.name for metric in taken.metrics] == ["x"]
    assert device.left_out == 1
    # One that is of bad quality, or changed to it, is no sign of life.
    bad = [Metric("x", 1.0, quality=QUALITY_BAD), Metric("y", 1.0)]
    taken = device.take(frame(2, *bad))
    assert taken is not None
    assert {metric.name for metric in taken.metrics} == {"x", "y"}
    assert frame(0, x=1.0).event_time_ms == T0
