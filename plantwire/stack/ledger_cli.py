"""`plantwire ledger`: what became of everything that the gateway received.

In: the running gateway's /ledger, or the files that it left. Out: a table, or JSON on stdout; exit code 0
when everything received is somewhere, 1 when not, or when there is no ledger to be had.
Guarantees: nothing is changed, neither in the gateway nor in its files.
Not here: the counting (gateway/buffer/ledger.py).
"""

from __future__ import annotations

import time
from typing import Annotated

import httpx
import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from plantwire.gateway.buffer.database import DamagedError
from plantwire.gateway.buffer.folder import FolderInUseError
from plantwire.gateway.buffer.ledger import SAVED_KEY, SourceCounts, counts_without_gateway
from plantwire.gateway.buffer.ledger_report import LedgerReport, ledger_report
from plantwire.gateway.buffer.read_only import read_only_saved, read_only_stats
from plantwire.gateway.settings import GatewaySettings
from plantwire.stack.errors import StackError

TIMEOUT_S = 2.0
REFRESH_S = 1.0
MODE_DOWN = "down"
EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - where others listen


def ledger(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
) -> None:
    """Show what became of every frame that the gateway received: delivered, buffered, or dropped and why."""
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise StackError(f"PLANTWIRE_{name} is not valid: {first['msg']}") from None
    if watch and as_json:
        raise typer.BadParameter("--watch shows a table", param_hint="--json")
    if watch:
        _watch(settings)
        return
    report = read_ledger(settings)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        Console().print(ledger_table(report))
    raise typer.Exit(0 if report.identity_holds else 1)


def read_ledger(settings: GatewaySettings) -> LedgerReport:
    """From the gateway that runs, else from its files; raises StackError."""
    host = "127.0.0.1" if settings.gateway_host in EVERYWHERE else settings.gateway_host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway_port}/ledger"
    try:
        response = httpx.get(url, timeout=TIMEOUT_S)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=LedgerReport)
    except httpx.TransportError:
        return _read_files(settings, url)
    except (httpx.HTTPStatusError, msgspec.MsgspecError) as error:
        raise StackError(f"What answers at {url} is no gateway with a ledger: {error}") from None


def ledger_table(report: LedgerReport) -> RenderableType:
    """The report for people."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("source")
    for column in ("received", "live", "drained", "buffered", "dropped", "in hand"):
        table.add_column(column, justify="right")
    for source, counts in report.sources.items():
        table.add_row(source, *_cells(counts))
    table.add_row("total", *_cells(report.total), style="bold")
    lines: list[RenderableType] = [table, Text()]
    lines += [
        Text(f"dropped, {reason}: {count:,}", "yellow")
        for reason, count in sorted(report.total.dropped.items())
    ]
    lines += [Text(line, "dim") for line in _state(report)]
    lines += [Text(f"damaged, set aside: {name}", "yellow") for name in report.buffer.set_aside]
    verdict = (
        Text("received = delivered + buffered + dropped + in hand", "green")
        if report.identity_holds
        else Text("The counts do not add up: this is a fault of the gateway.", "bold red")
    )
    return Group(*lines, verdict)


def _watch(settings: GatewaySettings) -> None:
    with Live(console=Console(), auto_refresh=False) as live:
        try:
            while True:
                live.update(ledger_table(read_ledger(settings)), refresh=True)
                time.sleep(REFRESH_S)  # paces the eye
        except KeyboardInterrupt:
            return


def _read_files(settings: GatewaySettings, url: str) -> LedgerReport:
    folder = settings.buffer_folder()
    try:
        stats = read_only_stats(folder)
        saved = read_only_saved(folder, SAVED_KEY).get(SAVED_KEY)
        counts = counts_without_gateway(saved, stats.by_source, stats.dropped)
    except FolderInUseError:
        raise StackError(
            f"No gateway answers at {url}, but one has the buffer in {folder}: "
            "set PLANTWIRE_GATEWAY_PORT to its port"
        ) from None
    except (DamagedError, OSError, msgspec.MsgspecError) as error:
        raise StackError(
            f"No gateway runs, and its buffer in {folder} cannot be read: {error}. "
            "The gateway's next start sets damaged files aside and goes on with what can be read"
        ) from None
    return ledger_report(counts, stats, MODE_DOWN, None, int(time.time() * 1000))


def _cells(counts: SourceCounts) -> list[str]:
    numbers = (
        counts.received,
        counts.delivered_live,
        counts.delivered_drained,
        counts.buffered,
        sum(counts.dropped.values()),
        counts.in_hand,
    )
    return [f"{number:,}" for number in numbers]


def _state(report: LedgerReport) -> list[str]:
    buffer = report.buffer
    if report.mode == MODE_DOWN:
        mode = "no gateway runs: these are the counts that it left"
    else:
        mode = f"{report.mode} since {report.mode_since}"
    held = f"edge buffer: {buffer.entries:,} entries, {buffer.bytes:,} bytes"
    if buffer.oldest_age_s is not None:
        held += f", the oldest {buffer.oldest_age_s:,.0f} s old"
    return [mode, held]
