"""The Socket.IO contract, seen from unchanged clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import jwt
import pytest
import redis

from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.schemas.wire import alarm_to_wire
from tests.builders import TOKEN_SECRET, alarm_event, token
from tests.integration.distribution.conftest import NAMESPACE, Distribution, Screen, refused, screen, until


async def test_a_client_gets_the_state_and_then_what_happens(
    live: LiveState, distribution: Distribution
) -> None:
    live.publish_telemetry("press-1", 1000, {"temperature": 20.5, "state": "läuft"})
    standing = alarm_event(alarm_id="standing", severity=Severity.HIGH.value)
    live.publish_alarm(standing)
    await until(lambda: distribution.metric("websocket_connections") == 0)
    async with screen(distribution.url) as client:
        (state,) = client.of("initial-state")
        assert state.keys() == {"epoch", "serverTime", "live", "alarmsComplete", "devices", "alarms"}
        assert abs(state["serverTime"] - time.time() * 1000) < 5000
        assert state["live"] is True
        await client.until(lambda: client.of("initial-state")[-1]["alarms"] or client.of("alarm"))
        live.publish_telemetry("press-1", 2000, {"temperature": 21})
        critical = alarm_event()
        live.publish_alarm(critical)
        cleared = alarm_event(revision=2, kind=AlarmKind.CLEARED)
        live.publish_alarm(cleared)
        await client.until(lambda: client.of("alarm-cleared") and client.of("telemetry"))
        assert client.of("telemetry")[-1] == {
            "seq": 2,
            "deviceId": "press-1",
            "timestamp": 2000,
            "data": {"temperature": 21},
        }
        alarm = client.of("alarm")[-1]
        emitted = alarm["hops"].pop("emitted")
        assert alarm == alarm_to_wire(critical)
        assert 0 <= emitted - alarm["hops"]["published"] < 5000
        (gone,) = client.of("alarm-cleared")
        assert (gone["alarmId"], gone["state"]) == (critical.alarm_id, "CLEARED_UNACKNOWLEDGED")


async def test_the_state_holds_what_was_before(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    live.publish_telemetry("press-1", 1000, {"temperature": 20.5})
    live.publish_telemetry("press-1", 1500, {"state": "läuft"})
    standing = alarm_event(severity=Severity.HIGH.value)
    live.publish_alarm(standing)
    distribution = start_distribution()
    async with screen(distribution.url, "press-1") as client:
        (state,) = client.of("initial-state")
        assert state["devices"] == [
            {
                "deviceId": "press-1",
                "seq": 2,
                "timestamp": 1500,
                "data": {"temperature": 20.5, "state": "läuft"},
            }
        ]
        assert state["alarms"] == [alarm_to_wire(standing)]
        assert len(state["epoch"]) == 32


async def test_a_client_never_gets_another_devices_data(live: LiveState, distribution: Distribution) -> None:
    for device_id in ("press-1", "press-2"):
        live.publish_telemetry(device_id, 1, {"n": 1})
    async with (
        screen(distribution.url, "press-1") as first,
        screen(distribution.url, "press-2", "press-1x") as second,
        screen(distribution.url) as everything,
    ):
        for number in range(5):
            for device_id in ("press-1", "press-2"):
                live.publish_telemetry(device_id, 2, {"n": number})
                live.publish_alarm(alarm_event(alarm_id=f"{device_id}-{number}", device_id=device_id))
        screens = (first, second, everything)
        for client, count in zip(screens, (5, 5, 10), strict=True):
            await client.until(
                lambda c=client, n=count: len(c.of("alarm")) >= n and len(c.of("telemetry")) >= n
            )
        for client, seen in zip(screens, ({"press-1"}, {"press-2"}, {"press-1", "press-2"}), strict=True):
            told = [*client.of("alarm"), *client.of("telemetry")]
            assert {message["deviceId"] for message in told} == seen
            for state in client.of("initial-state"):
                assert {device["deviceId"] for device in state["devices"]} <= seen


async def test_an_alarm_comes_once_though_on_two_channels(
    live: LiveState, distribution: Distribution
) -> None:
    async with screen(distribution.url) as client:
        live.publish_alarm(alarm_event(severity=Severity.HIGH.value))
        live.publish_alarm(alarm_event(revision=2, kind=AlarmKind.SEVERITY_CHANGED))
        for number in range(20):
            live.publish_alarm(alarm_event(alarm_id=f"a{number}"))
        live.publish_alarm(alarm_event(alarm_id="last", severity=Severity.LOW.value))
        await client.until(lambda: [a for a in client.of("alarm") if a["alarmId"] == "last"])
        assert [a["alarmId"] for a in client.of("alarm")[1:]] == [*(f"a{n}" for n in range(20)), "last"]
        assert [(a["revision"], a["severity"]) for a in client.of("alarm-updated")] == [(2, "CRITICAL")]
        dropped = "plantwire_distribution_dropped_total"
        await until(lambda: distribution.metric(dropped, reason="alarm-known") == 21)


async def test_no_message_is_missed_or_doubled_at_connect(
    live: LiveState, distribution: Distribution
) -> None:
    stop = asyncio.Event()

    async def publish() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            await asyncio.to_thread(live.publish_telemetry, "press-1", number, {"n": number})
            if number % 10 == 0:
                await asyncio.to_thread(live.publish_alarm, alarm_event(alarm_id=f"a{number}"))
        return number

    publishing = asyncio.create_task(publish())
    clients = [Screen() for _ in range(12)]
    access = [token(), token("press-1")]
    for number, client in enumerate(clients):
        await client.connect(distribution.url, access[number % 2])
    await asyncio.gather(*(c.until(lambda c=c: len(c.of("telemetry")) > 20) for c in clients))
    stop.set()
    last = await publishing
    for client in clients:
        await client.until(lambda c=client: c.of("telemetry")[-1]["seq"] == last)
        (state,) = client.of("initial-state")
        begin = next((d["seq"] for d in state["devices"] if d["deviceId"] == "press-1"), 0)
        assert [m["seq"] for m in client.of("telemetry")] == list(range(begin + 1, last + 1))
        alarms = [a["alarmId"] for a in (*state["alarms"], *client.of("alarm"))]
        assert sorted(alarms) == sorted(f"a{n}" for n in range(10, last + 1, 10))
        await client.client.disconnect()


@pytest.fixture
def bad_tokens() -> dict[str, str | None]:
    """What must be refused, by the reason that the client is told."""
    claims = {
        "sub": "a",
        "devices": ["*"],
        "aud": "plantwire",
        "iss": "plantwire",
        "exp": int(time.time()) + 60,
    }
    return {
        "expired": token(lifetime_s=-10),
        "alg": jwt.encode(claims, "", algorithm="none"),
        "Signature": jwt.encode(claims, "another-secret-" + "0" * 32, algorithm="HS256"),
        "udience": jwt.encode({**claims, "aud": "elsewhere"}, TOKEN_SECRET, algorithm="HS256"),
        "ssuer": jwt.encode({**claims, "iss": "elsewhere"}, TOKEN_SECRET, algorithm="HS256"),
        "no token": None,
        "not valid": "nonsense",
    }


async def test_a_token_that_is_not_valid_is_refused_with_its_reason(
    distribution: Distribution, bad_tokens: dict[str, str | None]
) -> None:
    for reason, access in bad_tokens.items():
        client = await refused(distribution.url, access)
        assert client.events == []
        (refusal,) = client.refusals
        assert reason in refusal["message"]
    assert distribution.metric("plantwire_distribution_refused_total", reason="token") == len(bad_tokens)
    assert TOKEN_SECRET not in distribution.log()


async def test_a_client_is_disconnected_when_its_token_expires(distribution: Distribution) -> None:
    async with screen(distribution.url, access=token(lifetime_s=2)) as client:
        assert client.client.connected
        await client.until(lambda: not client.client.connected)
        assert client.of("session-ended") == [{"reason": "token-expired"}]
    await until(lambda: distribution.metric("websocket_connections") == 0)
    await until(lambda: distribution.metric("websocket_sockets") == 0)


async def test_beyond_the_limit_a_client_is_told_that_the_server_is_full(
    live: LiveState, start_distribution: Callable[..., Distribution]
) -> None:
    distribution = start_distribution(clients_max="2")
    async with screen(distribution.url), screen(distribution.url):
        client = await refused(distribution.url, token())
        assert client.refusals == [{"message": "Server at capacity"}]
    async with screen(distribution.url):
        pass


async def test_only_allowed_origins_may_connect(distribution: Distribution) -> None:
    own = Screen()
    await own.connect(distribution.url, token(), headers={"Origin": distribution.url})
    await own.client.disconnect()
    for origin in ("http://evil.example", distribution.url + ".evil.example", "null"):
        await refused(distribution.url, token(), headers={"Origin": origin})


async def test_unknown_and_malformed_events_are_counted_and_disturb_nothing(
    live: LiveState, distribution: Distribution
) -> None:
    async with screen(distribution.url, "press-1") as client:
        assert await client.client.call("no-such", {"a": 1}, namespace=NAMESPACE) == {
            "error": "unknown event"
        }
        for request in (
            None,
            5,
            {},
            {"deviceId": "press-1", "from": "1", "to": 2},
            {"deviceId": [], "from": 1},
        ):
            answer = await client.client.call("request-missing", request, namespace=NAMESPACE)
            assert answer.keys() == {"error"}
        live.publish_telemetry("press-1", 1, {"n": 1})
        await client.until(lambda: client.of("telemetry"))
    events = "plantwire_distribution_client_events_total"
    assert distribution.metric(events, event="other", outcome="unknown") == 1
    assert distribution.metric(events, event="request-missing", outcome="malformed") == 5
    assert "Traceback" not in distribution.log()


async def test_missing_messages_come_from_the_history(live: LiveState, distribution: Distribution) -> None:
    for number in range(1, 6):
        live.publish_telemetry("press-1", number, {"n": number})
    live.publish_telemetry("press-2", 1, {"n": 1})
    async with screen(distribution.url, "press-1") as client:

        async def ask(device_id: str, first: int, last: int) -> dict[str, object]:
            request = {"deviceId": device_id, "from": first, "to": last}
            return await client.client.call("request-missing", request, namespace=NAMESPACE)  # type: ignore[no-any-return]

        assert await ask("press-1", 2, 4) == {"recovered": 3}
        assert client.of("catch-up") == [
            [{"seq": n, "deviceId": "press-1", "timestamp": n, "data": {"n": n}} for n in (2, 3, 4)]
        ]
        for refused in (("press-2", 1, 1), ("press-1", 0, 1), ("press-1", 2, 1), ("press-1", 1, 10_000)):
            assert (await ask(*refused)).keys() == {"error"}
        answers = [await ask("press-1", 1, 1) for _ in range(60)]
        assert "requests a minute" in str(answers[-1])


async def test_presence_is_written_and_taken_back(
    live: LiveState, distribution: Distribution, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with screen(distribution.url, access=token(subject="berta")):
            await until(lambda: client.scard("user:berta:sockets") == 1)
            (sid,) = client.smembers("user:berta:sockets")  # type: ignore[misc]
            await until(lambda: client.hget(f"socket:{sid}", "user") == "berta")
            assert 0 < client.ttl(f"socket:{sid}") <= 90  # type: ignore[operator]
        await until(lambda: not client.exists("user:berta:sockets", f"socket:{sid}"))
