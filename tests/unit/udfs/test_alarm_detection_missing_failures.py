"""Silences over failures: checkpoint, crash, replay; in the end the log and the state agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from plantwire.domain.attention import HOUSEKEEPING_MS
from plantwire.domain.limits import NORMAL
from plantwire.domain.packed_state import unpack
from plantwire.schemas.records import AlarmEvent
from plantwire.udfs import alarm_detection
from tests.unit.udfs.flink_fakes import no_rules_topic
from tests.unit.udfs.test_alarm_detection_missing import AFTER_MS, HOT, LOST, SILENT, Plant

Sent = tuple[str, int, int, dict[str, float]]
"""(device, event time, when it was received, values)."""

STEPS = st.lists(
    st.tuples(
        st.sampled_from([100, 1000, 4000, 15_000, 29_000, 31_000, 45_000, 90_000]),  # ms before it
        st.sampled_from(["press-1", "press-1", "press-2"]),
        st.sampled_from([{"a": 1.0, "b": 1.0}, {"a": 101.0, "b": 1.0}, {"b": 1.0, "c": 1.0}]),
    ),
    min_size=2,
    max_size=25,
)


def shown(events: list[AlarmEvent]) -> set[str]:
    """What a consumer holds active, who takes of each alarm the highest revision, whichever comes first."""
    last: dict[str, AlarmEvent] = {}
    for each in events:
        if each.alarm_id not in last or last[each.alarm_id].revision < each.revision:
            last[each.alarm_id] = each
    return {alarm_id for alarm_id, each in last.items() if each.kind != "CLEARED"}


def active(plant: Plant) -> set[str]:
    return {
        tracked.alarm.alarm_id
        for packed in plant.flink.values.values()
        for tracked in unpack(packed)[1].values()
        if tracked.alarm is not None and tracked.limit.level != NORMAL
    }


@given(
    STEPS,
    st.tuples(st.integers(0, 24), st.integers(0, 24)),
    st.sampled_from([1000, 20_000, 100_000]),
    st.sampled_from([0, 500, 40_000]),
)
@settings(max_examples=200, deadline=None)
def test_after_a_failure_the_log_and_the_state_agree(
    steps: list[Any], cuts: tuple[int, int], down_ms: int, read_after_ms: int
) -> None:
    checkpoint_at, crash_at = sorted(cut % len(steps) for cut in cuts)
    with pytest.MonkeyPatch.context() as patch:
        plant = Plant(HOT, LOST, SILENT)
        patch.setattr(alarm_detection, "time", plant)
        patch.setattr(alarm_detection, "read_rules", no_rules_topic)
        patch.setattr(alarm_detection, "recent_alarms_if_readable", lambda _bootstrap: list(plant.log))
        plant.start()
        sent: list[Sent] = []
        kept: tuple[dict[str, bytes], set[tuple[str, int]], int] = ({}, set(), 0)
        for n, (gap_ms, device_id, values) in enumerate(steps):
            plant.advance(gap_ms)
            if n == checkpoint_at:
                kept = (dict(plant.flink.values), set(plant.flink.timers), len(sent))
            if n == crash_at:
                plant.log = list(plant.told)
                plant.flink.values, plant.flink.timers = dict(kept[0]), set(kept[1])
                plant.now_ms += down_ms
                plant.start()
                plant.advance(read_after_ms)
                for missed_id, at_ms, received_ms, again in sent[kept[2] :]:
                    plant.send(missed_id, at_ms, received_ms, **again)
                    plant.advance(20)
            sent.append((device_id, plant.now_ms, plant.now_ms, values))
            plant.send(device_id, **values)
        event(f"told before the crash: {min(len(plant.log), 3)}")
        # All are back for a while, then all fall silent.
        for _ in range(3):
            for device_id in ("press-1", "press-2"):
                plant.send(device_id, a=1.0, b=1.0, c=1.0)
            plant.advance(1000)
        assert shown(plant.told) == active(plant) == set()
        plant.advance(AFTER_MS + 2 * HOUSEKEEPING_MS)
        assert shown(plant.told) == active(plant)
        assert {each.rule_id for each in plant.told if each.alarm_id in active(plant)} == {"lost", "silent"}
