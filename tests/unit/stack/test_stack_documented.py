"""Every setting and command of the stack is in docs/stack.md, and no setting there is made up."""

from __future__ import annotations

import re

import typer

from plantwire.stack.cli import app
from plantwire.stack.settings import PROJECT, StackSettings

DOCUMENT = (PROJECT / "docs" / "stack.md").read_text()


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    settings = {f"PLANTWIRE_{name.upper()}" for name in StackSettings.model_fields}
    assert set(re.findall(r"PLANTWIRE_[A-Z_]+", DOCUMENT)) == settings


def test_every_command_is_documented() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 10
    assert [name for name in commands if f"`plantwire {name}" not in DOCUMENT] == []


def test_every_setting_explains_itself() -> None:
    assert [name for name, setting in StackSettings.model_fields.items() if not setting.description] == []
