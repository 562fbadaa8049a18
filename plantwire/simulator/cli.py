"""`plantwire simulate`: the command that runs the simulated plant.

In: options, environment, the home's key. Out: a running plant, its progress on a terminal or in the log.
Guarantees: it goes on while the gateway or the broker is away; SIGTERM and Ctrl-C end it with status 0
and the counts; without a usable option or token it ends with status 2 or 1 and says why in one line.
Not here: which devices a plant has (`simulator.fleet`), the run itself (`simulator.run`).
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import structlog
import typer

from plantwire.platform.logging import configure_logging
from plantwire.simulator.broker import BrokerAddress
from plantwire.simulator.credentials import CredentialError, Credentials, find_credentials
from plantwire.simulator.fleet import Options, Protocol, build_fleet
from plantwire.simulator.http_outlet import HttpOutlet
from plantwire.simulator.outlet import Tally
from plantwire.simulator.progress import Progress
from plantwire.simulator.run import run_senders
from plantwire.simulator.settings import SimulatorSettings
from plantwire.simulator.sparkplug.session import is_sparkplug_id

DEVICES_MAX: Final = 5_000
EDGE_NODES_MAX: Final = 500
NODE_DEVICES_MAX: Final = 100
READY_WAIT_S: Final = 30.0
_READY_POLL_S: Final = 0.25

_log = structlog.get_logger(__name__)

app = typer.Typer(help="The simulated plant.", add_completion=False)


@app.command()
def simulate(
    gateway: Annotated[
        str | None,
        typer.Option(
            help="Gateway URL; default: this machine, port PLANTWIRE_GATEWAY_PORT.", show_default=False
        ),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(help="MQTT broker URL; default: PLANTWIRE_MQTT, or this machine.", show_default=False),
    ] = None,
    protocol: Annotated[
        list[Protocol] | None,
        typer.Option(
            help="What the plant speaks; give it again for more. Default: all. With http and mqtt "
            "(plain JSON) each has half of the machines.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with an access token; default: PLANTWIRE_TOKEN, or tokens of its own."),
    ] = None,
    devices: Annotated[
        int, typer.Option(min=0, max=DEVICES_MAX, help="Machines that send by HTTP or plain MQTT.")
    ] = 40,
    edge_nodes: Annotated[int, typer.Option(min=0, max=EDGE_NODES_MAX, help="Sparkplug edge nodes.")] = 1,
    node_devices: Annotated[
        int, typer.Option(min=0, max=NODE_DEVICES_MAX, help="Machines on each Sparkplug edge node.")
    ] = 4,
    sparkplug_host: Annotated[
        str | None,
        typer.Option(
            help="Sparkplug host that edge nodes wait for before their births; '': none. "
            "Default: PLANTWIRE_SPARKPLUG_HOST_ID, or plantwire.",
            show_default=False,
        ),
    ] = None,
    sensors: Annotated[
        int, typer.Option(min=0, max=DEVICES_MAX, help="LoRaWAN sensors behind a ChirpStack server.")
    ] = 4,
    sensor_interval: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds from one uplink of a sensor to the next.")
    ] = 10.0,
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Frames a second from each machine.")] = 1.0,
    speed: Annotated[
        float, typer.Option(min=0.01, max=1000, help="How much faster than the clock the plant lives.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another plant.")] = 1,
    nab_speed: Annotated[
        float, typer.Option(min=0, max=1000, help="Samples a second of the replayed machine; 0: none.")
    ] = 4.0,
    duration: Annotated[
        float, typer.Option(min=0, help="End after so many seconds; 0: run until it is stopped.")
    ] = 0.0,
) -> None:
    """Run a simulated plant that sends telemetry as real devices do, until Ctrl-C."""
    settings = SimulatorSettings()
    host = settings.sparkplug_host_id if sparkplug_host is None else sparkplug_host
    if host and not is_sparkplug_id(host):
        raise typer.BadParameter("--sparkplug-host is a name without + / #")
    options = Options(
        gateway_url=_http_url(gateway or settings.gateway_url()),
        broker=_broker(mqtt or settings.mqtt_url(), settings),
        protocols=frozenset(protocol or Protocol),
        devices=devices,
        edge_nodes=edge_nodes,
        node_devices=node_devices,
        sparkplug_host=host or None,
        sensors=sensors,
        sensor_interval_s=sensor_interval,
        rate_hz=rate,
        speed=speed,
        seed=seed,
        nab_samples_per_s=nab_speed,
        duration_s=duration,
    )
    if options.is_empty():
        raise typer.BadParameter("with these counts and protocols there is nothing to simulate")
    try:
        credentials = find_credentials(settings, token_file)
    except CredentialError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    configure_logging(settings.log_level, "simulator")
    asyncio.run(_simulate(options, credentials))


async def _simulate(options: Options, credentials: Credentials) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    tally = Tally()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpOutlet(options.gateway_url, credentials))
        fleet = build_fleet(options, http)
        progress = stack.enter_context(Progress(tally, len(fleet.senders)))
        for connection in fleet.connections:
            stack.push_async_callback(_cancel, loop.create_task(connection.run()))
        if any(sender.outlet is http for sender in fleet.senders):
            # The plant's faults follow its own clock: it starts when someone is there to see the first.
            await _wait_ready(http, stop)
        if options.duration_s:
            loop.call_later(options.duration_s, stop.set)
        _log.info("plant-started", devices=len(fleet.senders), gateway=options.gateway_url, seed=options.seed)
        reporting = loop.create_task(progress.run())
        stack.push_async_callback(_cancel, reporting)
        await run_senders(fleet.senders, tally, stop)
    _log.info("plant-stopped", **tally.as_dict())


async def _wait_ready(http: HttpOutlet, stop: asyncio.Event) -> None:
    """Wait for the gateway, for a while: after that its absence is counted like any other."""
    give_up_s = time.monotonic() + READY_WAIT_S
    while not stop.is_set() and not await http.is_ready():
        if time.monotonic() > give_up_s:
            _log.warning("gateway-not-ready", waited_s=READY_WAIT_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_POLL_S):
                await stop.wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter("--gateway takes http://host[:port] or https://host[:port]")
    return url.rstrip("/")


def _broker(url: str, settings: SimulatorSettings) -> BrokerAddress:
    try:
        return BrokerAddress(url, settings)
    except ValueError as error:
        raise typer.BadParameter(f"--mqtt or PLANTWIRE_MQTT: {error}") from None
