"""Reading a buffer that no gateway runs on: right, and without leaving a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.database import DamagedError
from plantwire.gateway.buffer.entry import BufferStats, EntryKind
from plantwire.gateway.buffer.folder import FolderInUseError
from plantwire.gateway.buffer.read_only import read_only_saved, read_only_stats
from tests.unit.gateway.buffer.buffer_rig import Clock, Rig, database, entry


def traces(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in folder.iterdir()}


@pytest.mark.parametrize("killed", [True, False])
def test_stats_and_saved_values(tmp_path: Path, killed: bool) -> None:
    rig = Rig(tmp_path)
    rig.put(entry(1), entry(2, source="mqtt-json"), entry(3, kind=EntryKind.ALARM))
    rig.commit(Changes(saved={"ledger": b"counts", "edge-state/press-1": b"state"}))
    expected = rig.store.stats()
    if killed:
        rig.abandon()
    else:
        rig.close()
    before = traces(tmp_path)
    for one in tmp_path.iterdir():
        one.chmod(0o400)
    assert read_only_stats(tmp_path) == expected
    assert expected.oldest_put_ms == Clock().ms
    assert read_only_saved(tmp_path, "led") == {"ledger": b"counts"}
    assert traces(tmp_path) == before


def test_where_there_is_no_buffer(tmp_path: Path) -> None:
    assert read_only_stats(tmp_path / "none") == BufferStats(0, 0, None, {})
    assert read_only_stats(tmp_path) == BufferStats(0, 0, None, {})
    assert not list(tmp_path.iterdir())


def test_while_a_gateway_has_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with pytest.raises(FolderInUseError, match="in use"):
        read_only_stats(tmp_path)
    rig.close()
    assert read_only_stats(tmp_path).entries == 0


def test_a_damaged_one_is_said_to_be_so(tmp_path: Path) -> None:
    Rig(tmp_path).close()
    database(tmp_path).write_bytes(b"nothing of ours" * 1000)
    with pytest.raises(DamagedError, match="cannot be read"):
        read_only_stats(tmp_path)
