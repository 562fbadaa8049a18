"""The anomaly-scoring job as it is submitted, on a real cluster: scores are telemetry, and raise alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from plantwire.domain.anomaly.device_scorer import LEVEL, MOVEMENT, PROTOCOL
from plantwire.domain.anomaly.metric_scorer import MODEL, WARM_UP, MetricScorer, Scores
from plantwire.jobs import anomaly_scoring
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import QUALITY_BAD, AlarmRule, Limit, TelemetryFrame
from plantwire.schemas.severity import Severity
from plantwire.simulator.signals import gaussian
from tests.topology.cluster import Cluster, now_ms

pytestmark = pytest.mark.long

MEMORY = 1000
SCORING = f"""\
scoring:
  - {{devices: "scored-*", metric: "torque", memory: {MEMORY}}}
"""
SCORED_S = 30.0
AGAIN_S = 90.0


class Device:
    """A device of which `torque` is scored, and the same model outside of Flink, never interrupted."""

    def __init__(self, cluster: Cluster, device_id: str) -> None:
        self.id = device_id
        self._cluster = cluster
        self._model = MetricScorer(MEMORY)
        self._at_ms = 0
        self._taken = 0
        self.expected: dict[int, Scores] = {}

    def send(self, values: Sequence[float]) -> list[int]:
        """A live frame for each value; their event times."""
        times = []
        for value in values:
            # Some values are sent in one millisecond; each has a time of its own.
            self._at_ms = max(now_ms(), self._at_ms + 1)
            self._cluster.send(self.id, self._at_ms, torque=value, speed=7.0)
            scores = self._model.take(value)
            if scores is not None:
                self.expected[self._at_ms] = scores
            times.append(self._at_ms)
        return times

    def usual(self, number: int) -> list[int]:
        """`send`, values that are nothing special."""
        begin, self._taken = self._taken, self._taken + number
        return self.send([gaussian(1, n) for n in range(begin, self._taken)])

    def frames(self) -> list[TelemetryFrame]:
        """The device's frames of scores so far."""
        frames = [
            FRAME_CODEC.decode(body, headers[topics.HEADER_FINGERPRINT].decode())
            for key, body, headers in self._cluster.read(topics.TELEMETRY_RAW)
            if key == self.id and topics.HEADER_FINGERPRINT in headers
        ]
        return [frame for frame in frames if frame.protocol == PROTOCOL]

    def scores(self) -> dict[int, Scores]:
        """What was told, by event time; what is told again has to be the same."""
        told: dict[int, Scores] = {}
        for frame in self.frames():
            values = {metric.name: metric.number for metric in frame.metrics}
            level, movement = values[LEVEL + "torque"], values[MOVEMENT + "torque"]
            assert level is not None
            assert movement is not None
            scores = Scores(level, movement)
            assert told.setdefault(frame.event_time_ms, scores) == scores
        return told

    def wait_until_all_is_scored(self, timeout_s: float = SCORED_S) -> None:
        """And held against the model that was not interrupted."""
        self._cluster.until(
            lambda: self.scores().keys() >= self.expected.keys(), timeout_s, f"{self.id}: all is scored"
        )
        assert self.scores() == self.expected


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("scoring") / "scoring.yaml"
    file.write_text(SCORING)
    return {"PLANTWIRE_SCORING_FILE": str(file)}


@pytest.fixture(scope="module")
def scoring(cluster: Cluster, variables: dict[str, str]) -> Iterator[Cluster]:
    """The cluster with the job on one more slot."""
    unusual = Limit(int(Severity.LOW), above=4.0, deadband=1.0)
    cluster.publish_rules(AlarmRule("unusual-level", 1, "scored-*", LEVEL + "*", (unusual,)))
    worker = cluster.add_task_manager()
    cluster.submit(anomaly_scoring.NAME, variables)
    yield cluster
    cluster.jobs.stop(anomaly_scoring.NAME, 60)
    worker.stop()


def test_scores_come_back_as_telemetry_of_the_device(scoring: Cluster) -> None:
    device = Device(scoring, "scored-1")
    device.usual(WARM_UP + 5)
    device.wait_until_all_is_scored()
    frames = device.frames()
    assert len(frames) == 5
    for frame in frames:
        assert [metric.name for metric in frame.metrics] == [
            "anomaly/level/torque",
            "anomaly/movement/torque",
            "anomaly/model",
        ]
        assert frame.metrics[-1].text == MODEL
        assert (frame.site, frame.historical, frame.received_time_ms) == ("hall", False, frame.event_time_ms)
    # Clients see them as they see any metric.
    state = topics.PREFIX_STATE + device.id
    scoring.until(lambda: scoring.redis.hexists(state, "anomaly/level/torque"), 10, "the score is shown")


def test_a_score_above_its_limit_raises_an_alarm_until_it_is_below(scoring: Cluster) -> None:
    device = Device(scoring, "scored-2")
    device.usual(WARM_UP + 20)
    (at_ms,) = device.send([50.0])
    (raised,) = scoring.wait_for_kinds(device.id, ["RAISED"])
    assert (raised.rule_id, raised.metric) == ("unusual-level", "anomaly/level/torque")
    assert (raised.event_time_ms, raised.value) == (at_ms, device.expected[at_ms].level)
    # The mean of the last twelve is unusual as long as the value is among them.
    device.usual(20)
    device.wait_until_all_is_scored()
    assert [event.kind for event in scoring.wait_for_kinds(device.id, ["RAISED", "CLEARED"])][-1] == "CLEARED"


def test_what_is_not_live_and_good_teaches_nothing(scoring: Cluster) -> None:
    before = scoring.counters(anomaly_scoring.NAME)
    device = Device(scoring, "scored-3")
    device.usual(WARM_UP)
    scoring.send(device.id, now_ms(), historical=True, torque=99)
    scoring.send(device.id, now_ms(), quality=QUALITY_BAD, torque=99)
    scoring.send(device.id, now_ms() - 30_000, torque=99)
    scoring.send_bytes(device.id, b"garbage")
    device.usual(3)
    device.wait_until_all_is_scored()

    def counted() -> bool:
        more = scoring.counters(anomaly_scoring.NAME) - before
        return (more["frames_historical"], more["values_late"], more["frames_rejected"]) == (1, 1, 1)

    scoring.until(counted, 30, "what was left out is counted")


def test_a_savepoint_changes_no_score(scoring: Cluster, variables: dict[str, str]) -> None:
    device = Device(scoring, "scored-4")
    # Half of what it needs before the first score, and the other half after the restart.
    learning = Device(scoring, "scored-5")
    learning.usual(WARM_UP // 2)
    device.usual(WARM_UP + 10)
    device.wait_until_all_is_scored()
    assert scoring.jobs.stop(anomaly_scoring.NAME, 60) is not None
    # Sent while nobody reads.
    device.usual(5)
    scoring.submit(anomaly_scoring.NAME, variables)
    device.usual(5)
    learning.usual(WARM_UP // 2 + 5)
    device.wait_until_all_is_scored()
    learning.wait_until_all_is_scored()


def test_a_killed_task_manager_changes_no_score(scoring: Cluster) -> None:
    device = Device(scoring, "scored-6")
    device.usual(WARM_UP + 10)
    device.wait_until_all_is_scored()
    scoring.checkpoint(anomaly_scoring.NAME)
    # Scored and told after the checkpoint, so told again after the failure.
    device.usual(10)
    device.wait_until_all_is_scored()
    worker = scoring.worker_of(anomaly_scoring.NAME)
    worker.clear_away()  # kill -9
    device.usual(10)
    worker.start()
    device.wait_until_all_is_scored(AGAIN_S)
    frames = device.frames()
    assert len(frames) == len(device.expected) + 10
    device.usual(5)
    device.wait_until_all_is_scored()


def test_a_file_that_is_not_sound_is_not_submitted(scoring: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SCORING.replace("memory: 1000", "memory: 1"))
    with pytest.raises(Exception, match=r"bad\.yaml:2: .*memory"):
        scoring.submit(anomaly_scoring.NAME, {"PLANTWIRE_SCORING_FILE": str(file)})
