"""`python -m bench.outage`: Kafka away for minutes under load, the gateway killed twice meanwhile.

In: command line. Out: bench/results/outage.json and tables; exit code 0 when it ran, whether or not its
targets hold.
Guarantees: what was acknowledged is counted by the senders, what arrived by a consumer; the gateway's ledger
is held against both. Kafka is killed, not asked; so is the gateway.
Not here: what a figure means (README.md).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its own re-export
from rich.console import Console
from rich.table import Table

from bench import report
from bench.bench_process import BenchProcess, bench_process
from bench.http_process import GATEWAY_MODULE, HttpProcess
from bench.outage_arrivals import Account, Phase, Reader, account, live_ms
from bench.outage_sender import OutageOrder
from bench.spread import Distribution
from bench.stack_control import BenchError
from plantwire.gateway.buffer.ledger_report import LedgerReport
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.schemas import topics
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.mqtt import Mqtt
from plantwire.stack.servers.process import ServerProcess

READY_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.25
FINISH_TIMEOUT_S: Final = 60.0
BEFORE: Final = "before"
DRAINING: Final = "draining"
AFTER: Final = "after"
# Live frames share two cores with the drain: as long as that costs less than this, they do not wait for it.
DRAINING_P99_ADDED_MS: Final = 50.0


class Gateway(HttpProcess):
    """The gateway, with a home of its own that it keeps over kills."""

    def __init__(self, kafka: str, mqtt: str, folder: Path, secret: str, drain_frames_per_s: int) -> None:
        super().__init__("gateway", GATEWAY_MODULE, folder / "gateway.log")
        self.settings = {
            "PLANTWIRE_KAFKA": kafka,
            "PLANTWIRE_MQTT": mqtt,
            "PLANTWIRE_GATEWAY_PORT": str(self.port),
            "PLANTWIRE_TOKEN_SECRET": secret,
            "PLANTWIRE_MQTT_CLIENT_ID": "bench-outage-gateway",
            "PLANTWIRE_GATEWAY_DRAIN_FRAMES_PER_S": str(drain_frames_per_s),
            "PLANTWIRE_HOME": str(folder / "home"),
        }

    def ledger(self) -> LedgerReport:
        """Its ledger now."""
        return msgspec.json.decode(httpx.get(self.url + "/ledger", timeout=5).content, type=LedgerReport)

    async def kill(self) -> None:
        """kill -9, and start again."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        self.clear_away()
        self.start()
        await asyncio.to_thread(self.wait_ready, READY_TIMEOUT_S)


class Outcome(msgspec.Struct, frozen=True):
    """What one run showed."""

    counted: Account
    ledger: LedgerReport
    buffered_max: int
    drain_s: float
    drained_per_s: float
    live_ms: dict[str, Distribution | None]


class Run:
    """One run; `say` tells people how it goes."""

    def __init__(self, console: Console, arguments: argparse.Namespace, folder: Path) -> None:
        self._console = console
        self._arguments = arguments
        ports = free_ports(3)
        self._kafka = Kafka(folder / "kafka", ports[0], ports[1], folder / "kafka.log")
        self._mqtt = Mqtt(folder / "mqtt", ports[2], folder / "mqtt.log")
        secret = secrets.token_hex(32)
        self._gateway = Gateway(self._kafka.bootstrap, self._mqtt.url, folder, secret, arguments.drain_rate)
        authority = TokenAuthority(secret, "plantwire", "plantwire")
        self._order = OutageOrder(
            name=f"outage{secrets.token_hex(3)}",
            gateway=self._gateway.url,
            mqtt=self._mqtt.url,
            token=authority.issue("bench", Role.DEVICE, ["*"], int(time.time()), 6 * 3600),
            devices=arguments.devices,
            frames_per_s=arguments.rate,
        )

    async def run(self) -> Outcome:
        """Start everything, and end it whatever happens."""
        servers: tuple[ServerProcess, ...] = (self._kafka, self._mqtt)
        try:
            for server in servers:
                server.prepare()
                server.start()
            for server in servers:
                server.wait_ready(READY_TIMEOUT_S)
            _create_topics(self._kafka.bootstrap)
            self._gateway.start()
            self._gateway.wait_ready(READY_TIMEOUT_S)
            reader = Reader(self._kafka.bootstrap)
            reader.start()
            async with bench_process("bench.outage_sender", self._order) as sender:
                await sender.hear("started", READY_TIMEOUT_S)
                return await self._measure(sender, reader)
        finally:
            self._gateway.stop()
            for server in servers:
                server.stop()

    async def _measure(self, sender: BenchProcess, reader: Reader) -> Outcome:
        arguments = self._arguments
        phases: list[Phase] = []
        await asyncio.sleep(arguments.warm_up_s)
        began_ms = time.time() * 1000
        await asyncio.sleep(arguments.calm_s)
        phases.append(Phase(BEFORE, began_ms, time.time() * 1000))
        self.say(f"Kafka is killed, for {arguments.outage_s:g} s")
        assert self._kafka.pid is not None
        os.kill(self._kafka.pid, signal.SIGKILL)
        self._kafka.clear_away()
        for kill in (1, 2):
            await asyncio.sleep(arguments.outage_s / 3)
            buffered = self._gateway.ledger().buffer.entries
            self.say(f"the gateway is killed, time {kill}; {buffered:,} frames are buffered")
            await self._gateway.kill()
        await asyncio.sleep(arguments.outage_s / 3)
        buffered = self._gateway.ledger().buffer.entries
        self.say(f"Kafka is started again; {buffered:,} frames are buffered")
        self._kafka.start()
        await asyncio.to_thread(self._kafka.wait_ready, READY_TIMEOUT_S)
        drain_s, drained = await self._drained(phases)
        self.say(f"drained in {drain_s:.0f} s")
        began_ms = time.time() * 1000
        await asyncio.sleep(arguments.calm_s)
        phases.append(Phase(AFTER, began_ms, time.time() * 1000))
        sender.say(b"stop")
        finished = await sender.hear("finished", FINISH_TIMEOUT_S)
        ledger = await self._settled(reader)
        arrivals = reader.close()
        return Outcome(
            counted=account(arrivals, finished["acknowledged"]),
            ledger=ledger,
            buffered_max=buffered,
            drain_s=round(drain_s, 1),
            drained_per_s=round(drained / drain_s, 1),
            live_ms={phase.name: live_ms(arrivals, phase) for phase in phases},
        )

    async def _drained(self, phases: list[Phase]) -> tuple[float, int]:
        """How long the drain took, from the return of the direct mode on, and how many frames it sent."""
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        began_s, before = 0.0, 0
        while time.monotonic() < deadline_s:
            ledger = self._gateway.ledger()
            if ledger.mode == "direct" and not began_s:
                began_s, before = time.time(), ledger.total.delivered_drained
            if began_s and not ledger.total.buffered:
                ended_s = time.time()
                phases.append(Phase(DRAINING, began_s * 1000, ended_s * 1000))
                return max(ended_s - began_s, POLL_S), ledger.total.delivered_drained - before
            await asyncio.sleep(POLL_S)  # paces the question
        raise BenchError(f"The buffer was not empty after {DRAIN_TIMEOUT_S:.0f} s")

    async def _settled(self, reader: Reader) -> LedgerReport:
        """The ledger once nothing is in hand and the consumer has read as much as was delivered."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            ledger = self._gateway.ledger()
            total = ledger.total
            if not total.in_hand + total.buffered and reader.count >= total.received - sum(
                total.dropped.values()
            ):
                return ledger
            await asyncio.sleep(POLL_S)  # paces the question
        raise BenchError(f"Of {total.received:,} received frames the topic shows {reader.count:,}")

    def say(self, text: str) -> None:
        """One line for people."""
        self._console.print(text)


def targets_of(outcome: Outcome) -> tuple[report.Target, ...]:
    """The promises."""
    counted, total = outcome.counted, outcome.ledger.total
    before, draining = outcome.live_ms.get(BEFORE), outcome.live_ms.get(DRAINING)
    targets = [
        report.at_most("acknowledged frames that are not in the topic", counted.missing, 0),
        report.at_most("frames out of order, per device, live and historical apart", counted.out_of_order, 0),
        report.at_most("frames that the ledger counts as dropped", sum(total.dropped.values()), 0),
        report.at_least("the ledger's identity holds (1)", int(outcome.ledger.identity_holds), 1),
        # The ledger counts arrivals, the topic has each at least once.
        report.at_most("received by the ledger / records in the topic", total.received / counted.records, 1),
        report.at_most("distinct frames / received by the ledger", counted.distinct / total.received, 1),
    ]
    if before and draining:
        added_ms = round(draining.p99 - before.p99, 3)
        targets.append(
            report.at_most("added to live frames while draining, p99", added_ms, DRAINING_P99_ADDED_MS, "ms")
        )
    return tuple(targets)


def print_figures(console: Console, outcome: Outcome) -> None:
    """The counts and the latencies."""
    columns = ("live frames", "count", "p50", "p95", "p99", "max")
    table = Table(*columns, title="Due → consumer, ms", title_justify="left")
    for name, spread in outcome.live_ms.items():
        if spread is not None:
            table.add_row(
                name,
                f"{spread.count:,}",
                *(f"{value:.1f}" for value in (spread.p50, spread.p95, spread.p99, spread.max)),
            )
    console.print(table)
    counted, total = outcome.counted, outcome.ledger.total
    console.print(
        f"acknowledged {counted.acknowledged:,}; in the topic {counted.distinct:,} "
        f"in {counted.records:,} records, missing {counted.missing}"
    )
    console.print(
        f"ledger: received {total.received:,}, delivered live {total.delivered_live:,}, "
        f"drained {total.delivered_drained:,}"
    )


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.outage", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=500.0, help="frames/s, half HTTP, half MQTT")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--outage-s", type=float, default=300.0)
    parser.add_argument("--drain-rate", type=int, default=2000, help="frames/s, the gateway's default")
    parser.add_argument("--warm-up-s", type=float, default=10.0)
    parser.add_argument("--calm-s", type=float, default=60.0, help="measured before and after")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for outage.json")
    return parser.parse_args(words)


def main() -> None:
    """Measure, report."""
    arguments = parse_arguments()
    console = Console(width=140 if not sys.stdout.isatty() else None)
    folder = Path(tempfile.mkdtemp(prefix="plantwire-bench-"))
    try:
        outcome = asyncio.run(Run(console, arguments, folder).run())
    except BenchError as error:
        console.print(f"[red]{error}[/red]\nLogs are kept in {folder}")
        raise SystemExit(1) from None
    shutil.rmtree(folder)
    targets = targets_of(outcome)
    print_figures(console, outcome)
    report.print_targets(console, targets)
    written = report.write_report(
        report.make_report(
            "outage",
            parameters={name: value for name, value in vars(arguments).items() if name != "results"},
            figures=msgspec.to_builtins(outcome),
            ratios={},
            targets=targets,
        ),
        arguments.results,
    )
    console.print(f"Written to {written}")


def _create_topics(bootstrap: str) -> None:
    wanted = [NewTopic(t.name, t.partitions, 1) for t in topics.TOPICS]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(wanted).values():
        future.result(READY_TIMEOUT_S)


if __name__ == "__main__":
    main()
