"""The live-state job as it is submitted, on a real cluster."""

from __future__ import annotations

import json

from plantwire.schemas import topics
from plantwire.schemas.records import QUALITY_STALE
from tests.topology.cluster import Cluster, now_ms


def test_values_are_coalesced_numbered_and_kept(cluster: Cluster) -> None:
    start_ms = now_ms() - 1000
    with cluster.redis.pubsub() as channel:
        channel.subscribe(topics.CHANNEL_TELEMETRY)
        for n in range(100):
            cluster.send("pump-1", start_ms + n, flow=n, head=2 * n)
        cluster.send("pump-1", start_ms - 500, flow=-1, other=1)
        messages: list[dict[str, object]] = []
        while not messages or messages[-1]["metrics"].get("other") != 1:  # type: ignore[attr-defined]
            message = channel.get_message(timeout=10)
            assert message is not None, messages
            if message["type"] == "message":
                messages += [m for m in json.loads(message["data"]) if m["deviceId"] == "pump-1"]
    assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
    # A hundred frames within less than a second, one message per 300 ms at the most.
    assert len(messages) < 20
    state = cluster.redis.hgetall(topics.PREFIX_STATE + "pump-1")
    assert {k: json.loads(v) for k, v in state.items()} == {"flow": 99.0, "head": 198.0, "other": 1.0}
    history = cluster.redis.xrange(topics.PREFIX_HISTORY + "pump-1")
    assert [entry for entry, _ in history] == [f"{m['seq']}-0" for m in messages]
    assert [json.loads(fields["data"]) for _, fields in history] == [m["metrics"] for m in messages]
    assert cluster.redis.sismember(topics.KEY_DEVICES, "pump-1")
    assert cluster.redis.get(topics.KEY_EPOCH)


def test_values_that_go_stale_say_so_until_they_are_good_again(cluster: Cluster) -> None:
    def quality() -> dict[str, str]:
        return dict(cluster.redis.hgetall(topics.PREFIX_QUALITY + "node:press-1"))

    def state() -> dict[str, str]:
        return dict(cluster.redis.hgetall(topics.PREFIX_STATE + "node:press-1"))

    cluster.send("node:press-1", flow=5, head=7)
    cluster.until(lambda: state() == {"flow": "5.0", "head": "7.0"}, 20, "the values are there")
    assert quality() == {}
    cluster.send("node:press-1", quality=QUALITY_STALE, flow=5, head=7)
    cluster.until(lambda: quality() == {"flow": "500", "head": "500"}, 10, "both are stale")
    assert state() == {"flow": "5.0", "head": "7.0"}
    cluster.send("node:press-1", head=None)
    cluster.send("node:press-1", flow=6)
    cluster.until(lambda: quality() == {"head": "0"}, 10, "one is good, one unknown")


def test_history_moves_a_live_value_only_where_it_is_newer(cluster: Cluster) -> None:
    def state() -> dict[str, str]:
        return dict(cluster.redis.hgetall(topics.PREFIX_STATE + "pump-7"))

    live_ms = cluster.send("pump-7", flow=1)
    cluster.until(lambda: state() == {"flow": "1.0"}, 20, "the live value is there")
    cluster.send("pump-7", live_ms - 1000, historical=True, flow=2, never_live=3)
    # What the device sent last before it fell silent, drained from its gateway's buffer.
    cluster.send("pump-7", live_ms + 1, historical=True, flow=4, never_live=3)
    cluster.until(lambda: state() == {"flow": "4.0"}, 10, "the newer value is there, and nothing else")


def test_alarms_that_are_not_critical_reach_redis_too(cluster: Cluster) -> None:
    cluster.send("press-4", temperature=95)
    (event,) = cluster.wait_for_kinds("press-4", ["RAISED"])
    cluster.until(
        lambda: cluster.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id), 10, "the alarm is active"
    )
    wire = json.loads(cluster.redis.hget(topics.KEY_ACTIVE_ALARMS, event.alarm_id) or "{}")
    assert (wire["severity"], wire["kind"]) == ("HIGH", "RAISED")
    assert wire["hops"]["published"] > 0
    cluster.send("press-4", temperature=50)
    cluster.until(
        lambda: not cluster.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id), 10, "the alarm cleared"
    )


def test_a_wiped_redis_gets_its_active_alarms_back(cluster: Cluster) -> None:
    cluster.send("press-5", temperature=101)
    (event,) = cluster.wait_for_kinds("press-5", ["RAISED"])
    cluster.until(
        lambda: cluster.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id), 10, "the alarm is active"
    )
    epoch = cluster.redis.get(topics.KEY_EPOCH)
    # Nothing comes in, and it is noticed all the same.
    cluster.redis.flushall()
    cluster.until(
        lambda: cluster.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id), 20, "the alarm is back"
    )
    cluster.send("pump-2", flow=1)
    cluster.until(lambda: cluster.redis.get(topics.KEY_EPOCH) not in (None, epoch), 20, "a new epoch")
    cluster.send("press-5", temperature=50)
    cluster.wait_for_kinds("press-5", ["RAISED", "CLEARED"])
