"""The gateway process: ``python -m plantwire.gateway``.

In: the environment (`settings`). Out: exit code 0 after SIGTERM or SIGINT, 1 where Kafka's producer
failed for good (a supervisor starts it anew).
Guarantees: a stop takes no more input, waits for what is in hand, and only then exits; everything that was
answered 202 or acknowledged over MQTT is in Kafka.
Not here: anything but composing the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Generator
from typing import Any, cast

import structlog
import uvicorn
import uvloop

from plantwire.gateway.forwarder import KafkaForwarder
from plantwire.gateway.http_app import Check, build_app
from plantwire.gateway.http_transport import TelemetryEndpoint
from plantwire.gateway.intake import DurableForwarder, Intake
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.mqtt_sources import build_sources
from plantwire.gateway.mqtt_transport import MqttTransport
from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.host import SparkplugHost
from plantwire.gateway.token_cache import TokenCache
from plantwire.platform.logging import configure_logging
from plantwire.platform.tokens import TokenAuthority

log = structlog.get_logger()

LISTEN_BACKLOG = 2048
FAILED_DRAIN_TIMEOUT_S = 1.0
# The thread that receives Kafka's acknowledgements waits this long for the GIL at most; Python's own 5 ms
# is longer than the acknowledgement itself takes.
GIL_SWITCH_INTERVAL_S = 0.0005


class _Server(uvicorn.Server):
    """Leaves signals to this module, which has more to stop than HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main() -> None:
    """Run the gateway until it is told to stop."""
    settings = GatewaySettings()
    configure_logging(settings.log_level, "gateway")
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    listener = _listen(settings)
    with contextlib.closing(listener):
        sys.exit(uvloop.run(_run(settings, listener)))


def _listen(settings: GatewaySettings) -> socket.socket:
    try:
        return socket.create_server(
            (settings.gateway_host, settings.gateway_port), backlog=LISTEN_BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise SystemExit(
            f"The gateway cannot listen on {settings.gateway_host}:{settings.gateway_port} "
            f"(PLANTWIRE_GATEWAY_HOST, PLANTWIRE_GATEWAY_PORT): {error.strerror}."
        ) from None


async def _run(settings: GatewaySettings, listener: socket.socket) -> int:
    metrics = GatewayMetrics()
    forwarder = KafkaForwarder(settings, metrics)
    intake = Intake(cast(DurableForwarder, forwarder), metrics.ledger)
    mqtt = MqttTransport(settings, forwarder, metrics, build_sources(settings))
    sparkplug = SparkplugHost(settings, intake, metrics) if settings.sparkplug_host_id else None
    authority = TokenAuthority(
        settings.require_token_secret(), settings.token_issuer, settings.token_audience
    )
    endpoint = TelemetryEndpoint(settings, TokenCache(authority), forwarder, metrics)
    checks: dict[str, Check] = {"kafka": forwarder.ready, "mqtt": mqtt.ready}
    if sparkplug is not None:
        checks["sparkplug"] = sparkplug.ready
    app = build_app(endpoint, metrics, checks)
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            limit_concurrency=settings.gateway_connections_max,
            timeout_graceful_shutdown=max(1, round(settings.gateway_drain_timeout_s)),
        )
    )
    forwarder.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    listening = [asyncio.create_task(mqtt.run())]
    if sparkplug is not None:
        listening.append(asyncio.create_task(sparkplug.run()))
    stopping = asyncio.create_task(stop.wait())
    # What was loaded so far lives as long as the process: the collector need not walk it again.
    gc.freeze()
    log.info("gateway_started", host=settings.gateway_host, port=settings.gateway_port)
    ends: list[asyncio.Future[Any]] = [serving, *listening, stopping, forwarder.failed]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if forwarder.failed.done():
        log.error("kafka_producer_failed", detail=forwarder.failed.result())
    return await _stop(settings, server, serving, mqtt, sparkplug, listening, stopping, forwarder)


async def _stop(
    settings: GatewaySettings,
    server: uvicorn.Server,
    serving: asyncio.Task[None],
    mqtt: MqttTransport,
    sparkplug: SparkplugHost | None,
    listening: list[asyncio.Task[None]],
    stopping: asyncio.Task[bool],
    forwarder: KafkaForwarder,
) -> int:
    in_order = stopping.done()
    # With a producer that failed for good there is nothing to wait for.
    drain_s = settings.gateway_drain_timeout_s if in_order else FAILED_DRAIN_TIMEOUT_S
    server.should_exit = True
    if sparkplug is not None:
        await sparkplug.close(drain_s)
    mqtt_left = await mqtt.close(drain_s)
    for task in (*listening, stopping):
        task.cancel()
    outcomes = await asyncio.gather(serving, *listening, return_exceptions=True)
    records_left = await forwarder.close(drain_s)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            log.error("part_failed", exc_info=outcome)
            in_order = False
    log.info("gateway_stopped", mqtt_messages_left=mqtt_left, records_left=records_left)
    return 0 if in_order else 1


if __name__ == "__main__":
    main()
