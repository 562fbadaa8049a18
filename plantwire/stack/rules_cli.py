"""`plantwire rules`: alarm rules from files into force, and a look at what is in force.

In: YAML files or folders; Kafka. Out: records on `alarms.rules`, and lines that say what changed.
Guarantees: all or nothing: with one mistake in one file nothing is published and the rules in force
stay; exit status 0 when it is done, 1 when the files are refused or Kafka is not there, 2 for a wrong
command line (`diff` also exits 1 when there is a difference).
Not here: the parts (`stack.rule_sources`, `stack.rule_plan`, `platform.rule_topic`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plantwire.platform.rule_topic import publish_rules, read_rules
from plantwire.platform.topic_reader import TopicError
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.rule_files import Refused
from plantwire.schemas.severity import Severity
from plantwire.stack.errors import StackError
from plantwire.stack.rule_plan import (
    ChangeKind,
    RuleChange,
    RulePlan,
    describe_change,
    describe_delays,
    describe_limits,
    describe_missing,
    plan_rules,
)
from plantwire.stack.rule_sources import load_rules
from plantwire.stack.settings import load_settings

app = typer.Typer(
    name="rules",
    help="Alarm rules: check files, put them into force, see what is in force.",
    no_args_is_help=True,
)

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Rule files, or folders with *.yaml files.")
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        help="Kafka bootstrap servers; default: PLANTWIRE_KAFKA, or the embedded Kafka.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for Kafka.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Retire the rules in force that are in none of the files.")
]

_SIGNS = {
    ChangeKind.ADDED: "+",
    ChangeKind.CHANGED: "~",
    ChangeKind.RETIRED: "-",
    ChangeKind.BROUGHT_BACK: "+",
}


def apply_rules(
    bootstrap: str, paths: Iterable[Path], *, prune: bool, timeout_s: float
) -> RulePlan | Refused:
    """Put the rules of `paths` into force; nothing is published when one of them is wrong.

    Raises `TopicError` where Kafka or the topic is not there.
    """
    wanted = load_rules(paths)
    if isinstance(wanted, Refused):
        return wanted
    plan = plan_rules(read_rules(bootstrap, timeout_s), wanted, prune=prune)
    publish_rules(bootstrap, (change.rule for change in plan.changes), timeout_s)
    return plan


@app.command()
def apply(paths: Paths, prune: Prune = False, kafka: Bootstrap = None, timeout_s: Timeout = 10.0) -> None:
    """Check the files and put their rules into force, without a restart.

    A changed rule gets the next version; an unchanged one is not touched. With one mistake in any
    file nothing is published, and the rules in force stay.
    """
    try:
        plan = apply_rules(_bootstrap(kafka), paths, prune=prune, timeout_s=timeout_s)
    except TopicError as error:
        _fail(str(error))
    if isinstance(plan, Refused):
        _refuse(plan, "nothing was published, the rules in force stay")
    _print_plan(plan)


@app.command()
def validate(paths: Paths) -> None:
    """Check the files only; Kafka is not needed."""
    rules = load_rules(paths)
    if isinstance(rules, Refused):
        _refuse(rules, "not valid")
    typer.echo(f"{_count(len(rules), 'rule')}, valid")


@app.command()
def diff(paths: Paths, prune: Prune = False, kafka: Bootstrap = None, timeout_s: Timeout = 10.0) -> None:
    """Show what `apply` would change, and publish nothing. Exit status 1 when there is a difference."""
    wanted = load_rules(paths)
    if isinstance(wanted, Refused):
        _refuse(wanted, "not valid")
    try:
        plan = plan_rules(read_rules(_bootstrap(kafka), timeout_s), wanted, prune=prune)
    except TopicError as error:
        _fail(str(error))
    _print_plan(plan)
    if plan.changes:
        raise typer.Exit(1)


@app.command("list")
def list_rules(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False,
    retired: Annotated[bool, typer.Option("--retired", help="Retired rules too.")] = False,
    kafka: Bootstrap = None,
    timeout_s: Timeout = 10.0,
) -> None:
    """Show the rules in force."""
    try:
        in_force = read_rules(_bootstrap(kafka), timeout_s)
    except TopicError as error:
        _fail(str(error))
    rules = sorted((r for r in in_force.values() if retired or not r.retired), key=lambda r: r.rule_id)
    if as_json:
        typer.echo(json.dumps([rule_to_json(rule) for rule in rules], indent=2, ensure_ascii=False))
    elif not rules:
        typer.echo("no rules are in force; `plantwire rules apply PATH` puts some")
    else:
        Console().print(_table(rules))


def rule_to_json(rule: AlarmRule) -> dict[str, Any]:
    """A rule as `list --json` shows it: the keys of a rule file, and version and retired."""
    if rule.missing:
        conditions: dict[str, Any] = {
            **({"metric": rule.metric} if rule.metric else {}),
            "missing": {
                Severity(missing.severity).name.lower(): {"after_s": missing.after_ms // 1000}
                for missing in rule.missing
            },
        }
    else:
        conditions = {
            "metric": rule.metric,
            "limits": {
                Severity(limit.severity).name.lower(): {
                    **({} if limit.above is None else {"above": limit.above}),
                    **({} if limit.below is None else {"below": limit.below}),
                    "deadband": limit.deadband,
                }
                for limit in rule.limits
            },
            "on_delay_ms": rule.on_delay_ms,
            "off_delay_ms": rule.off_delay_ms,
        }
    return {
        "id": rule.rule_id,
        "version": rule.version,
        "devices": rule.devices,
        **conditions,
        "message": rule.message,
        "retired": rule.retired,
    }


def _table(rules: list[AlarmRule]) -> Table:
    table = Table(title=None)
    table.add_column("rule", overflow="fold")
    table.add_column("version", justify="right")
    table.add_column("devices", overflow="fold")
    table.add_column("metric", overflow="fold")
    table.add_column("limits", overflow="fold")
    table.add_column("delays")
    for rule in rules:
        name = f"{rule.rule_id} (retired)" if rule.retired else rule.rule_id
        limits = "\n".join(
            [describe_limits([limit]) for limit in rule.limits]
            + [f"missing: {describe_missing([missing])}" for missing in rule.missing]
        )
        cells = (name, str(rule.version), rule.devices, rule.metric, limits, describe_delays(rule))
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _print_plan(plan: RulePlan) -> None:
    for change in plan.changes:
        typer.echo(_headline(change))
        for line in describe_change(change):
            typer.echo(f"    {line}")
    counts = [
        f"{number} {kind.value}"
        for kind in ChangeKind
        if (number := sum(change.kind is kind for change in plan.changes))
    ]
    typer.echo(", ".join([*counts, f"{len(plan.unchanged)} unchanged"]))
    if plan.not_in_files:
        names = ", ".join(plan.not_in_files)
        typer.echo(f"in force, but in none of the files (--prune retires them): {names}")


def _headline(change: RuleChange) -> str:
    rule = change.rule
    version = "" if change.before is None else f" (version {change.before.version} → {rule.version})"
    return f"{_SIGNS[change.kind]} {rule.rule_id}: {change.kind.value}{version}"


def _bootstrap(option: str | None) -> str:
    try:
        return option or load_settings().addresses().kafka
    except StackError as error:
        _fail(str(error))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _refuse(refused: Refused, consequence: str) -> NoReturn:
    for found in refused.problems:
        typer.echo(str(found), err=True)
    _fail(f"{_count(len(refused.problems), 'problem')}: {consequence}")


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
