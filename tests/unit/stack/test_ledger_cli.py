"""`plantwire ledger` without a gateway, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.edge_buffer import SqliteEdgeBuffer
from plantwire.gateway.buffer.entry import BufferStats, DropReason, Entry, EntryKind
from plantwire.gateway.buffer.ledger import SAVED_KEY, Ledger
from plantwire.gateway.buffer.ledger_report import ledger_report
from plantwire.stack.cli import app
from plantwire.stack.errors import StackError
from plantwire.stack.ledger_cli import ledger_table
from plantwire.stack.ports import free_ports


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a gateway that does not run."""
    (nobody,) = free_ports(1)
    monkeypatch.setenv("PLANTWIRE_HOME", str(tmp_path))
    monkeypatch.setenv("PLANTWIRE_GATEWAY_PORT", str(nobody))
    return tmp_path / "gateway"


def counted() -> Ledger:
    ledger = Ledger()
    account = ledger.account("http")
    account.receive(5)
    account.deliver()
    account.deliver()
    account.store()
    account.drop(DropReason.RETURNED)
    account.drop(DropReason.NO_ROOM)
    return ledger


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def fill(folder: Path) -> SqliteEdgeBuffer:
    buffer = SqliteEdgeBuffer(folder, BufferBounds(), lambda *_: None)
    await buffer.start()
    await buffer.put([Entry(EntryKind.TELEMETRY, "http", "press-1", 1, b"body")])
    await buffer.save(SAVED_KEY, counted().save())
    return buffer


async def test_a_gateway_that_is_down_is_read_from_its_files(folder: Path) -> None:
    await (await fill(folder)).close(5)
    before = contents(folder)
    result = CliRunner().invoke(app, ["ledger", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["mode"], report["identity_holds"]) == ("down", True)
    http = report["sources"]["http"]
    assert (http["received"], http["delivered_live"], http["buffered"]) == (5, 2, 1)
    assert http["dropped"] == {"returned": 1, "no-room": 1}
    assert report["buffer"]["entries"] == 1
    assert contents(folder) == before


async def test_a_gateway_on_another_port_is_pointed_out(folder: Path) -> None:
    buffer = await fill(folder)
    try:
        result = CliRunner().invoke(app, ["ledger"])
    finally:
        await buffer.close(5)
    assert isinstance(result.exception, StackError)
    assert "PLANTWIRE_GATEWAY_PORT" in str(result.exception)


def test_without_any_buffer_there_is_an_empty_ledger(folder: Path) -> None:
    result = CliRunner().invoke(app, ["ledger", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sources"] == {}
    assert not folder.exists()


def test_the_table_names_every_place_reason_and_file() -> None:
    stats = BufferStats(1, 4096, 1_000, {"http": 1}, ("buffer-1.damaged",))
    report = ledger_report(counted().counts(), stats, "buffering", "2026-01-01T00:00:00Z", 61_000)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(ledger_table(report))
    text = capture.get()
    row = next(line for line in text.splitlines() if line.startswith("http"))
    assert row.split() == ["http", "5", "2", "0", "1", "2", "0"]
    for expected in ("returned: 1", "no-room: 1", "buffering since", "60 s old", "buffer-1.damaged"):
        assert expected in text
