"""The telemetry-patterns job as it is submitted, on a real cluster.

Matches are known when later frames come in, so the tests go on sending those of devices of their own
(`beat-*`) while they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from plantwire.jobs import telemetry_patterns
from plantwire.schemas.records import AlarmEvent
from tests.topology.cluster import Cluster, now_ms

pytestmark = pytest.mark.long

STEP_MS = 40
WAIT_S = 30.0

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


def test_a_stuck_value_is_an_alarm_until_it_moves(watched: Watched) -> None:
    begin_ms = watched.play("stuck-1", "any", (6, *[7] * 28))
    (raised,) = watched.wait_for("stuck-1", "RAISED")
    assert raised.event_time_ms == begin_ms + STEP_MS + 1000
    moved_ms = watched.play("stuck-1", "any", (8,))
    cleared = watched.wait_for("stuck-1", "RAISED", "CLEARED")[1]
    assert (cleared.alarm_id, cleared.event_time_ms) == (raised.alarm_id, moved_ms)


def test_patterns_that_are_not_sound_are_not_submitted(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(PATTERNS.replace("count: 3", "count: '3); DROP TABLE x'"))
    with pytest.raises(Exception, match=r"whole number, without quotes"):
        watched.cluster.submit(telemetry_patterns.NAME, {"PLANTWIRE_PATTERNS": str(file)})
