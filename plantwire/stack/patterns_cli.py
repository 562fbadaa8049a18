"""`plantwire patterns`: telemetry patterns checked, and shown as what they become.

In: YAML files or folders. Out: lines that say what is wrong, or what each pattern means and its SQL.
Guarantees: nothing is submitted; exit status 0 when all files are sound, 1 when not, 2 for a wrong command
line.
Not here: files (`platform.pattern_source`), the SQL (`domain.patterns`), the job (jobs/main.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from plantwire.domain.patterns import match_sql, patterns_of_sql, views_sql
from plantwire.platform.pattern_source import load_patterns
from plantwire.schemas.patterns import Pattern, RiseThenDrop, Spikes
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.severity import Severity

app = typer.Typer(
    name="patterns",
    help="Telemetry patterns: check files, see what they become.",
    no_args_is_help=True,
)

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Pattern files, or folders with *.yaml files.")
]


@app.command()
def validate(paths: Paths) -> None:
    """Check the files. Neither Kafka nor Flink is needed."""
    number = len(_load(paths))
    typer.echo("1 pattern, valid" if number == 1 else f"{number} patterns, valid")


@app.command()
def show(
    paths: Paths,
    sql: Annotated[bool, typer.Option("--sql", help="The Flink SQL too, as the job runs it.")] = False,
) -> None:
    """Show what each pattern watches for, and with `--sql` what Flink is told."""
    patterns = _load(paths)
    for pattern in patterns:
        typer.echo(describe(pattern))
    if sql:
        typer.echo(f"\n-- which patterns a sample is for\n{patterns_of_sql(patterns, 'device_id', 'metric')}")
        for name, text in views_sql().items():
            typer.echo(f"\n-- {name}{text}")
        for number, pattern in enumerate(patterns):
            typer.echo(f"\n-- {pattern.pattern_id}\n{match_sql(pattern, number)}")


def describe(pattern: Pattern) -> str:
    """A pattern in one line."""
    shape = pattern.shape
    if isinstance(shape, RiseThenDrop):
        drop = f"{shape.drop_by:g}" if shape.drop_percent is None else f"{shape.drop_percent:g} %"
        seen = f"{shape.rises} rises in a row, then {drop} lower within {shape.within_s} s of the top"
    elif isinstance(shape, Spikes):
        if shape.above is not None:
            spike = f"above {shape.above:g}"
        elif shape.below is not None:
            spike = f"below {shape.below:g}"
        else:
            spike = f"of a change by more than {shape.change:g}"
        seen = f"{shape.count} spikes {spike} within {shape.within_s} s"
    else:
        seen = f"the same number for {shape.for_s} s, in {shape.samples} samples or more"
    return (
        f"{pattern.pattern_id} (version {pattern.version}, {Severity(pattern.severity).name.lower()}): "
        f"{pattern.devices} {pattern.metric}: {seen}"
    )


def _load(paths: list[Path]) -> list[Pattern]:
    patterns = load_patterns(paths)
    if isinstance(patterns, Refused):
        _refuse(patterns)
    return patterns


def _refuse(refused: Refused) -> NoReturn:
    for found in refused.problems:
        typer.echo(str(found), err=True)
    number = len(refused.problems)
    typer.echo(f"{number} problem{'' if number == 1 else 's'}: not valid", err=True)
    raise typer.Exit(1)
