"""The `plantwire` command: the stack up and down, its health, tokens, rules, the simulated plant.

In: arguments and the environment. Out: text for people on stderr, data (tokens, JSON) on stdout; exit code
0 when it did what was asked, 1 when not, 2 for a wrong command line.
Guarantees: what a person can put right is one line that says how; only bugs show a traceback.
Not here: the work (launcher.py, status.py, checks.py), rules (rules_cli.py), the ledger (ledger_cli.py), the
plant (simulator/).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from enum import StrEnum
from types import FrameType
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from plantwire.distribution.settings import DistributionSettings
from plantwire.gateway.settings import GatewaySettings
from plantwire.jobs.settings import JobSettings
from plantwire.light.settings import LightSettings
from plantwire.platform.tokens import EVERY_DEVICE, Role, TokenAuthority
from plantwire.schemas.identifiers import is_device_id
from plantwire.simulator.cli import simulate
from plantwire.stack import checks, database_cli, launcher, patterns_cli, presentation, rules_cli
from plantwire.stack.errors import StackError
from plantwire.stack.ledger_cli import ledger
from plantwire.stack.progress import Progress
from plantwire.stack.secret import token_secret
from plantwire.stack.settings import LIGHT, Addresses, StackSettings, load_settings
from plantwire.stack.snapshot import Snapshot
from plantwire.stack.status import examine, settings_of
from plantwire.storage.influx_settings import InfluxSettings
from plantwire.storage.settings import StorageSettings

DASHBOARD_TOKEN_LIFETIME_S = 12 * 3600
STATUS_POLL_INTERVAL_S = 0.5
DATA_FOLDERS = (
    "kafka",
    "redis",
    "postgres",
    "postgres.new",
    "mqtt",
    "gateway",
    "flink",
    "light",
    "logs",
    "run",
)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Engine(StrEnum):
    """What makes alarms and live values of frames."""

    FLINK = "flink"
    LIGHT = LIGHT


app = typer.Typer(
    help="Plantwire: telemetry and alarms of a plant, on Flink, Kafka, PostgreSQL and Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(rules_cli.app)
app.add_typer(patterns_cli.app)
app.add_typer(database_cli.app)
app.command()(simulate)
app.command()(ledger)

_console = Console(stderr=True)


@app.callback()
def _before(context: typer.Context) -> None:
    # Rules, the simulated plant and the like are those of the stack in this home, whatever ports it has.
    if context.invoked_subcommand in ("rules", "simulate", "ledger"):
        settings = load_settings()
        if (snapshot := launcher.running(settings)) is not None:
            for name, value in settings_of(snapshot, settings.home).variables().items():
                os.environ.setdefault(name, value)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    no_simulator: Annotated[
        bool, typer.Option("--no-simulator", help="Without the simulated plant: your own devices only.")
    ] = False,
    engine: Annotated[
        Engine | None,
        typer.Option("--engine", help="flink, or light: without a Flink cluster, for small sites."),
    ] = None,
) -> None:
    """Start everything and keep it running; Ctrl-C stops it.

    Servers that a setting names (PLANTWIRE_KAFKA, PLANTWIRE_REDIS, PLANTWIRE_DATABASE, PLANTWIRE_MQTT,
    PLANTWIRE_FLINK) are used instead of embedded ones. A second `up` changes nothing.
    """
    if engine is not None:
        os.environ["PLANTWIRE_ENGINE"] = engine.value  # for the supervisor too, which reads it there
    settings = load_settings()
    if (snapshot := launcher.running(settings)) is not None:
        _print_ready(settings, snapshot, f"Plantwire is already running ({snapshot.phase})")
        return
    checks.require_startable(settings)
    launch = launcher.Launch(settings, simulator=not no_simulator, detach=detach)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    began_s = time.monotonic()
    try:
        launch.start()
        with Progress(_console) as progress:
            snapshot = launch.wait_ready(progress.show)
        _print_ready(settings, snapshot, f"ready in {time.monotonic() - began_s:.0f} s")
        if detach:
            return
        _console.print("Ctrl-C stops everything.", style="dim")
        code = launch.follow(Progress(_console, live=False).show)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        launch.ask_end()
        with Progress(_console, keep=False) as progress:
            code = launch.follow(progress.show)
        _console.print("Plantwire is down.")
    if code != 0:
        raise StackError(
            f"The supervisor ended with exit code {code}. See {settings.home}/logs/supervisor.log"
        )


@app.command()
def down() -> None:
    """Stop everything: Flink jobs with a savepoint, from which the next `up` goes on."""
    settings = load_settings()
    with Progress(_console, keep=False) as progress:
        ended = launcher.end(settings, progress.show)
    _console.print("Plantwire is down." if ended else "Plantwire was not running.")


@app.command()
def status(
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, metavar="S", help="Wait up to S seconds until all is healthy.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
) -> None:
    """Ask every part whether it does its work; exit code 0 only when all do."""
    settings = load_settings()
    deadline = time.monotonic() + wait_s
    while not (found := examine(settings)).healthy and time.monotonic() < deadline:
        time.sleep(STATUS_POLL_INTERVAL_S)  # paces the probes
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    elif found.phase == "down":
        _console.print("Plantwire is down: `plantwire up` starts it.")
    else:
        _console.print(presentation.status_table(found))
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def doctor() -> None:
    """Look at what this machine has: Python, JDK, Maven, ports, disk, memory, open files."""
    settings = load_settings()
    snapshot = launcher.running(settings)
    own = frozenset(part.process.pid for part in snapshot.parts if part.process) if snapshot else frozenset()
    findings = checks.examine(settings, own)
    _console.print(presentation.findings_table(findings))
    raise typer.Exit(0 if all(finding.well or not finding.needed for finding in findings) else 1)


@app.command()
def token(
    user: Annotated[str, typer.Option("--user", help="Who the token is for (sub).")],
    devices: Annotated[str, typer.Option("--devices", help="Device ids, a,b,c, or '*' for all.")],
    role: Annotated[str, typer.Option("--role", help="viewer, device, operator or admin.")] = "operator",
    lifetime: Annotated[str, typer.Option("--lifetime", help="Such as 90s, 30m, 12h or 7d.")] = "12h",
) -> None:
    """Print an access token for the dashboard, the API or a device."""
    settings = load_settings()
    try:
        wanted = Role[role.upper()]
    except KeyError:
        raise typer.BadParameter(
            f"{role!r} is not viewer, device, operator or admin", param_hint="--role"
        ) from None
    ids = [device.strip() for device in devices.split(",") if device.strip()]
    if not ids or not user:
        raise typer.BadParameter("at least one device id, or '*'", param_hint="--devices")
    if strange := [device for device in ids if device != EVERY_DEVICE and not is_device_id(device)]:
        raise typer.BadParameter(
            f"{', '.join(strange)}: not a device id; a token names each device, or '*' for all of them",
            param_hint="--devices",
        )
    typer.echo(_issue(settings, user, wanted, ids, _seconds(lifetime), create=True))


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete all data and logs of this home; its secrets (key and password) stay."""
    settings = load_settings()
    if launcher.running(settings) is not None:
        raise StackError("Plantwire is running: `plantwire down` first")
    folders = [settings.home / name for name in DATA_FOLDERS if (settings.home / name).is_dir()]
    if not folders:
        _console.print(f"There is nothing in {settings.home}.")
        return
    if not yes and not typer.confirm(f"Delete all data and logs in {settings.home}?", err=True):
        raise typer.Exit(1)
    for folder in folders:
        shutil.rmtree(folder)
    _console.print(f"Deleted {', '.join(folder.name for folder in folders)} in {settings.home}.")


@app.command()
def logs(
    part: Annotated[str | None, typer.Argument(help="A part, as `plantwire status` names it.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
) -> None:
    """List the log files, or show the end of those of one part."""
    folder = load_settings().home / "logs"
    files = sorted(path for path in folder.rglob("*.log") if path.is_file())
    if part is None:
        for file in files:
            typer.echo(f"{file.stat().st_size:>12,}  {file}")
        return
    chosen = [str(file) for file in files if re.search(rf"(^|-){re.escape(part)}(-|\.log$)", file.name)]
    if not chosen:
        raise StackError(f"There is no log of {part} in {folder}; `plantwire logs` lists those there are")
    os.execvp("tail", ["tail", f"-n{lines}", *(["-F"] if follow else []), *chosen])  # noqa: S606 - no shell


@app.command()
def config() -> None:
    """Show every setting with its value, default and meaning."""
    settings = load_settings()
    groups = (
        ("Stack", settings),
        ("Gateway", GatewaySettings()),
        ("Distribution", DistributionSettings()),
        ("Storage", StorageSettings()),
        ("InfluxDB", InfluxSettings()),
        ("Jobs", JobSettings()),
        ("Light engine", LightSettings()),
    )
    presentation.print_settings(Console(), groups)


def _print_ready(settings: StackSettings, snapshot: Snapshot, headline: str) -> None:
    actual = settings_of(snapshot, settings.home)
    addresses: Addresses = actual.addresses()
    issued = _issue(
        settings, "dashboard", Role.OPERATOR, [EVERY_DEVICE], DASHBOARD_TOKEN_LIFETIME_S, create=False
    )
    presentation.print_ready(
        _console,
        addresses,
        issued,
        str(settings.home),
        headline=headline,
        has_flink=actual.engine != LIGHT,
    )


def _issue(
    settings: StackSettings, user: str, role: Role, devices: list[str], lifetime_s: int, *, create: bool
) -> str:
    authority = TokenAuthority(
        token_secret(settings, create=create), settings.token_issuer, settings.token_audience
    )
    return authority.issue(user, role, devices, int(time.time()), lifetime_s)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,8})([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not like 90s, 30m, 12h or 7d", param_hint="--lifetime")
    return int(match[1]) * SECONDS[match[2]]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The entry point of `plantwire`."""
    try:
        app()
    except StackError as error:
        sys.stderr.write(f"plantwire: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
