"""What the MQTT transport does: acknowledge what is durable, forward repetitions once, keep the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from paho.mqtt.client import MQTTMessage
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from plantwire.gateway import mqtt_transport
from plantwire.gateway.forwarder import DeadLetter, Obstacle, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_source import Decoded, Outcome, Remark, Unneeded
from plantwire.gateway.mqtt_transport import MqttTransport, SourceRouter
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.settings import GatewaySettings
from plantwire.schemas.records import Metric, TelemetryFrame


def frame(sequence: int) -> TelemetryFrame:
    metrics = (Metric("t", 1.0),)
    return TelemetryFrame("d", "", sequence, 1, 1, "test", False, metrics, gateway_in_us=1)


class Source:
    """Payload `7` is frame 7 without a key, `7 k` one with the key k, `now` frame 9 without a time of its
    own; the rest says what it becomes."""

    protocol = "test"
    filters = ("test/+",)

    def decode(self, topic: str, payload: bytes, received_us: int) -> Outcome:
        words = payload.decode().split()
        if words == ["unneeded"]:
            return Unneeded.NOTHING_TO_FORWARD
        if words == ["rejected"]:
            return Rejected(Reason.BAD_SHAPE, "not good")
        if words == ["now"]:
            return Decoded((replace(frame(9), event_time_ms=received_us // 1000),))
        key = words[1] if len(words) > 1 else None
        return Decoded((frame(int(words[0])),), key, (Remark.NO_CODEC,) if len(words) > 2 else ())


class Connection:
    """A broker's side that the test plays."""

    current: Connection

    def __init__(self, address: object, on_message: object) -> None:
        self.on_message = on_message
        self.acknowledged: list[int] = []
        self.paused = False
        Connection.current = self

    async def open(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.opened.set()

    opened: asyncio.Event

    async def lost(self) -> str:
        return await asyncio.shield(self._lost)

    def lose(self) -> None:
        self._lost.set_result("the test")

    def acknowledge(self, message: MQTTMessage) -> None:
        self.acknowledged.append(message.mid)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    async def close(self) -> None: ...

    def deliver(
        self, mid: int, payload: str, topic: str = "test/x", qos: int = 1, retain: bool = False
    ) -> None:
        message = MQTTMessage(mid, topic.encode())
        message.payload = payload.encode()
        message.qos = qos
        message.retain = retain
        self.on_message(message)  # type: ignore[operator]


class Forwarder:
    """Keeps what it is handed until the test settles it."""

    def __init__(self) -> None:
        self.full = False
        self.futures: dict[int, asyncio.Future[None]] = {}
        self.puts: list[int] = []
        self.letters: list[DeadLetter] = []

    def put(self, frames: Sequence[TelemetryFrame]) -> asyncio.Future[None]:
        if self.full:
            raise UnavailableError(Obstacle.IN_FLIGHT_FULL, "full")
        sequence = frames[0].sequence
        assert sequence is not None
        self.puts.append(sequence)
        self.futures[sequence] = asyncio.get_running_loop().create_future()
        return self.futures[sequence]

    def put_dead_letter(self, letter: DeadLetter) -> asyncio.Future[None]:
        self.letters.append(letter)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def ready(self) -> str | None:
        return None

    async def settle(self, sequence: int, error: bool = False) -> None:
        if error:
            self.futures[sequence].set_exception(UnavailableError(Obstacle.NOT_ACKNOWLEDGED, "no"))
        else:
            self.futures[sequence].set_result(None)
        await asyncio.sleep(0)

    async def until(self, puts: int) -> None:
        async with asyncio.timeout(5):
            while len(self.puts) < puts:  # noqa: ASYNC110 - the loop's timers bring the next one
                await asyncio.sleep(0.005)


class Rig:
    def __init__(self, **settings: object) -> None:
        self.forwarder = Forwarder()
        self.metrics = GatewayMetrics()
        self.transport = MqttTransport(
            GatewaySettings(**settings),
            self.forwarder,
            self.metrics,
            [Source()],  # type: ignore[arg-type]
        )

    def counted(self, name: str, **labels: str) -> float:
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(f"plantwire_gateway_{name}_total", labels) or 0.0


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, **settings: object) -> AsyncIterator[Rig]:
    monkeypatch.setattr(mqtt_transport, "MqttConnection", Connection)
    monkeypatch.setattr(mqtt_transport, "_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(mqtt_transport, "_RECONNECT_FIRST_S", 0.001)
    Connection.opened = asyncio.Event()
    rig = Rig(**settings)
    task = asyncio.create_task(rig.transport.run())
    await Connection.opened.wait()
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_message_is_acknowledged_when_its_frames_are_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        assert Connection.current.filters == ("test/+",)
        Connection.current.deliver(1, "7")
        await asyncio.sleep(0)
        assert Connection.current.acknowledged == []
        await rig.forwarder.settle(7)
        assert Connection.current.acknowledged == [1]
        assert rig.counted("frames_accepted", transport="test") == 1


async def test_what_carries_nothing_is_acknowledged_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "unneeded")
        Connection.current.deliver(2, "7", topic="other/x")
        assert Connection.current.acknowledged == [1, 2]
        assert rig.counted("mqtt_unneeded", protocol="test", reason="nothing-to-forward") == 1
        assert rig.counted("mqtt_unneeded", protocol="mqtt", reason="not-subscribed") == 1


async def test_a_retained_message_counts_where_it_says_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "now", retain=True)
        Connection.current.deliver(2, "7", retain=True)
        Connection.current.deliver(3, "now")
        assert rig.forwarder.puts == [7, 9]
        assert Connection.current.acknowledged == [1]
        assert rig.counted("mqtt_unneeded", protocol="test", reason="retained-undated") == 1


async def test_refused_messages_become_dead_letters_of_their_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, gateway_body_limit_bytes=20) as rig:
        Connection.current.deliver(1, "rejected")
        Connection.current.deliver(2, "7" * 21)
        await asyncio.sleep(0)
        assert Connection.current.acknowledged == [1, 2]
        first, second = rig.forwarder.letters
        assert (first.source, first.protocol, first.payload) == ("mqtt:test/x", "test", b"rejected")
        assert second.rejected.reason == Reason.BODY_TOO_LARGE
        assert rig.counted("rejected", transport="test", reason="bad-shape") == 1
        assert rig.counted("dead_letters", reason="body-too-large") == 1


async def test_a_device_that_repeats_its_fault_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, gateway_body_limit_bytes=20):
        with capture_logs() as entries:
            for mid in range(5):
                Connection.current.deliver(mid, "rejected")
            Connection.current.deliver(9, "7" * 21)
            await asyncio.sleep(0)
        logged = [(e["reason"], e["detail"]) for e in entries if e["event"] == "mqtt_message_rejected"]
        assert logged == [
            ("bad-shape", "not good"),
            ("body-too-large", "21 bytes in one message; at most 20."),
        ]


async def test_a_topic_that_is_no_text_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        message = MQTTMessage(1, b"test/\xff")
        message.payload = b"7"
        Connection.current.on_message(message)  # type: ignore[operator]
        assert rig.forwarder.letters[0].rejected.reason == Reason.INVALID_DEVICE_ID


async def test_remarks_are_counted_once_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "7 k remark")
        assert rig.counted("mqtt_remarks", protocol="test", remark="no-codec") == 0
        await rig.forwarder.settle(7)
        assert rig.counted("mqtt_remarks", protocol="test", remark="no-codec") == 1


async def test_a_repeated_key_is_not_forwarded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "7 k")
        await rig.forwarder.settle(7)
        Connection.current.deliver(2, "8 k")
        Connection.current.deliver(3, "9 other")
        assert rig.forwarder.puts == [7, 9]
        assert Connection.current.acknowledged == [1, 2]
        assert rig.counted("mqtt_unneeded", protocol="test", reason="duplicate") == 1


async def test_a_repetition_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "7 k")
        Connection.current.deliver(2, "8 k")
        assert rig.forwarder.puts == [7]
        await rig.forwarder.settle(7)
        assert rig.forwarder.puts == [7]
        assert Connection.current.acknowledged == [1, 2]


async def test_a_repetition_is_forwarded_where_the_first_was_lost_with_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as rig:
        lost = Connection.current
        lost.deliver(1, "7 k")
        Connection.opened.clear()
        lost.lose()
        await Connection.opened.wait()
        Connection.current.deliver(2, "8 k")  # while the first attempt is under way
        await rig.forwarder.settle(7, error=True)
        await rig.forwarder.until(2)
        await rig.forwarder.settle(8)
        assert (lost.acknowledged, Connection.current.acknowledged) == ([], [2])


async def test_messages_that_wait_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "1")
        rig.forwarder.full = True
        Connection.current.deliver(2, "2")
        rig.forwarder.full = False
        Connection.current.deliver(3, "3")  # there would be room, but 2 waits
        assert rig.forwarder.puts == [1]
        await rig.forwarder.settle(1, error=True)
        await rig.forwarder.until(4)
        assert rig.forwarder.puts == [1, 1, 2, 3]
        assert rig.counted("unavailable", transport="test", reason="in-flight-full") == 1
        assert rig.counted("unavailable", transport="test", reason="not-acknowledged") == 1


async def test_reading_pauses_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"gateway_mqtt_in_flight_max": 2}
    async with running(monkeypatch, **settings) as rig:
        Connection.current.deliver(1, "1")
        assert not Connection.current.paused
        Connection.current.deliver(2, "2")
        assert Connection.current.paused
        await rig.forwarder.settle(1)
        assert not Connection.current.paused


async def test_a_stop_waits_for_what_is_in_hand_and_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "1")
        stopping = asyncio.create_task(rig.transport.close(5))
        await asyncio.sleep(0)
        Connection.current.deliver(2, "2")
        assert not stopping.done()
        await rig.forwarder.settle(1)
        assert await stopping == 0
        assert (rig.forwarder.puts, Connection.current.acknowledged) == ([1], [1])
        assert await rig.transport.ready() == "the gateway is stopping"


async def test_a_stop_survives_the_loss_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_transport, "jittered_backoff_s", lambda *_: 60.0)
    async with running(monkeypatch) as rig:
        Connection.current.deliver(1, "1")
        stopping = asyncio.create_task(rig.transport.close(5))
        await asyncio.sleep(0)
        Connection.current.lose()
        async with asyncio.timeout(5):
            while "lost" not in str(await rig.transport.ready()):  # noqa: ASYNC110 - it tells nobody of itself
                await asyncio.sleep(0.001)
        await rig.forwarder.settle(1)
        assert await stopping == 0
        assert Connection.current.acknowledged == []


async def test_a_stop_says_what_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as rig:
        rig.forwarder.full = True
        Connection.current.deliver(1, "1")
        assert await rig.transport.close(0.02) == 1
        assert Connection.current.acknowledged == []


def test_the_source_with_the_longest_beginning_has_the_topic() -> None:
    class Other(Source):
        filters = ("test/deep/+/x", "test/deep/#")

    general, deep = Source(), Other()
    router = SourceRouter([general, deep])
    assert router.filters == ("test/+", "test/deep/+/x", "test/deep/#")
    assert router.source_of("test/a") is general
    assert router.source_of("test/deep/a/x") is deep
    assert router.source_of("toast/a") is None
