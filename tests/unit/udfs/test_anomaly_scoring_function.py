"""Anomaly scoring as Flink sees it: what goes out, what is kept, what a restart and a failure change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plantwire.domain.anomaly import device_scorer
from plantwire.domain.anomaly.device_scorer import (
    FORGET_AFTER_MS,
    LEVEL,
    METRICS_MAX,
    PROTOCOL,
)
from plantwire.domain.anomaly.device_scorer import MOVEMENT as MOVEMENT_PREFIX
from plantwire.domain.anomaly.metric_scorer import MODEL, WARM_UP
from plantwire.domain.anomaly.signals import MOVEMENT, RECENT
from plantwire.gateway.sparkplug.outcome import PROTOCOL_TRANSIENT
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame
from plantwire.schemas.rule_files import parse_rule_files
from plantwire.schemas.scoring_files import (
    DEFAULT_MEMORY,
    MEMORY_MAX,
    MEMORY_MIN,
    ScoringEntry,
    parse_scoring,
)
from plantwire.simulator.signals import gaussian
from plantwire.udfs.anomaly_scoring import LIVE_FOR_MS, AnomalyScoring
from tests.unit.udfs.flink_fakes import FakeFlink

ENTRIES = (ScoringEntry("press-*", "t*"),)


def frame(value: float, at_ms: int, **changes: Any) -> TelemetryFrame:
    made = TelemetryFrame(
        "press-1", "hall", 7, at_ms, at_ms, "http", False, (Metric("t", value), Metric("flow", 1.0)), 11, 12
    )
    return msgspec.structs.replace(made, **changes)


def body(value: float, at_ms: int, **changes: Any) -> bytes:
    return FRAME_CODEC.encode(frame(value, at_ms, **changes))


def opened(flink: FakeFlink, entries: tuple[ScoringEntry, ...] = ENTRIES) -> AnomalyScoring:
    function = AnomalyScoring(entries)
    function.open(flink)
    return function


class Rig:
    """A function that is warm: the next value is scored."""

    def __init__(self) -> None:
        self.flink = FakeFlink()
        self.function = opened(self.flink)
        self.at_ms = time.time_ns() // 1_000_000 - 10 * WARM_UP
        for n in range(WARM_UP):
            assert self.give(gaussian(1, n)) == []

    def give(self, value: float, **changes: Any) -> list[Any]:
        self.at_ms += 10
        return self.flink.element(self.function, "press-1", body(value, self.at_ms, **changes))


def test_scores_go_out_as_a_frame_of_the_same_device_and_time() -> None:
    rig = Rig()
    (row,) = rig.give(50.0)
    device_id, encoded, headers, event_time_ms = row
    scores = FRAME_CODEC.decode(encoded, headers[topics.HEADER_FINGERPRINT].decode())
    source = frame(50.0, rig.at_ms)
    assert (device_id, event_time_ms) == ("press-1", rig.at_ms)
    assert scores == msgspec.structs.replace(source, sequence=None, protocol=PROTOCOL, metrics=scores.metrics)
    values = {metric.name: metric.number for metric in scores.metrics}
    assert list(values) == ["anomaly/level/t", "anomaly/movement/t", "anomaly/model"]
    assert values["anomaly/level/t"] == 10.0
    assert scores.metrics[-1].text == "tails/1"
    assert rig.flink.counts["frames_scored"] == 1
    assert rig.flink.counts["values_learned"] == WARM_UP + 1


def test_a_late_score_is_history() -> None:
    rig = Rig()
    old_ms = time.time_ns() // 1_000_000 - LIVE_FOR_MS - 1_000
    (row,) = rig.give(0.0, received_time_ms=old_ms)
    assert FRAME_CODEC.decode(row[1]).historical
    assert rig.flink.counts["scores_told_late"] == 1
    (row,) = rig.give(0.0)
    assert not FRAME_CODEC.decode(row[1]).historical


@pytest.mark.parametrize(
    ("changes", "counter"),
    [
        ({"historical": True}, "frames_historical"),
        ({"device_id": "press-2"}, "frames_rejected"),
        ({"event_time_ms": 2_000_000_000_000_000}, "frames_rejected"),
        ({"event_time_ms": 5}, "values_late"),
        ({"protocol": PROTOCOL}, None),
        ({"protocol": PROTOCOL_TRANSIENT}, None),
        ({"metrics": (Metric("flow", 1.0),)}, None),
        ({"metrics": (Metric("t", 1e200),)}, "values_left_out"),
    ],
)
def test_what_is_not_scored_teaches_nothing(changes: dict[str, Any], counter: str | None) -> None:
    rig = Rig()
    before, counts = dict(rig.flink.values), dict(rig.flink.counts)
    assert rig.give(99.0, **changes) == []
    assert rig.flink.values == before
    added = {name: n - counts.get(name, 0) for name, n in rig.flink.counts.items() if n != counts.get(name)}
    assert added == ({} if counter is None else {counter: 1})


@pytest.mark.parametrize("garbage", [None, b"", b"\xff" * 40])
def test_garbage_is_counted(garbage: bytes | None) -> None:
    flink = FakeFlink()
    assert flink.element(opened(flink), "press-1", garbage) == []
    assert flink.counts["frames_rejected"] == 1


def test_a_device_that_is_not_scored_is_not_even_decoded() -> None:
    flink = FakeFlink()
    assert flink.element(opened(flink), "pump-1", b"\xff" * 40) == []
    assert not flink.counts["frames_rejected"]
    assert flink.values == {}


def test_a_restart_changes_no_score_and_a_replay_gives_the_same_again() -> None:
    rig = Rig()
    restored = FakeFlink()
    restored.values = dict(rig.flink.values)
    again = opened(restored)
    for n in range(50):
        (ours,) = rig.give(gaussian(2, n) * n)
        (theirs,) = restored.element(again, "press-1", body(gaussian(2, n) * n, rig.at_ms))
        assert theirs == ours
    # What was read before the failure, and is in the state, is recognised.
    assert restored.element(again, "press-1", body(0.0, rig.at_ms)) == []
    assert restored.counts["values_late"] == 1


def test_state_that_cannot_be_read_is_discarded_and_told() -> None:
    flink = FakeFlink()
    flink.values = {"press-1": b"\xff of a newer version"}
    now_ms = time.time_ns() // 1_000_000
    assert flink.element(opened(flink), "press-1", body(1.0, now_ms)) == []
    assert flink.counts["states_discarded"] == 1
    assert flink.values["press-1"][:1] == b"\x02"
    assert len(flink.timers) == 1


def test_another_model_learns_anew_and_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    assert len(rig.give(0.0)) == 1
    monkeypatch.setattr(device_scorer, "MODEL", "tails/2")
    rig.function = opened(rig.flink)
    for n in range(WARM_UP):
        assert rig.give(gaussian(1, n)) == []
    assert rig.flink.counts["states_discarded"] == 1
    (row,) = rig.give(0.0)
    assert FRAME_CODEC.decode(row[1]).metrics[-1].text == "tails/2"
    # From now on it is its own, and survives a restart.
    rig.function = opened(rig.flink)
    assert len(rig.give(0.0)) == 1
    assert rig.flink.counts["states_discarded"] == 1


def test_a_changed_memory_keeps_what_was_learned() -> None:
    rig = Rig()
    rig.function = opened(rig.flink, (ScoringEntry("press-*", "t*", 2 * DEFAULT_MEMORY),))
    assert len(rig.give(0.0)) == 1
    assert rig.flink.counts["states_discarded"] == 0


def test_a_device_that_is_silent_for_a_week_is_forgotten() -> None:
    rig = Rig()
    ((_, first_ms),) = rig.flink.timers
    rig.give(0.0)
    assert rig.flink.fire_timers(rig.function, first_ms) == []
    assert "press-1" in rig.flink.values
    ((_, second_ms),) = rig.flink.timers
    assert first_ms < second_ms <= time.time_ns() // 1_000_000 + FORGET_AFTER_MS
    assert rig.flink.fire_timers(rig.function, second_ms) == []
    assert (rig.flink.values, rig.flink.timers) == ({}, set())
    # And learned anew when it is back.
    assert rig.give(0.0) == []
    assert len(rig.flink.timers) == 1


def test_state_of_a_device_that_is_no_longer_scored_goes_with_its_timer() -> None:
    rig = Rig()
    without = opened(rig.flink, (ScoringEntry("pump-*", "*"),))
    ((_, at_ms),) = rig.flink.timers
    rig.flink.fire_timers(without, at_ms)
    assert (rig.flink.values, rig.flink.timers) == ({}, set())


RULES_FOLDER = Path(__file__).parents[3] / "rules"
DOCUMENT = (Path(__file__).parents[3] / "docs" / "anomaly.md").read_text("utf-8")


def test_every_metric_is_documented() -> None:
    flink = FakeFlink()
    names: list[str] = []
    flink.counter = lambda name: names.append(name)  # type: ignore[assignment, func-returns-value]
    opened(flink)
    assert len(names) == 8
    assert [name for name in names if f"`{name}`" not in DOCUMENT] == []


def test_the_document_says_what_the_code_does() -> None:
    text = DOCUMENT.replace(",", "")
    for said in (
        f"after {WARM_UP} values",
        f"the mean of the last {RECENT}",
        f"the last {MOVEMENT} steps",
        f"{MEMORY_MIN} to {MEMORY_MAX}",
        f"| {DEFAULT_MEMORY} |",
        f"the first {METRICS_MAX} of a device",
        f"for {FORGET_AFTER_MS // 86_400_000} days",
        f"more than {LIVE_FOR_MS // 1000} s after",
        f"`{MODEL}`",
        f"`{PROTOCOL}`",
    ):
        assert said in text, said
    example = DOCUMENT.split("```yaml\n")[1].split("```")[0]
    assert len(parse_scoring(example, "docs/anomaly.md")) == 2  # type: ignore[arg-type]


def test_the_rules_of_scores_are_on_scores() -> None:
    rules = parse_rule_files([("anomaly.yaml", (RULES_FOLDER / "anomaly.yaml").read_text("utf-8"))])
    assert isinstance(rules, list)
    assert {rule.metric for rule in rules} == {LEVEL + "*", MOVEMENT_PREFIX + "*"}
