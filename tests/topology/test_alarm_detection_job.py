"""The alarm-detection job as it is submitted, on a real cluster."""

from __future__ import annotations

import json
import time

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.packed_state import pack
from plantwire.domain.rule_book import RuleBook
from plantwire.jobs import alarm_detection
from plantwire.schemas import topics
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.severity import Severity
from tests.topology.cluster import Cluster, now_ms
from tests.topology.conftest import RULES

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)


def test_frames_become_alarms_with_their_hops(cluster: Cluster) -> None:
    with cluster.redis.pubsub() as channels:
        channels.subscribe(topics.CHANNEL_CRITICAL, topics.CHANNEL_CLEARED)
        for value in (50, 95, 101, 102, 50):
            cluster.send("press-1", temperature=value)
        events = cluster.wait_for_kinds("press-1", ["RAISED", "SEVERITY_CHANGED", "CLEARED"])
        announced = []
        while len(announced) < 2:
            message = channels.get_message(timeout=10)
            assert message is not None, announced
            if message["type"] == "message":
                announced.append((message["channel"], json.loads(message["data"])))
    assert [(e.severity, e.revision, e.value) for e in events] == [
        (HIGH, 1, 95),
        (CRITICAL, 2, 101),
        (CRITICAL, 3, 50),
    ]
    assert len({e.alarm_id for e in events}) == 1
    critical = events[1]
    assert 0 < critical.gateway_out_us <= critical.detect_in_us <= critical.detect_out_us
    assert critical.detect_out_us <= critical.published_us
    (channel, raised), (cleared_channel, cleared) = announced
    assert (channel, raised["alarmId"], raised["revision"]) == (
        topics.CHANNEL_CRITICAL,
        critical.alarm_id,
        2,
    )
    assert (cleared_channel, cleared["revision"]) == (topics.CHANNEL_CLEARED, 3)


def test_what_cannot_be_read_goes_to_the_dead_letter_topic_and_disturbs_nothing(cluster: Cluster) -> None:
    cluster.send("press-2", temperature=95)
    cluster.send_bytes("press-2", b"garbage")
    cluster.send_bytes(None, b"no key")
    cluster.send_bytes("press-2", None)
    # Kafka itself refuses records of more than an hour ahead; gateways refuse a minute.
    cluster.send("press-2", now_ms() + 30 * 60 * 1000, temperature=50)
    cluster.send("press-2", historical=True, temperature=50)
    cluster.send("press-2", temperature=50)
    cluster.wait_for_kinds("press-2", ["RAISED", "CLEARED"])
    reasons: list[tuple[str | None, str]] = []

    def complete() -> bool:
        reasons[:] = [
            (key, headers[topics.HEADER_REASON].decode().split(":")[0])
            for key, _, headers in cluster.read(topics.TELEMETRY_DLQ)
        ]
        return len(reasons) >= 4

    cluster.until(complete, 20, "four dead letters")
    assert sorted(reasons, key=str) == sorted(
        [
            ("press-2", "undecodable"),
            ("press-2", "undecodable"),
            (None, "undecodable"),
            ("press-2", "timestamp-ahead"),
        ],
        key=str,
    )


def test_an_alarm_that_the_edge_raised_while_cut_off_keeps_its_id(cluster: Cluster) -> None:
    """Kafka lacks the frame that raised it; the next live one brings what the gateway's detection knows."""
    before_ms = cluster.send("press-9", temperature=50)
    edge = DeviceDetector("press-9", RuleBook(RULES).for_device("press-9"))
    [raised] = edge.take_readings([("temperature", 101.0, before_ms + 1)], before_ms + 1, "hall", before_ms)
    cluster.send("press-9", edge_state=pack("hall", edge.state), temperature=102)
    cluster.send("press-9", temperature=50)
    # The gateway's own event of it may be lost with its disk, so the job tells it as well.
    told, cleared = cluster.wait_for_kinds("press-9", ["RAISED", "CLEARED"])
    assert (told.alarm_id, told.revision) == (raised.alarm_id, 1)
    assert (cleared.alarm_id, cleared.revision) == (raised.alarm_id, 2)


def test_a_delay_ends_without_a_further_frame(cluster: Cluster) -> None:
    sent_ms = cluster.send("tank-1", pressure=6)
    (event,) = cluster.wait_for_kinds("tank-1", ["RAISED"])
    assert event.event_time_ms == sent_ms + 3000


def test_a_rule_changes_and_is_withdrawn_without_a_restart(cluster: Cluster) -> None:
    rule = AlarmRule("hot-swap", 1, "swap-*", "level", (Limit(CRITICAL, above=10),))
    cluster.publish_rules(rule)
    deadline_s = time.monotonic() + 2
    number = 0
    # A device is judged by what is in force when its frame arrives; each try is a device of its own.
    while not (events := cluster.alarms(f"swap-{number}")):
        assert time.monotonic() < deadline_s, "the new rule was not in force within 2 s"
        number += 1
        cluster.send(f"swap-{number}", level=11)
        time.sleep(0.1)
    device = f"swap-{number}"
    assert [e.rule_version for e in events] == [1]
    cluster.publish_rules(AlarmRule("hot-swap", 2, "swap-*", "level", rule.limits, retired=True))

    def withdrawn() -> bool:
        cluster.send(device, level=11)
        return [e.kind for e in cluster.alarms(device)] == ["RAISED", "CLEARED"]

    cluster.until(withdrawn, 2, "the withdrawn rule's alarm clears")


def test_a_deleted_rule_clears_its_alarms(cluster: Cluster) -> None:
    cluster.publish_rules(AlarmRule("deleted", 1, "del-*", "level", (Limit(HIGH, above=10),)))
    cluster.until(lambda: cluster.send("del-1", level=11) and cluster.alarms("del-1"), 10, "rule in force")
    cluster.produce(topics.ALARMS_RULES, "deleted", None)

    def cleared() -> bool:
        cluster.send("del-1", level=11)
        return [e.kind for e in cluster.alarms("del-1")] == ["RAISED", "CLEARED"]

    cluster.until(cleared, 5, "the deleted rule's alarm clears")


def test_state_delays_and_rules_survive_a_savepoint(cluster: Cluster) -> None:
    rule = AlarmRule("kept", 1, "kept-*", "level", (Limit(HIGH, above=10),))
    cluster.publish_rules(rule)
    cluster.until(lambda: cluster.send("kept-0", level=11) and cluster.alarms("kept-0"), 10, "rule in force")
    cluster.send("press-3", temperature=101)
    cluster.wait_for_kinds("press-3", ["RAISED"])
    delayed_ms = cluster.send("tank-2", pressure=6)
    assert cluster.jobs.stop(alarm_detection.NAME, 60) is not None
    # While the job is away: the normal value that clears, and nothing at all for the delayed one.
    cluster.send("press-3", temperature=50)
    cluster.send("kept-1", level=11)
    cluster.submit(alarm_detection.NAME)
    raised, cleared = cluster.wait_for_kinds("press-3", ["RAISED", "CLEARED"])
    assert (cleared.alarm_id, cleared.revision) == (raised.alarm_id, 2)
    (event,) = cluster.wait_for_kinds("tank-2", ["RAISED"])
    assert event.event_time_ms == delayed_ms + 3000
    cluster.wait_for_kinds("kept-1", ["RAISED"])
    # Within the window of its first raise a further one is counted, also across the restart.
    cluster.send("press-3", temperature=101)
    again = cluster.wait_for_kinds("press-3", ["RAISED", "CLEARED", "RAISED"])[-1]
    assert (again.alarm_id, again.count) == (raised.alarm_id, 2)


def test_a_killed_task_manager_loses_no_alarm(cluster: Cluster) -> None:
    devices = [f"press-k{n}" for n in range(60)]
    for index, device in enumerate(devices):
        cluster.send(device, temperature=101)
        if index == 30:
            victim = cluster.worker_of(alarm_detection.NAME)
            victim.clear_away()  # kill -9
            victim.start()
    cluster.until(
        lambda: all([e.kind for e in cluster.alarms(d)] == ["RAISED"] for d in devices), 60, "every alarm"
    )
    for device in devices:
        cluster.send(device, temperature=50)
    cluster.until(
        lambda: all([e.kind for e in cluster.alarms(d)] == ["RAISED", "CLEARED"] for d in devices),
        60,
        "every clear",
    )
    every = [cluster.alarms(d) for d in devices]
    # `alarms` folds equal (id, revision) pairs: one id per device means that duplicates carried it.
    assert all(len({e.alarm_id for e in events}) == 1 for events in every)
