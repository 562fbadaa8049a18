"""`plantwire simulate`: the command that runs the simulated plant.

In: options, environment, the home's key. Out: a running plant, its progress on a terminal or in the log.
Guarantees: it goes on while the gateway or the broker is away; SIGTERM and Ctrl-C end it with status 0
and the counts; without a usable option or token it ends with status 2 or 1 and says why in one line.
Not here: the run itself (`simulator.run`).
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
import structlog
import typer

from plantwire.platform.logging import configure_logging
from plantwire.simulator import nab
from plantwire.simulator.credentials import CredentialError, Credentials, find_credentials
from plantwire.simulator.http_outlet import HttpOutlet
from plantwire.simulator.mqtt_outlet import BrokerAddress, MqttOutlet
from plantwire.simulator.outlet import Outlet, Tally
from plantwire.simulator.plant import build_plant
from plantwire.simulator.progress import Progress
from plantwire.simulator.run import ReplayedMachine, Sender, SimulatedMachine, run_senders
from plantwire.simulator.settings import SimulatorSettings

DEVICES_MAX: Final = 5_000
READY_WAIT_S: Final = 30.0
_READY_POLL_S: Final = 0.25

_log = structlog.get_logger(__name__)

app = typer.Typer(help="The simulated plant.", add_completion=False)


class Transport(StrEnum):
    """How the simulated devices send."""

    BOTH = "both"
    HTTP = "http"
    MQTT = "mqtt"


class Options(msgspec.Struct, frozen=True):
    """What a run is to do."""

    gateway_url: str
    broker: BrokerAddress
    transport: Transport
    devices: int
    rate_hz: float
    speed: float
    seed: int
    nab_samples_per_s: float
    duration_s: float


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
    transport: Annotated[
        Transport, typer.Option(help="Odd machines by HTTP and even ones by MQTT, or all one way.")
    ] = Transport.BOTH,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with an access token; default: PLANTWIRE_TOKEN, or tokens of its own."),
    ] = None,
    devices: Annotated[int, typer.Option(min=0, max=DEVICES_MAX, help="Simulated machines.")] = 40,
    rate: Annotated[
        float, typer.Option(min=0.01, max=100, help="Frames a second from each simulated machine.")
    ] = 1.0,
    speed: Annotated[
        float, typer.Option(min=0.01, max=1000, help="How much faster than the clock the machines live.")
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
    if devices == 0 and nab_speed == 0:
        raise typer.BadParameter("with --devices 0 and --nab-speed 0 there is nothing to simulate")
    options = Options(
        gateway_url=_http_url(gateway or settings.gateway_url()),
        broker=_broker(mqtt or settings.mqtt_url(), settings),
        transport=transport,
        devices=devices,
        rate_hz=rate,
        speed=speed,
        seed=seed,
        nab_samples_per_s=nab_speed,
        duration_s=duration,
    )
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
        mqtt = MqttOutlet(options.broker)
        senders = build_senders(options, http, mqtt)
        progress = stack.enter_context(Progress(tally, len(senders)))
        if any(sender.outlet is mqtt for sender in senders):
            connection = loop.create_task(mqtt.run())
            stack.push_async_callback(_cancel, connection)
        # The plant's faults follow its own clock: it starts when someone is there to see the first.
        await _wait_ready(http, stop)
        if options.duration_s:
            loop.call_later(options.duration_s, stop.set)
        _log.info("plant-started", devices=len(senders), gateway=options.gateway_url, seed=options.seed)
        reporting = loop.create_task(progress.run())
        stack.push_async_callback(_cancel, reporting)
        await run_senders(senders, tally, stop)
    _log.info("plant-stopped", **tally.as_dict())


def build_senders(options: Options, http: Outlet, mqtt: Outlet) -> list[Sender]:
    """The plant's machines and the replayed one, each with its outlet."""
    senders: list[Sender] = []
    for index, machine in enumerate(build_plant(options.devices, options.seed)):
        by_http = options.transport is Transport.HTTP or (
            # By rows of eight, so that every kind of machine is there both ways.
            options.transport is Transport.BOTH and (index + index // 8) % 2 == 0
        )
        device = SimulatedMachine(machine, 1.0 / options.rate_hz, options.speed)
        senders.append(Sender(device, http if by_http else mqtt))
    if options.nab_samples_per_s:
        replayed = ReplayedMachine(nab.Replay(nab.load_samples()), options.nab_samples_per_s)
        senders.append(Sender(replayed, mqtt if options.transport is Transport.MQTT else http))
    return senders


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
