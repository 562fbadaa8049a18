"""What the gateway process consists of, started and stopped in order.

In: settings, a listening socket. Out: parts that run; how the stop went.
Guarantees: input comes last at the start and goes first at the stop; what is in hand at the stop has
`gateway_drain_timeout_s` to reach Kafka, and goes to the edge buffer then. A part that fails at the stop
keeps no other from stopping in order.
Not here: signals and the exit code (`__main__`), how a part works.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.buffered_forwarder import BufferedForwarder
from plantwire.gateway.buffer.drain import Drain
from plantwire.gateway.buffer.durability import Mode
from plantwire.gateway.buffer.edge_buffer import SqliteEdgeBuffer
from plantwire.gateway.buffer.entry import BufferRefusedError
from plantwire.gateway.edge_alarms.detection import EdgeAlarms
from plantwire.gateway.edge_alarms.local_socket import MESSAGE_MAX_BYTES, LocalSocket
from plantwire.gateway.edge_alarms.rule_follower import RuleFollower
from plantwire.gateway.http_app import Check, build_app
from plantwire.gateway.http_connections import BoundedHttpProtocol, ConnectionBounds
from plantwire.gateway.http_transport import TelemetryEndpoint
from plantwire.gateway.intake import Intake
from plantwire.gateway.live_producer import LiveProducer
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_sources import build_sources
from plantwire.gateway.mqtt_transport import MqttTransport
from plantwire.gateway.report_by_exception import Thinner, read_reporting
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.host import SparkplugHost
from plantwire.gateway.stop_steps import StopSteps
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.tokens import TokenAuthority

log = structlog.get_logger()

RULES_FILE = "alarm-rules.json"
FAILED_DRAIN_TIMEOUT_S = 1.0
STOP_STEP_GRACE_S = 5.0


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has more to stop than HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Parts:
    """Every part of the process. `start` it inside the running loop; `stop` it."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics = metrics = GatewayMetrics()
        self._buffer = SqliteEdgeBuffer(
            settings.buffer_folder(),
            BufferBounds(
                size_max_bytes=settings.gateway_buffer_max_bytes,
                age_max_s=settings.gateway_buffer_max_age_h * 3600,
                waiting_max_bytes=settings.gateway_buffer_waiting_max_bytes,
            ),
            metrics.ledger.handle_drop,
        )
        self._forwarder = BufferedForwarder(
            settings, metrics, metrics.ledger, LiveProducer(settings), self._buffer
        )
        self._drain = Drain(settings, metrics.buffer, metrics.ledger, self._buffer, self._forwarder)
        authority = TokenAuthority(
            settings.require_token_secret(), settings.token_issuer, settings.token_audience
        )
        self._rules: RuleFollower | None = None
        self._edge: EdgeAlarms | None = None
        self._local: LocalSocket | None = None
        if settings.gateway_edge_alarms or settings.gateway_reporting_file:
            rules_file = settings.buffer_folder() / RULES_FILE
            self._rules = RuleFollower(settings.kafka, rules_file, metrics.edge_alarms)
        if settings.gateway_edge_alarms and self._rules is not None:
            self._add_edge_alarms(authority, self._rules)
        intake = Intake(self._forwarder, metrics.ledger, self._edge, self._thinner())
        self._mqtt = MqttTransport(settings, intake, metrics, build_sources(settings))
        self._sparkplug = SparkplugHost(settings, intake, metrics) if settings.sparkplug_host_id else None
        checks: dict[str, Check] = {"kafka": self._forwarder.ready, "mqtt": self._mqtt.ready}
        if self._sparkplug is not None:
            checks["sparkplug"] = self._sparkplug.ready
        endpoint = TelemetryEndpoint(settings, TokenCache(authority), intake, metrics)
        app = build_app(
            endpoint,
            metrics,
            checks,
            notes={"kafka": self._forwarder.note},
            ledger=self._forwarder.report,
            local=self._local,
        )
        bounds = ConnectionBounds(
            settings.gateway_header_timeout_s,
            settings.gateway_connections_per_address_max,
            metrics.connections,
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=cast(type[asyncio.Protocol], partial(BoundedHttpProtocol, bounds)),
                ws="none" if self._local is None else "websockets-sansio",
                ws_max_size=MESSAGE_MAX_BYTES,
                # Ready frames are written as they are; Engine.IO has pings of its own.
                ws_per_message_deflate=False,
                ws_ping_interval=None,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                limit_concurrency=settings.gateway_connections_max,
                timeout_graceful_shutdown=max(1, round(settings.gateway_drain_timeout_s)),
            )
        )

    async def start(self) -> None:
        """Open the buffer and start everything; raises what `SqliteEdgeBuffer.start` raises.

        But for a disk that fails: Kafka is left, and a plant is better off with less safety than no data.
        """
        buffer_fault: str | None = None
        try:
            await self._buffer.start()
        except BufferRefusedError as refused:
            buffer_fault = str(refused)
            log.error("without_edge_buffer", detail=buffer_fault)
        if self._rules is not None:
            self._rules.start()
        if self._edge is not None:
            self._edge.start(asyncio.get_running_loop(), self._forwarder.put_alarms)
        self._forwarder.start(buffer_fault)
        self._working: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._drain.run()),
            asyncio.create_task(self._mqtt.run()),
        ]
        if self._sparkplug is not None:
            self._working.append(asyncio.create_task(self._sparkplug.run()))
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def ended(self) -> None:
        """Returns when a part ended by itself, which none should."""
        await asyncio.wait((self._serving, *self._working), return_when=asyncio.FIRST_COMPLETED)

    async def stop(self, in_order: bool) -> bool:
        """Take no more, finish what is in hand, end; whether it went in order. Where a part failed
        (`in_order` False) there is less to wait for.
        """
        timeout_s = self._settings.gateway_drain_timeout_s if in_order else FAILED_DRAIN_TIMEOUT_S
        # Parts keep to `timeout_s` themselves, for Kafka and for the disk; this ends one that hangs.
        steps = StopSteps(2 * timeout_s + STOP_STEP_GRACE_S)
        self._server.should_exit = True
        await steps.take("drain", self._drain.close(timeout_s), False)
        if self._sparkplug is not None:
            await steps.take("sparkplug", self._sparkplug.close(timeout_s), None)
        mqtt_left = await steps.take("mqtt", self._mqtt.close(timeout_s), None)
        for task in self._working:
            task.cancel()
        if self._local is not None:
            await steps.take("local_clients", self._local.close(), None)
        running = asyncio.gather(self._serving, *self._working, return_exceptions=True)
        outcomes = await steps.take("http", running, [])
        records_left = await steps.take("forwarder", self._forwarder.close(timeout_s), None)
        if self._edge is not None:
            await steps.take("edge_alarms", self._edge.close(), None)
        if self._rules is not None:
            await steps.take("rules", self._rules.close(), None)
        if not await steps.take("buffer", self._buffer.close(timeout_s), False):
            log.error("buffer_not_closed")
            in_order = False
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("part_failed", exc_info=outcome)
                in_order = False
        log.info("gateway_stopped", mqtt_messages_left=mqtt_left, records_left=records_left)
        return in_order and steps.in_order

    def _thinner(self) -> Thinner | None:
        settings = self._settings
        if settings.gateway_reporting_file is None or self._rules is None:
            return None
        thinner = Thinner(
            read_reporting(settings.gateway_reporting_file),
            self._rules,
            self._metrics.thinning,
            settings.gateway_reporting_metrics_max,
            lambda: self._forwarder.mode is Mode.DIRECT,
        )
        self._forwarder.watch(thinner)
        return thinner

    def _add_edge_alarms(self, authority: TokenAuthority, rules: RuleFollower) -> None:
        settings, metrics = self._settings, self._metrics.edge_alarms

        def active() -> Any:
            return edge.active

        def rules_in_force() -> int | None:
            return None if rules.book is None else len(rules.book)

        local = LocalSocket(settings, settings.gateway_port, authority, metrics, active, rules_in_force)
        edge = EdgeAlarms(
            settings.gateway_edge_devices_max,
            settings.gateway_spill_after_ms / 1000,
            rules,
            self._buffer,
            metrics,
            local.tell,
        )
        self._forwarder.watch(edge)
        self._edge, self._local = edge, local
