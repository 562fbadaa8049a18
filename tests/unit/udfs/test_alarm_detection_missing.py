"""Data that stay away, between Flink and the domain: timers, restores, backlogs, savepoints of before."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from plantwire.domain import plant_detection
from plantwire.domain.alarm_events import alarm_id_of
from plantwire.domain.attention import HOUSEKEEPING_MS
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.listening import GRACE_MS, IDLE_MS, LOOK_AGAIN_MS, SETTLE_MS
from plantwire.domain.packed_state import pack, unpack_with_clock
from plantwire.domain.rule_book import RuleBook, compile_silence
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, RULE_CODEC
from plantwire.schemas.records import (
    QUALITY_STALE,
    AlarmEvent,
    AlarmRule,
    Limit,
    Metric,
    Missing,
    TelemetryFrame,
)
from plantwire.udfs import alarm_detection
from plantwire.udfs.alarm_detection import AlarmDetection
from tests.unit.udfs.flink_fakes import FakeFlink, no_rules_topic

NOW_MS = 1_795_000_000_000
AFTER_MS = 30_000
HOT = AlarmRule("hot", 1, "*", "a", (Limit(0, above=100),))
LOST = AlarmRule("lost", 1, "*", "a", (), missing=(Missing(1, AFTER_MS),))
SILENT = AlarmRule("silent", 1, "*", "", (), missing=(Missing(1, AFTER_MS),))
RULES = (HOT, LOST, SILENT)
SOON_MS = GRACE_MS + LOOK_AGAIN_MS


class Plant:
    """One detection function, the time, and frames of two metrics of as many devices as there are."""

    def __init__(self, *rules: AlarmRule) -> None:
        self.now_ms = NOW_MS
        self.flink = FakeFlink()
        self.rules = rules or RULES
        self.log: list[AlarmEvent] = []
        self.told: list[AlarmEvent] = []

    def start(self) -> None:
        """As after a failure: Flink's state is there, nothing else."""
        self.function = AlarmDetection(self.rules, "nowhere:1", None)
        self.function.open(self.flink)

    def time_ns(self) -> int:
        return self.now_ms * 1_000_000

    monotonic = staticmethod(time.monotonic)

    def send(
        self,
        device_id: str = "press-1",
        at_ms: int | None = None,
        received_ms: int | None = None,
        historical: bool = False,
        quality: int = 192,
        **values: float,
    ) -> None:
        at_ms = self.now_ms if at_ms is None else at_ms
        received_ms = at_ms if received_ms is None else received_ms
        metrics = tuple(Metric(name, number, quality=quality) for name, number in values.items())
        sent = TelemetryFrame(
            device_id, "hall", None, at_ms, received_ms, "http", historical, metrics, gateway_in_us=7
        )
        self._tell(self.flink.element(self.function, device_id, FRAME_CODEC.encode(sent)))

    def advance(self, ms: int) -> None:
        """Let time pass, timers at their moments."""
        end_ms = self.now_ms + ms
        while due := [at_ms for _, at_ms in self.flink.timers if at_ms <= end_ms]:
            self.now_ms = max(self.now_ms, min(due))
            self._tell(self.flink.fire_timers(self.function, self.now_ms))
        self.now_ms = end_ms

    def live(self, seconds: int, device_id: str = "press-1", **values: float) -> None:
        """A frame each second."""
        for _ in range(seconds):
            self.send(device_id, **(values or {"a": 1.0, "b": 1.0}))
            self.advance(1000)

    def _tell(self, rows: list[Any]) -> None:
        self.told += [ALARM_CODEC.decode(row[1]) for row in rows]

    @property
    def kinds(self) -> list[tuple[str, str, str]]:
        return [(e.device_id, e.rule_id, e.kind) for e in self.told]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    plant = Plant()
    monkeypatch.setattr(alarm_detection, "read_rules", no_rules_topic)
    monkeypatch.setattr(alarm_detection, "recent_alarms_if_readable", lambda _bootstrap: list(plant.log))
    monkeypatch.setattr(alarm_detection, "time", plant)
    plant.start()
    return plant


def test_a_silent_device_is_told_once_and_clears_on_its_return(plant: Plant) -> None:
    plant.live(40)
    last_ms = plant.now_ms - 1000
    assert plant.told == []
    plant.advance(AFTER_MS + SOON_MS)
    assert sorted(plant.kinds) == [("press-1", "lost", "RAISED"), ("press-1", "silent", "RAISED")]
    assert {e.event_time_ms for e in plant.told} == {last_ms + AFTER_MS}
    assert {e.alarm_id for e in plant.told} == {
        alarm_id_of("press-1", "lost", "a", last_ms + AFTER_MS),
        alarm_id_of("press-1", "silent", "", last_ms + AFTER_MS),
    }
    # No frame caused it, and yet it is told when it is.
    assert all(e.device_us == 0 and e.detect_in_us // 1000 <= plant.now_ms for e in plant.told)
    plant.advance(10 * AFTER_MS)
    assert len(plant.told) == 2
    plant.send(a=1.0, b=1.0)
    assert [e.kind for e in plant.told[2:]] == ["CLEARED", "CLEARED"]
    plant.live(40)
    assert len(plant.told) == 4


def test_a_metric_that_its_device_leaves_out_is_missed(plant: Plant) -> None:
    plant.live(5)
    plant.live(40, b=1.0)
    assert plant.kinds == [("press-1", "lost", "RAISED")]
    plant.send(quality=QUALITY_STALE, a=1.0)
    plant.send(historical=True, a=1.0)
    assert len(plant.told) == 1
    plant.send(a=1.0)
    assert plant.kinds[1:] == [("press-1", "lost", "CLEARED")]


def test_frames_that_only_pass_are_heard(plant: Plant) -> None:
    plant.live(3)
    writes = 0
    for _ in range(100):
        before = plant.flink.values["press-1"]
        plant.live(1)
        writes += plant.flink.values["press-1"] is not before
    assert plant.told == []
    # One write by a frame and one by a timer in each margin, at the most.
    assert writes <= 2 * (100_000 // compile_silence(LOST).margin_ms + 1)
    assert len(plant.flink.timers) == 1


def test_a_restart_misses_no_frame_that_waits_to_be_read(plant: Plant) -> None:
    plant.live(20)
    for _ in range(3):
        plant.now_ms += 600_000
        plant.start()
        # Timers that are long overdue come first.
        plant.advance(0)
        assert plant.told == []
        sent_ms = plant.now_ms - 600_000
        # Half a minute passes before the first of them is read, and then they come at twenty times the pace.
        plant.advance(IDLE_MS)
        while sent_ms < plant.now_ms - 1000:
            plant.send(at_ms=sent_ms, a=1.0, b=1.0)
            sent_ms += 1000
            plant.advance(50)
        assert plant.told == []
        plant.live(40)
        assert plant.told == []


def test_after_a_backlog_silence_counts_from_the_last_frame_that_passed(plant: Plant) -> None:
    plant.live(20)
    sent_ms = plant.now_ms
    plant.now_ms += 600_000
    plant.start()
    while sent_ms < plant.now_ms:
        plant.send(at_ms=sent_ms, a=1.0, b=1.0)
        sent_ms += 1000
        plant.advance(10)
    # Less than would be written again: what is known of the device's clock is from frames that only passed.
    plant.live(2)
    assert plant.told == []
    plant.advance(AFTER_MS + SOON_MS)
    assert len(plant.told) == 2


def test_a_backlog_of_others_is_no_proof_of_silence(plant: Plant) -> None:
    """Reading is slower than time: what press-1 sent lies behind what press-2 sent."""
    plant.live(1)
    start_ms = plant.now_ms
    for n in range(120):
        plant.send("press-2", at_ms=start_ms + 100 * n, a=1.0, b=1.0)
        plant.advance(1000)
    assert plant.told == []
    plant.send(at_ms=start_ms + 20_000, a=1.0, b=1.0)
    assert plant.told == []


def test_a_device_that_is_silent_since_before_a_restart_is_told_after_it_with_the_same_id(
    plant: Plant,
) -> None:
    plant.live(20)
    last_ms = plant.now_ms - 1000
    plant.advance(AFTER_MS // 2)
    plant.start()
    plant.advance(SETTLE_MS - 1000)
    assert plant.told == []
    plant.advance(HOUSEKEEPING_MS)
    assert {e.alarm_id for e in plant.told} == {
        alarm_id_of("press-1", "lost", "a", last_ms + AFTER_MS),
        alarm_id_of("press-1", "silent", "", last_ms + AFTER_MS),
    }


def test_an_alarm_that_was_told_before_a_failure_is_told_again_and_not_corrected(plant: Plant) -> None:
    plant.live(20)
    plant.advance(AFTER_MS // 2)
    checkpoint, timers = dict(plant.flink.values), set(plant.flink.timers)
    plant.advance(AFTER_MS)
    plant.log = list(plant.told)
    assert len(plant.log) == 2
    plant.flink.values, plant.flink.timers = checkpoint, timers
    plant.start()
    plant.advance(2 * HOUSEKEEPING_MS)
    assert [(e.alarm_id, e.revision) for e in plant.told[2:]] == [(e.alarm_id, e.revision) for e in plant.log]
    assert plant.flink.counts["alarms_corrected"] == 0
    plant.send(a=1.0, b=1.0)
    assert [(e.revision, e.kind) for e in plant.told[4:]] == [(2, "CLEARED")] * 2


def test_an_alarm_that_a_replay_does_not_repeat_is_cleared(plant: Plant) -> None:
    plant.live(20)
    checkpoint, timers = dict(plant.flink.values), set(plant.flink.timers)
    plant.advance(AFTER_MS + SOON_MS)
    plant.log = list(plant.told)
    plant.flink.values, plant.flink.timers = checkpoint, timers
    plant.start()
    # It was held up; now it is read first.
    plant.send(at_ms=plant.log[0].event_time_ms - 5000, a=1.0, b=1.0)
    plant.send(at_ms=plant.log[0].event_time_ms + 5000, a=1.0, b=1.0)
    assert sorted((e.alarm_id, e.revision, e.kind) for e in plant.told[2:]) == sorted(
        (e.alarm_id, 2, "CLEARED") for e in plant.log
    )


def test_a_device_whose_clock_is_off_is_missed_in_time(plant: Plant) -> None:
    hour_ms = 3_600_000
    for device_id, ahead_ms in (("behind", -hour_ms), ("ahead", 50_000)):
        plant.send(device_id, at_ms=plant.now_ms + ahead_ms, received_ms=plant.now_ms, a=1.0, b=1.0)
    plant.advance(AFTER_MS + GRACE_MS - 1)
    assert plant.told == []
    plant.advance(LOOK_AGAIN_MS + 1)
    assert sorted({e.device_id for e in plant.told}) == ["ahead", "behind"]


def test_the_clock_of_a_device_is_kept_with_its_state(plant: Plant) -> None:
    hour_ms = 3_600_000
    plant.rules = (msgspec.structs.replace(LOST, missing=(Missing(1, 2 * hour_ms),)),)
    plant.start()
    plant.send(at_ms=plant.now_ms - hour_ms, received_ms=plant.now_ms, a=1.0, b=1.0)
    assert unpack_with_clock(plant.flink.values["press-1"]).clock_ahead_ms == -hour_ms
    plant.start()
    plant.advance(2 * hour_ms - 1000)
    assert plant.told == []
    plant.advance(2 * HOUSEKEEPING_MS)
    assert [e.kind for e in plant.told] == ["RAISED"]


def test_a_clock_that_is_put_forward_raises_nothing(plant: Plant) -> None:
    for n in range(5):
        plant.send(at_ms=1_000_000_000_000 + 1000 * n, received_ms=plant.now_ms, a=1.0, b=1.0)
        plant.advance(1000)
    plant.live(20)
    assert plant.told == []


def test_a_rule_that_comes_changes_and_goes_while_the_job_runs(plant: Plant) -> None:
    plant.rules = (HOT,)
    plant.start()

    def put(rule: AlarmRule) -> None:
        list(plant.function.process_broadcast_element((rule.rule_id, RULE_CODEC.encode(rule)), plant.flink))

    plant.live(5)
    assert plant.flink.values == {}
    put(LOST)
    plant.live(5)
    put(msgspec.structs.replace(LOST, version=2, missing=(Missing(0, 2 * AFTER_MS),)))
    plant.live(5)
    plant.advance(AFTER_MS + SOON_MS)
    assert plant.told == []
    plant.advance(AFTER_MS)
    assert [(e.kind, e.severity, e.rule_version) for e in plant.told] == [("RAISED", 0, 2)]
    put(msgspec.structs.replace(LOST, version=3, retired=True))
    plant.advance(HOUSEKEEPING_MS)
    assert [e.kind for e in plant.told] == ["RAISED", "CLEARED"]
    assert "no longer applies" in plant.told[1].message
    assert plant.flink.values == {}
    plant.advance(2 * HOUSEKEEPING_MS)
    assert plant.flink.timers == set()


def test_a_state_and_a_rule_of_before_are_gone_on_from(plant: Plant) -> None:
    """A savepoint of a version that could not wait for data: layout 1, and rules without the field."""
    former = DeviceDetector("press-1", RuleBook([HOT]).for_device("press-1"))
    [raised] = former.take_readings([("a", 101.0, NOW_MS)], NOW_MS, "hall", NOW_MS)
    packed = pack("hall", former.state)
    assert packed[:1] == b"\x01"
    rule_of_before = RULE_CODEC.encode(HOT)[:-1]
    plant.flink.values["press-1"] = packed
    plant.flink.broadcast["hot"] = rule_of_before
    plant.flink.timers.add(("press-1", NOW_MS + HOUSEKEEPING_MS))
    plant.rules = ()
    plant.start()
    plant.advance(HOUSEKEEPING_MS)
    assert plant.told == []
    list(plant.function.process_broadcast_element(("lost", RULE_CODEC.encode(LOST)), plant.flink))
    plant.send(a=50.0, b=1.0)
    assert [(e.alarm_id, e.revision, e.kind) for e in plant.told] == [(raised.alarm_id, 2, "CLEARED")]
    plant.advance(AFTER_MS + SOON_MS)
    assert plant.kinds[1:] == [("press-1", "lost", "RAISED")]


def test_a_device_that_is_forgotten_for_others_goes_on_from_its_state(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_detection, "CACHED_DEVICES", 1)
    for _ in range(100):
        plant.send("press-1", a=1.0, b=1.0)
        plant.send("press-2", a=1.0, b=1.0)
        plant.advance(1000)
    assert plant.told == []
    plant.advance(AFTER_MS + SETTLE_MS + HOUSEKEEPING_MS)
    assert {e.device_id for e in plant.told} == {"press-1", "press-2"}


def test_more_metrics_than_are_watched_are_counted(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plantwire.domain.missing.KEYS_MAX", 2)
    plant.rules = (msgspec.structs.replace(LOST, metric="*"),)
    plant.start()
    plant.live(3, a=1.0, b=1.0, c=1.0)
    assert plant.flink.counts["silences_unwatched"] >= 1
    plant.advance(AFTER_MS + SOON_MS)
    assert len(plant.told) == 2
