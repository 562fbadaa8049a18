"""Data that stay away, as the alarm-detection job is submitted, on a real cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from plantwire.domain.alarm_events import alarm_id_of
from plantwire.domain.listening import SETTLE_MS
from plantwire.jobs import alarm_detection
from plantwire.schemas.records import QUALITY_STALE, AlarmEvent, AlarmRule, Limit, Missing
from plantwire.schemas.severity import Severity
from tests.topology.cluster import Cluster

pytestmark = pytest.mark.long

HIGH, MEDIUM = int(Severity.HIGH), int(Severity.MEDIUM)
AFTER_MS = 2_000
SILENT = AlarmRule(
    "went-silent",
    1,
    "quiet-*",
    "",
    (),
    message="{device}: no data for {after_s} s",
    missing=(Missing(HIGH, 3 * AFTER_MS), Missing(MEDIUM, AFTER_MS)),
)
LOST = AlarmRule("lost-level", 1, "partly-*", "level", (), missing=(Missing(HIGH, AFTER_MS),))
LONG = AlarmRule("long-silent", 1, "patient-*", "", (), missing=(Missing(HIGH, 10_000),))


def put_in_force(cluster: Cluster, rule: AlarmRule) -> None:
    """Rules are taken in their order: one after it shows that it is there, and is a device's own."""
    name = f"after-{rule.rule_id}"
    marker = AlarmRule(name, 1, name, "level", (Limit(HIGH, above=10),))
    cluster.publish_rules(rule, marker)
    cluster.until(
        lambda: cluster.send(name, level=11) and cluster.alarms(name), 20, f"{rule.rule_id} is there"
    )


def first_events(cluster: Cluster, device_id: str, kinds: list[str]) -> list[AlarmEvent]:
    """Once its first events are of these kinds; more may follow, since it goes on being silent."""
    count = len(kinds)
    cluster.until(
        lambda: [e.kind for e in cluster.alarms(device_id)[:count]] == kinds, 30, f"{device_id}: {kinds}"
    )
    return cluster.alarms(device_id)[:count]


@contextmanager
def steadily_sent(cluster: Cluster, device_id: str) -> Iterator[None]:
    """Two frames a second, whatever else happens."""
    stopping = threading.Event()

    def send() -> None:
        cluster.send(device_id, level=1)
        while not stopping.wait(0.5):
            cluster.send(device_id, level=1)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_a_silent_device_is_missed_ever_more_and_clears_with_its_next_value(cluster: Cluster) -> None:
    put_in_force(cluster, SILENT)
    last_ms = cluster.send("quiet-1", level=1)
    raised, worse = first_events(cluster, "quiet-1", ["RAISED", "SEVERITY_CHANGED"])
    assert raised.alarm_id == alarm_id_of("quiet-1", "went-silent", "", last_ms + AFTER_MS)
    assert (raised.event_time_ms, raised.severity) == (last_ms + AFTER_MS, MEDIUM)
    assert (worse.event_time_ms, worse.severity) == (last_ms + 3 * AFTER_MS, HIGH)
    assert raised.message == "quiet-1: no data for 2 s"
    # Neither what was stored on the way nor what is marked stale is data.
    cluster.send("quiet-1", historical=True, level=2)
    cluster.send("quiet-1", quality=QUALITY_STALE, level=2)
    back_ms = cluster.send("quiet-1", level=2)
    cleared = first_events(cluster, "quiet-1", ["RAISED", "SEVERITY_CHANGED", "CLEARED"])[-1]
    assert (cleared.alarm_id, cleared.event_time_ms) == (raised.alarm_id, back_ms)


def test_a_metric_that_its_device_leaves_out_is_missed(cluster: Cluster) -> None:
    put_in_force(cluster, LOST)
    last_ms = 0
    sent = 0

    def send_flow() -> bool:
        nonlocal last_ms, sent
        sent += 1
        if sent <= 20:
            last_ms = cluster.send("partly-1", level=1, flow=1)
        else:
            cluster.send("partly-1", flow=1)
        return bool(cluster.alarms("partly-1"))

    cluster.until(send_flow, 20, "the level is missed")
    (raised,) = cluster.alarms("partly-1")
    assert (raised.metric, raised.event_time_ms) == ("level", last_ms + AFTER_MS)


def test_waits_survive_a_savepoint_and_a_backlog_is_no_silence(cluster: Cluster) -> None:
    put_in_force(cluster, LOST)
    put_in_force(cluster, LONG)
    cluster.send("partly-2", level=1)
    (raised,) = first_events(cluster, "partly-2", ["RAISED"])
    last_ms = cluster.send("patient-1", level=1)
    with steadily_sent(cluster, "patient-2"):
        assert cluster.jobs.stop(alarm_detection.NAME, 60) is not None
        # While the job is away partly-2 is back, patient-2 goes on, and patient-1 does not.
        cluster.send("partly-2", level=2)
        cluster.submit(alarm_detection.NAME)
        cleared = first_events(cluster, "partly-2", ["RAISED", "CLEARED"])[-1]
        assert (cleared.alarm_id, cleared.revision) == (raised.alarm_id, 2)
        # What lay in wait is read. Before it was, patient-1 could not be missed: it is given a minute.
        assert cluster.alarms("patient-1") == []
        cluster.until(lambda: cluster.alarms("patient-1"), SETTLE_MS / 1000 + 40, "patient-1 is missed")
        assert cluster.alarms("patient-2") == []
    (missed,) = cluster.alarms("patient-1")
    # By up to a quarter of what its rule allows later, where the savepoint came soon after its frame.
    assert last_ms + 10_000 <= missed.event_time_ms <= last_ms + 12_500
