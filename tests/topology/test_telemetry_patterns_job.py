"""The telemetry-patterns job as it is submitted, on a real cluster.

Matches are known when later frames come in, so the tests go on sending those of devices of their own
(`beat-*`) while they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from plantwire.jobs import alarm_detection, telemetry_patterns
from plantwire.schemas import topics
from plantwire.schemas.records import QUALITY_BAD, AlarmEvent
from tests.topology.cluster import Cluster, now_ms

pytestmark = pytest.mark.long

STEP_MS = 40
WAIT_S = 30.0
RECOVERED_S = 90.0

PATTERNS = """\
patterns:
  - {id: collapse, version: 4, devices: "rise-*", metric: level, severity: high, hold_s: 2,
     rise_then_drop: {rises: 3, drop_percent: 10, within_s: 300},
     message: "{device} in {site}: {value} below {limit}"}
  - {id: spiky, version: 1, devices: "*", metric: "wave*", severity: medium, hold_s: 86400,
     spikes: {count: 3, above: 90, within_s: 300}}
  - {id: frozen, version: 1, devices: "stuck-*", metric: "*", severity: low,
     stuck: {for_s: 1, samples: 3}}
"""


class Watched:
    """The cluster, and what patterns tell of its devices."""

    def __init__(self, cluster: Cluster, patterns: Path) -> None:
        self.cluster = cluster
        self._variables = {"PLANTWIRE_PATTERNS": str(patterns)}
        self._beats = 0

    def submit(self) -> None:
        """Going on where it left off, and wait until it looks at frames."""
        self.cluster.submit(telemetry_patterns.NAME, self._variables)

    def wait_until_it_looks(self) -> None:
        """The first run starts at the end of the topic, which is some moment after it was submitted."""
        tries = 0

        def seen() -> bool:
            nonlocal tries
            tries += 1
            self.play(f"probe-{tries}", "wave", (95, 0, 95, 0, 95))
            return any(self.told(f"probe-{number}") for number in range(1, tries + 1))

        self.until(seen, "the job looks at frames", 60)

    def play(self, device: str, metric: str, numbers: Sequence[float], begin_ms: int | None = None) -> int:
        """A frame for each number, `STEP_MS` apart; when it began, which is now unless said.

        So frames are somewhat ahead of their time, and not late however long sending them takes.
        """
        if begin_ms is None:
            begin_ms = now_ms()
        for index, number in enumerate(numbers):
            self.cluster.send(device, begin_ms + index * STEP_MS, **{metric: number})
        return begin_ms

    def told(self, device: str) -> list[AlarmEvent]:
        """The events of a device's patterns, each once."""
        return [event for event in self.cluster.alarms(device) if event.rule_id.startswith("pattern:")]

    def wait_for(self, device: str, *kinds: str) -> list[AlarmEvent]:
        """The events of a device's patterns once their kinds are these."""
        self.until(lambda: [event.kind for event in self.told(device)] == list(kinds), f"{device}: {kinds}")
        return self.told(device)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
        """Let time pass until `condition` holds."""

        def beaten() -> object:
            self._beats += 1
            self.cluster.send(f"beat-{self._beats % 16}", beat=1)
            return condition()

        self.cluster.until(beaten, timeout_s, what)


@pytest.fixture(scope="module")
def patterns_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("patterns") / "patterns.yaml"
    file.write_text(PATTERNS)
    return file


@pytest.fixture(scope="module")
def watched(cluster: Cluster, patterns_file: Path) -> Iterator[Watched]:
    worker = cluster.add_task_manager()
    watched = Watched(cluster, patterns_file)
    watched.submit()
    watched.wait_until_it_looks()
    yield watched
    cluster.jobs.stop(telemetry_patterns.NAME, 60)
    worker.stop()


def test_a_drop_after_a_rise_is_an_alarm_until_it_has_held(watched: Watched) -> None:
    begin_ms = watched.play("rise-1", "level", (10, 11, 12, 13, 14, 12.9, 12.5, 13))
    raised, cleared = watched.wait_for("rise-1", "RAISED", "CLEARED")
    assert (raised.rule_id, raised.rule_version, raised.severity) == ("pattern:collapse", 4, 1)
    assert (raised.metric, raised.value, raised.limit) == ("level", 12.5, 14 - 14 * 0.1)
    assert raised.message == "rise-1 in hall: 12.5 below 12.6"
    assert raised.event_time_ms == raised.raise_time_ms == begin_ms + 6 * STEP_MS
    assert 0 < raised.detect_in_us <= raised.detect_out_us
    assert (cleared.alarm_id, cleared.revision) == (raised.alarm_id, 2)
    assert cleared.event_time_ms == raised.event_time_ms + 2000


def test_in_a_silent_plant_time_goes_on_and_alarms_clear(watched: Watched) -> None:
    watched.play("rise-5", "level", (10, 11, 12, 13, 5))
    # No beats: nobody sends anything.
    watched.cluster.until(
        lambda: [event.kind for event in watched.told("rise-5")] == ["RAISED", "CLEARED"],
        WAIT_S,
        "raised and cleared in silence",
    )
    raised, cleared = watched.told("rise-5")
    assert cleared.event_time_ms == raised.event_time_ms + 2000


def test_spikes_are_counted_into_one_alarm_that_clients_see(watched: Watched) -> None:
    watched.play("spike-1", "wave_height", (95, 96, 50, 97, 50, 98))
    (first,) = watched.wait_for("spike-1", "RAISED")
    watched.play("spike-1", "wave_height", (50, 95, 50, 95, 50, 95))
    second = watched.wait_for("spike-1", "RAISED", "RAISED")[1]
    assert (first.value, first.limit, first.count) == (98, 90, 1)
    assert (second.alarm_id, second.revision, second.count) == (first.alarm_id, 2, 2)
    redis = watched.cluster.redis
    watched.until(lambda: redis.hexists(topics.KEY_ACTIVE_ALARMS, first.alarm_id), "the alarm is active")


def test_a_stuck_value_is_an_alarm_until_it_moves(watched: Watched) -> None:
    begin_ms = watched.play("stuck-1", "any", (6, *[7] * 28))
    (raised,) = watched.wait_for("stuck-1", "RAISED")
    assert raised.event_time_ms == begin_ms + STEP_MS + 1000
    moved_ms = watched.play("stuck-1", "any", (8,))
    cleared = watched.wait_for("stuck-1", "RAISED", "CLEARED")[1]
    assert (cleared.alarm_id, cleared.event_time_ms) == (raised.alarm_id, moved_ms)


def test_what_is_no_live_good_number_is_counted_and_disturbs_nothing(watched: Watched) -> None:
    send = watched.cluster.send
    before = watched.cluster.counters(telemetry_patterns.NAME)
    begin_ms = now_ms()
    watched.play("rise-2", "level", (10, 11), begin_ms)
    watched.cluster.send_bytes("rise-2", b"garbage")
    watched.cluster.send_bytes("rise-2", None)
    send("rise-2", begin_ms + 45, quality=QUALITY_BAD, level=0)
    send("rise-2", begin_ms + 50, historical=True, level=0)
    send("rise-2", begin_ms + 55, level=None)
    send("rise-2", begin_ms - 60_000, level=0)
    # So far ahead that it would make all others late, if the watermark followed it.
    send("rise-2", now_ms() + 30 * 60 * 1000, level=0)
    # Said twice, and out of order.
    watched.play("rise-2", "level", (11, 13), begin_ms + STEP_MS)
    watched.play("rise-2", "level", (14, 1), begin_ms + 3 * STEP_MS)
    watched.play("rise-2", "level", (12,), begin_ms + 60)
    (raised, _) = watched.wait_for("rise-2", "RAISED", "CLEARED")
    assert (raised.value, raised.event_time_ms) == (1, begin_ms + 4 * STEP_MS)

    def counted() -> bool:
        # A tombstone is no record for the reader; Flink reports metrics with some delay.
        more = watched.cluster.counters(telemetry_patterns.NAME) - before
        return (
            more["frames_rejected"] >= 1
            and more["samples_not_good"] == 1
            and more["samples_historical"] == 1
            and more["samples_without_number"] == 1
            and more["samples_late"] == 1
            and more["samples_ahead"] == 1
            and more["samples_live"] >= 7
        )

    watched.until(counted, "everything left out is counted")


def test_detection_leaves_the_alarms_of_patterns_alone(watched: Watched) -> None:
    cluster = watched.cluster
    watched.play("press-p1", "wave", (95, 0, 95, 0, 95))
    cluster.send("press-p1", temperature=101)
    watched.wait_for("press-p1", "RAISED")
    assert cluster.jobs.stop(alarm_detection.NAME, 60) is not None
    cluster.submit(alarm_detection.NAME)
    cluster.send("press-p1", temperature=50)
    # Now detection has held this device's state against the log.
    cluster.until(
        lambda: (
            [e.kind for e in cluster.alarms("press-p1") if e.rule_id == "over-temperature"][-1:]
            == ["CLEARED"]
        ),
        30,
        "detection has seen the device again",
    )
    cluster.send("press-p1", temperature=50)
    watched.play("press-p1", "wave", (0, 95, 0, 95, 0, 95))
    _, second = watched.wait_for("press-p1", "RAISED", "RAISED")
    assert second.count == 2


def test_matches_under_way_and_alarms_survive_a_savepoint(watched: Watched) -> None:
    watched.play("rise-3", "level", (10, 11, 12, 13))
    watched.play("spike-3", "wave", (95, 0, 95, 0))
    watched.play("spike-4", "wave", (95, 0, 95, 0, 95, 0))
    (active,) = watched.wait_for("spike-4", "RAISED")
    assert watched.cluster.jobs.stop(telemetry_patterns.NAME, 60) is not None
    watched.submit()
    watched.play("rise-3", "level", (5,))
    watched.play("spike-3", "wave", (95,))
    watched.play("spike-4", "wave", (95, 0, 95, 0, 95))
    assert watched.wait_for("rise-3", "RAISED", "CLEARED")[0].value == 5
    watched.wait_for("spike-3", "RAISED")
    again = watched.wait_for("spike-4", "RAISED", "RAISED")[1]
    assert (again.alarm_id, again.count) == (active.alarm_id, 2)


def test_neither_devices_nor_metrics_mix(watched: Watched) -> None:
    begin_ms = now_ms()
    # Of two devices, and of two metrics of a third: four spikes together, two of each.
    for index, number in enumerate((95, 0, 95)):
        at_ms = begin_ms + index * STEP_MS
        for device in ("spike-7", "spike-8"):
            watched.cluster.send(device, at_ms, wave=number)
        watched.cluster.send("spike-9", at_ms, wave_a=number, wave_b=number)
    watched.play("spike-10", "wave", (95, 0, 95, 0, 95), begin_ms + 3 * STEP_MS)
    watched.wait_for("spike-10", "RAISED")
    assert [watched.told(f"spike-{number}") for number in (7, 8, 9)] == [[], [], []]
    watched.play("spike-8", "wave", (0, 95))
    watched.play("spike-9", "wave_b", (0, 95))
    watched.wait_for("spike-8", "RAISED")
    (of_one,) = watched.wait_for("spike-9", "RAISED")
    assert of_one.metric == "wave_b"
    assert watched.told("spike-7") == []


def test_a_killed_task_manager_loses_nothing_that_was_under_way(watched: Watched) -> None:
    watched.play("rise-4", "level", (10, 11, 12, 13))
    watched.cluster.checkpoint(telemetry_patterns.NAME)
    worker = watched.cluster.worker_of(telemetry_patterns.NAME)
    worker.clear_away()  # kill -9
    worker.start()
    watched.until(
        lambda: watched.cluster.has_recovered(telemetry_patterns.NAME), "the job runs again", RECOVERED_S
    )
    watched.play("rise-4", "level", (5,))
    # By then the alarm log was read to its end: that must not keep the hold from running out.
    raised, cleared = watched.wait_for("rise-4", "RAISED", "CLEARED")
    assert (raised.value, cleared.event_time_ms) == (5, raised.event_time_ms + 2000)


def test_other_patterns_let_the_alarms_of_those_that_are_gone_go(
    watched: Watched, patterns_file: Path
) -> None:
    watched.play("spike-5", "wave", (95, 0, 95, 0, 95, 0))
    (gone,) = watched.wait_for("spike-5", "RAISED")
    watched.play("stuck-5", "any", [7] * 30)
    watched.wait_for("stuck-5", "RAISED")
    assert watched.cluster.jobs.stop(telemetry_patterns.NAME, 60) is not None
    patterns_file.write_text(PATTERNS.replace("id: spiky", "id: another").replace("count: 3", "count: 2"))
    watched.submit()
    cleared = watched.wait_for("spike-5", "RAISED", "CLEARED")[1]
    assert (cleared.alarm_id, cleared.revision) == (gone.alarm_id, 2)
    assert "began anew" in cleared.message
    # What is still watched for is held on to, until a sample says otherwise.
    assert [event.kind for event in watched.told("stuck-5")] == ["RAISED"]
    watched.play("stuck-5", "any", (8,))
    watched.wait_for("stuck-5", "RAISED", "CLEARED")
    watched.play("spike-6", "wave", (95, 0, 95))
    (event,) = watched.wait_for("spike-6", "RAISED")
    assert event.rule_id == "pattern:another"


def test_patterns_that_are_not_sound_are_not_submitted(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(PATTERNS.replace("count: 3", "count: '3); DROP TABLE x'"))
    with pytest.raises(Exception, match=r"whole number, without quotes"):
        watched.cluster.submit(telemetry_patterns.NAME, {"PLANTWIRE_PATTERNS": str(file)})
