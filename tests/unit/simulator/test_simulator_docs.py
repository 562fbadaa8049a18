"""docs/rules.md and docs/simulator.md name every command, option, setting, key and metric there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from plantwire.platform.settings import SharedSettings
from plantwire.schemas import rule_files
from plantwire.schemas.severity import Severity
from plantwire.simulator.cli import app as simulate_app
from plantwire.simulator.lorawan.sensors import build_sensors
from plantwire.simulator.plant import build_plant
from plantwire.simulator.settings import SimulatorSettings
from plantwire.simulator.sparkplug.line import LINE_KINDS, NODE_METRICS
from plantwire.stack.rules_cli import app as rules_app

DOCS = Path(__file__).parents[3] / "docs"


def named(document: str, words: set[str]) -> set[str]:
    """Those of `words` that the document does not have in back-ticks, alone or followed by a value."""
    text = (DOCS / document).read_text("utf-8")
    return {word for word in words if f"`{word}`" not in text and f"`{word} " not in text}


def options_of(command: object) -> set[str]:
    return {
        option
        for parameter in command.params  # type: ignore[attr-defined]
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }


def test_every_option_of_simulate_is_documented() -> None:
    options = options_of(typer.main.get_command(simulate_app))
    assert "--seed" in options
    assert named("simulator.md", options) == set()


def test_every_setting_of_the_simulator_is_documented() -> None:
    own = SimulatorSettings.model_fields.keys() - SharedSettings.model_fields.keys()
    assert "mqtt_port" in own
    assert named("simulator.md", {f"PLANTWIRE_{name.upper()}" for name in own}) == set()


def test_every_metric_of_every_machine_is_documented() -> None:
    text = (DOCS / "simulator.md").read_text("utf-8")
    for machine in build_plant(8, seed=1):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {machine.kind.name} |"))
        assert [name for name in machine.metrics_at(0) if name not in line] == []


def test_every_metric_of_lines_and_sensors_is_documented() -> None:
    lines = (DOCS / "simulator.md").read_text("utf-8").splitlines()
    kinds = {kind.name: [spec.name for spec in kind.metrics] for kind in LINE_KINDS}
    kinds["node"] = [spec.name for spec in NODE_METRICS]
    for sensor in build_sensors(2, seed=1, period_s=1.0, speed=1.0):
        kinds[sensor.kind.name] = [*sensor.values_at(0.0, 0), sensor.kind.eui_prefix]
    for kind, names in kinds.items():
        (line,) = (line for line in lines if line.startswith(f"| {kind} |"))
        assert [name for name in names if name not in line] == []


def test_every_command_and_option_of_rules_is_documented() -> None:
    group = typer.main.get_command(rules_app)
    commands = group.commands  # type: ignore[attr-defined]
    assert set(commands) == {"apply", "validate", "diff", "list"}
    assert named("rules.md", {f"plantwire rules {name}" for name in commands}) == set()
    options = set().union(*(options_of(command) for command in commands.values()))
    assert "--prune" in options
    assert named("rules.md", options) == set()


@pytest.mark.parametrize(
    "words",
    [
        set(rule_files._RULE_KEYS),
        set(rule_files._LIMIT_KEYS),
        {f"{{{name}}}" for name in rule_files.PLACEHOLDERS},
        {severity.name.lower() for severity in Severity},
    ],
)
def test_every_key_of_a_rule_file_is_documented(words: set[str]) -> None:
    assert named("rules.md", words) == set()


def test_the_example_of_the_document_is_valid() -> None:
    text = (DOCS / "rules.md").read_text("utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    parsed = rule_files.parse_rules(example, "docs/rules.md")
    assert not isinstance(parsed, rule_files.Refused)
    assert len(parsed) == 1
