"""One cluster for all topology tests; each test uses devices and rules of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plantwire.jobs import alarm_detection, live_state
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.severity import Severity
from tests.topology.cluster import Cluster, running_cluster

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)

RULES = (
    AlarmRule(
        "over-temperature",
        1,
        "press-*",
        "temperature",
        (Limit(CRITICAL, above=100, deadband=2), Limit(HIGH, above=90, deadband=2)),
    ),
    AlarmRule("slow-pressure", 1, "*", "pressure", (Limit(CRITICAL, above=5),), on_delay_ms=3000),
)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.publish_rules(*RULES)
        cluster.submit(alarm_detection.NAME)
        cluster.submit(live_state.NAME)
        yield cluster
