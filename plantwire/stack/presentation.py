"""Tables and lines that the command line prints.

Not here: what they say (status.py, checks.py, settings.py), when (cli.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import SecretStr
from pydantic_settings import BaseSettings
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from plantwire.stack.checks import Finding
from plantwire.stack.settings import Addresses, redact
from plantwire.stack.status import Status


def status_table(status: Status) -> RenderableType:
    """Every part with its health, pid and port."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("part", "health", "pid", "port", "restarts", ""):
        table.add_column(column, justify="right" if column in ("pid", "port", "restarts") else "left")
    for part in status.parts:
        table.add_row(
            part.name,
            Text("healthy", "green") if part.healthy else Text(part.state, "yellow"),
            str(part.pid or ""),
            str(part.port or ""),
            str(part.restarts or ""),
            Text(part.reason or "", "dim" if part.healthy else ""),
        )
    verdict = (
        Text("healthy", "bold green")
        if status.healthy
        else Text(f"{status.phase}, not healthy", "bold yellow")
    )
    return Group(table, Text("Plantwire is ").append(verdict))


def findings_table(findings: Iterable[Finding]) -> Table:
    """What `doctor` found, with what to do."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = Text("✓", "green") if finding.well else Text("✗", "red" if finding.needed else "yellow")
        advice = "" if finding.well else f"\n→ {finding.advice}"
        table.add_row(mark, finding.name, Text(finding.found + advice))
    return table


def print_settings(console: Console, groups: Iterable[tuple[str, BaseSettings]]) -> None:
    """Every setting: variable, value without passwords, default where it differs, and what it is for."""
    for title, settings in groups:
        console.print(f"[bold]{escape(title)}[/]")
        prefix = settings.model_config.get("env_prefix", "")
        for name, field in type(settings).model_fields.items():
            value = getattr(settings, name)
            shown = "(set, not shown)" if isinstance(value, SecretStr) else redact(str(value))
            default = field.get_default(call_default_factory=True, validated_data={})
            note = "" if value == default else f"  [dim]default {escape(redact(str(default)))}[/]"
            console.print(f"  [cyan]{prefix}{name.upper()}[/] = {escape(shown)}{note}", soft_wrap=True)
            console.print(f"      {escape(field.description or '')}", style="dim", soft_wrap=True)


def print_ready(
    console: Console, addresses: Addresses, token: str, home: str, *, headline: str, has_flink: bool
) -> None:
    """Where everything is, with a dashboard address that is signed in already."""
    console.print(f"[bold green]{escape(headline)}[/]")
    rows = {
        "Dashboard": f"{addresses.dashboard}/#token={token}",
        **({"Flink": addresses.redacted()["flink"]} if has_flink else {}),
        "Gateway": addresses.gateway,
        "Logs": f"{home}/logs",
        "Token": "plantwire token --user NAME --devices '*'   (the one above ends in 12 hours)",
    }
    for name, value in rows.items():
        # A long address stays one line, so that it can be clicked and copied.
        console.print(f"  {name:<10} {value}", markup=False, highlight=False, soft_wrap=True)
