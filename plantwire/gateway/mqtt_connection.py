"""One connection to an MQTT broker, driven by the event loop.

In: where the broker is; a callback for messages; what to publish. Out: messages to the callback,
acknowledgements back.
Guarantees: a QoS 1 message is acknowledged by `acknowledge` alone, so with a persistent session what was
not acknowledged comes again with the next connection of the same client id. While reading is paused the
broker's own queue holds what comes. What is published leaves in the order of the calls; at most
`PUBLISHING_MAX` messages wait to be sent or acknowledged, further ones are refused. An object serves one
connection: open, wait until `lost`, close; then make a new one.
Not here: reconnecting and what a message means (`mqtt_transport`, `sparkplug.host`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from plantwire.gateway.settings import GatewaySettings

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_CONNECT_TIMEOUT_S: Final = 10.0
_MISC_INTERVAL_S: Final = 1.0
PUBLISHING_MAX: Final = 1000


class MqttUnreachableError(Exception):
    """No connection, or no subscription; the text says why."""


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the broker is and who we are there."""

    host: str
    port: int
    tls: bool
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    username: str | None
    password: str | None
    client_id: str
    keepalive_s: int

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """From the settings; raises SystemExit where the URL is no MQTT URL."""
        url = urlsplit(settings.mqtt)
        if url.scheme not in _PORTS or not url.hostname:
            raise SystemExit("PLANTWIRE_MQTT takes mqtt://host[:port] or mqtts://host[:port].")
        password = settings.mqtt_password.get_secret_value() if settings.mqtt_password else None
        return cls(
            host=url.hostname,
            port=url.port or _PORTS[url.scheme],
            tls=url.scheme == "mqtts",
            tls_ca=str(settings.mqtt_tls_ca) if settings.mqtt_tls_ca else None,
            tls_cert=str(settings.mqtt_tls_cert) if settings.mqtt_tls_cert else None,
            tls_key=str(settings.mqtt_tls_key) if settings.mqtt_tls_key else None,
            username=settings.mqtt_username or (unquote(url.username) if url.username else None),
            password=password or (unquote(url.password) if url.password else None),
            client_id=settings.mqtt_client_id,
            keepalive_s=settings.gateway_mqtt_keepalive_s,
        )


def _tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Raises `MqttUnreachableError` with the setting whose file cannot be used."""
    setting, file = "PLANTWIRE_MQTT_TLS_CA", address.tls_ca
    try:
        context = ssl.create_default_context(cafile=file)
        if address.tls_cert is not None:
            setting, file = "PLANTWIRE_MQTT_TLS_CERT", address.tls_cert
            # An empty password, or OpenSSL would ask for one at the terminal.
            context.load_cert_chain(file, address.tls_key, password="")
    except (OSError, ValueError) as error:
        raise MqttUnreachableError(f"{setting} ({file}) cannot be used: {error}") from None
    return context


class Will(msgspec.Struct, frozen=True):
    """What the broker publishes for us when the connection ends without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class MqttConnection:
    """A connection, subscribed at QoS 1.

    The session is persistent unless `clean_session`: the broker then forgets it with the connection.
    """

    def __init__(
        self,
        address: BrokerAddress,
        on_message: Callable[[paho.MQTTMessage], None],
        *,
        clean_session: bool = False,
        will: Will | None = None,
    ) -> None:
        self._address = address
        self._on_message = on_message
        self._client = paho.Client(
            callback_api_version=CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=clean_session,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if will is not None:
            self._client.will_set(will.topic, will.payload, will.qos, will.retain)
        self._publishing: dict[int, asyncio.Future[bool]] = {}
        self._socket: socket.socket | None = None
        self._paused = False
        self._misc: asyncio.Task[None] | None = None

    async def open(self, topic_filters: Sequence[str]) -> None:
        """Connect and subscribe, all filters in one request; raises `MqttUnreachableError`."""
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        client = self._client
        client.on_connect = self._handle_connect
        client.on_subscribe = self._handle_subscribe
        client.on_disconnect = self._handle_disconnect
        client.on_publish = self._handle_published
        client.on_message = lambda _client, _data, message: self._on_message(message)
        try:
            # Name look-up, TCP and TLS block. Socket callbacks come after: they belong to the loop's thread.
            await self._loop.run_in_executor(None, self._connect)
            self._adopt_socket()
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._first_of(self._connected)
                client.subscribe([(topic_filter, 1) for topic_filter in topic_filters])
                await self._first_of(self._subscribed)
        except TimeoutError:
            await self.close()
            raise MqttUnreachableError("the broker does not answer") from None
        except (OSError, ValueError) as error:
            await self.close()
            raise MqttUnreachableError(str(error)) from None
        except MqttUnreachableError:
            await self.close()
            raise

    async def lost(self) -> str:
        """Waits until the connection is lost; why."""
        return await asyncio.shield(self._lost)

    def acknowledge(self, message: paho.MQTTMessage) -> None:
        """Tell the broker that a QoS 1 message is done; nothing happens on a lost connection."""
        if message.qos and not self._lost.done():
            self._client.ack(message.mid, message.qos)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> asyncio.Future[bool]:
        """Publish; the future says whether it was sent (QoS 0) or acknowledged (QoS 1).

        It was not where the connection is lost first, and where `PUBLISHING_MAX` messages wait already.
        """
        published: asyncio.Future[bool] = self._loop.create_future()
        if self._lost.done() or len(self._publishing) >= PUBLISHING_MAX:
            published.set_result(False)
            return published
        info = self._client.publish(topic, payload, qos, retain)
        # Nothing is written before the loop's next turn, so the callback cannot have come already.
        self._publishing[info.mid] = published
        return published

    def pause_reading(self) -> None:
        """Leave further messages in the socket, so that the broker slows down or queues."""
        if not self._paused and self._socket is not None:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused and self._socket is not None:
            self._paused = False
            self._loop.add_reader(self._socket, self._read)
            # TLS may have decrypted bytes in hand that make no socket readable.
            self._loop.call_soon(self._read)

    async def close(self) -> None:
        """Disconnect in order if connected; harmless on a lost connection."""
        if self._misc is not None:
            self._misc.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._misc
        if self._socket is not None:
            self._client.disconnect()
            # Acknowledgements and DISCONNECT are a few bytes: they fit the socket's buffer.
            while self._socket is not None and self._client.want_write():
                if self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        self._note_lost("closed")

    def _connect(self) -> None:
        address = self._address
        if address.tls:
            self._client.tls_set_context(_tls_context(address))
        if address.username is not None:
            self._client.username_pw_set(address.username, address.password)
        self._client.connect_timeout = _CONNECT_TIMEOUT_S
        self._client.connect(address.host, address.port, address.keepalive_s)

    def _adopt_socket(self) -> None:
        sock: Any = self._client.socket()
        if sock is None:
            raise MqttUnreachableError("the broker closed the connection")
        self._socket = sock
        # Acknowledgements are small: held back by Nagle's algorithm they would stall the broker by 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.on_socket_close = lambda _client, _data, _sock: self._release_socket()
        self._client.on_socket_register_write = lambda _client, _data, s: self._loop.add_writer(
            s, self._write
        )
        self._client.on_socket_unregister_write = lambda _client, _data, s: self._forget_writer(s)
        self._loop.add_reader(sock, self._read)
        if self._client.want_write():
            self._loop.add_writer(sock, self._write)
        self._misc = self._loop.create_task(self._keep_alive())

    def _forget_writer(self, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _release_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _read(self) -> None:
        while self._socket is not None and not self._paused:
            if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._note_lost("the connection broke")
                return
            if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                return

    def _write(self) -> None:
        if self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._note_lost("the connection broke")

    async def _keep_alive(self) -> None:
        """The library's time-driven part: it sends pings and notices a broker that no longer answers."""
        while self._client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - time itself drives it
            await asyncio.sleep(_MISC_INTERVAL_S)
        self._note_lost("the broker no longer answers")

    async def _first_of(self, step: asyncio.Future[None]) -> None:
        await asyncio.wait((step, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            raise MqttUnreachableError(self._lost.result())
        step.result()

    def _note_lost(self, why: str) -> None:
        self._release_socket()
        if not self._lost.done():
            self._lost.set_result(why)
        unsettled, self._publishing = self._publishing, {}
        for published in unsettled.values():
            if not published.done():
                published.set_result(False)

    def _handle_connect(
        self,
        _client: paho.Client,
        _data: Any,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(MqttUnreachableError(f"the broker refuses us: {reason}"))
        else:
            self._connected.set_result(None)

    def _handle_subscribe(
        self,
        _client: paho.Client,
        _data: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if self._subscribed.done():
            return
        if any(reason.is_failure for reason in reasons):
            self._subscribed.set_exception(MqttUnreachableError("the broker refuses the subscription"))
        else:
            self._subscribed.set_result(None)

    def _handle_disconnect(
        self,
        _client: paho.Client,
        _data: Any,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._connected.done():
            self._note_lost(str(reason))
            return
        # A broker that ends the connection before it answered CONNECT gives no reason.
        wanted = "a client's certificate" if self._address.tls else "TLS (mqtts://)"
        self._note_lost(f"the broker closed the connection without an answer; it may want {wanted}")

    def _handle_published(
        self, _client: paho.Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Properties
    ) -> None:
        published = self._publishing.pop(mid, None)
        if published is not None and not published.done():
            published.set_result(True)
