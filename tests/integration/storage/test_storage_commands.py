"""`plantwire database` on real databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plantwire.schemas.records import Metric
from plantwire.stack.cli import app
from plantwire.stack.errors import StackError
from plantwire.storage.settings import StorageSettings
from plantwire.storage.tables import TelemetryTables
from tests.integration.storage.storage_rig import connect, read_tiers, write_all
from tests.telemetry_truth import frame, record, samples_of, tiers


@pytest.fixture
def database(telemetry_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database that the commands find."""
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))
    monkeypatch.setenv("PLANTWIRE_DATABASE", telemetry_database)
    for name in ("RAW", "1S", "1M", "1H"):
        monkeypatch.setenv(f"PLANTWIRE_STORAGE_KEEP_{name}_DAYS", "0")
    return telemetry_database


def test_migrate_then_status_then_refresh(database: str) -> None:
    runner = CliRunner()
    empty = runner.invoke(app, ["database", "status"])
    assert empty.exit_code == 1
    assert empty.stdout.startswith("version 0 of ")
    first = runner.invoke(app, ["database", "migrate"])
    assert first.exit_code == 0, first.output
    assert "+ 0001 telemetry" in first.stdout
    second = runner.invoke(app, ["database", "migrate"])
    assert second.stdout.endswith(", unchanged\n")
    status = runner.invoke(app, ["database", "status", "--json"])
    assert status.exit_code == 0
    found = json.loads(status.stdout)
    assert found["version"] == found["latest"]
    assert (found["variant"] == "timescaledb") == (found["extension"] is not None)
    password = database.partition("://")[2].partition(":")[2].partition("@")[0]
    assert password not in first.output + second.output + status.output

    frames = [frame("press-1", 1_700_000_000_000 + n * 500, Metric("a", n / 3)) for n in range(300)]
    settings = StorageSettings(database=database)
    tables = TelemetryTables(settings)
    write_all(tables, [record(one) for one in frames], 100)
    tables.close()
    refreshed = runner.invoke(app, ["database", "refresh"])
    assert refreshed.exit_code == 0, refreshed.output
    with connect(settings) as connection:
        assert read_tiers(connection) == tiers(samples_of(frames))


def test_a_database_that_is_not_there_is_one_line_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))
    monkeypatch.setenv("PLANTWIRE_DATABASE", "postgresql://someone:hidden@127.0.0.1:1/plant")
    with pytest.raises(StackError) as raised:
        CliRunner().invoke(app, ["database", "status"], catch_exceptions=False)
    assert str(raised.value).startswith("postgresql://127.0.0.1:1/plant: ")
    assert "hidden" not in str(raised.value)
    assert "\n" not in str(raised.value)
