"""The edge buffer's database: its settings, its versions, its bounds."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from plantwire.gateway.buffer import database as database_module
from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.database import LaterFormatError, UnsafeSqliteError, refuse_unsafe_sqlite
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, EntryKind
from tests.unit.gateway.buffer.buffer_rig import SMALL, Clock, Rig, database, entry


def connection_of(rig: Rig) -> apsw.Connection:
    store = rig.store._store
    assert store is not None
    return store._connection


def test_pragmas_hold_on_every_connection(tmp_path: Path) -> None:
    for _ in range(2):
        rig = Rig(tmp_path)
        connection = connection_of(rig)
        expected = {
            "journal_mode": "wal",
            "synchronous": 2,
            "locking_mode": "exclusive",
            "wal_autocheckpoint": 0,
            "temp_store": 2,
            "trusted_schema": 0,
            "cell_size_check": 1,
            "mmap_size": 0,
            "page_size": 4096,
            "application_id": 0x506C5742,
            "user_version": 1,
            "max_page_count": SMALL.file_pages_max,
            "journal_size_limit": SMALL.checkpoint_bytes,
        }
        assert {name: connection.pragma(name) for name in expected} == expected
        assert not list(tmp_path.glob("*-shm"))
        rig.close()


def test_a_pragma_that_does_not_take_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database_module.PRAGMAS, "synchronous", ("NORMAL", 2))
    with pytest.raises(database_module.DamagedError, match="synchronous is 1 where 2 was set"):
        Rig(tmp_path)


@pytest.mark.parametrize("version", ["3.7.0", "3.35.5", "3.50.4", "3.51.2"])
def test_an_sqlite_with_known_defects_is_refused(version: str) -> None:
    with pytest.raises(UnsafeSqliteError, match=f"SQLite {version} can corrupt"):
        refuse_unsafe_sqlite(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.53.0", "3.54.1", "4.0.0"])
def test_later_ones_are_taken(version: str) -> None:
    refuse_unsafe_sqlite(version)


def set_version(folder: Path, header: int, table: int) -> bytes:
    connection = apsw.Connection(str(database(folder)))
    connection.execute(f"PRAGMA user_version = {header}")
    connection.execute("UPDATE format SET version = ?", (table,))
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.close()
    return database(folder).read_bytes()


def test_a_later_format_is_refused_and_not_touched(tmp_path: Path) -> None:
    Rig(tmp_path).close()
    before = set_version(tmp_path, 2, 2)
    with pytest.raises(LaterFormatError, match="format 2, this code knows 1"):
        Rig(tmp_path)
    # But for the mode of its journal, which the connection sets before it can ask.
    assert database(tmp_path).read_bytes()[100:] == before[100:]
    assert len(list(tmp_path.glob("*.damaged*"))) == 0


def test_a_version_that_is_damaged_is_no_later_format(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.put(entry(1))
    rig.close()
    set_version(tmp_path, 2, 1)
    rig = Rig(tmp_path)
    assert rig.store.stats().set_aside
    assert [stored.entry for stored in rig.peek()] == [entry(1)]
    assert not rig.drops
    rig.close()


def test_an_older_format_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.put(entry(1))
    rig.close()
    set_version(tmp_path, 0, 0)
    monkeypatch.setitem(database_module.MIGRATIONS, 0, ("CREATE TABLE passing (x)", "DROP TABLE passing"))
    rig = Rig(tmp_path)
    assert connection_of(rig).pragma("user_version") == 1
    assert [stored.entry for stored in rig.peek()] == [entry(1)]
    rig.close()
    Rig(tmp_path).close()


def on_disk_bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.iterdir())


@pytest.mark.parametrize("size_bytes", [30, 700, 2100, 5000, 30_000])
def test_full_evicts_the_oldest_and_keeps_within_its_bound(tmp_path: Path, size_bytes: int) -> None:
    rig = Rig(tmp_path)
    ids: list[int] = []
    largest = 0
    while rig.dropped(DropReason.EVICTED_FULL) < 200:
        batch = max(1, 20_000 // size_bytes)
        ids += rig.put(*(entry(len(ids) + k, size_bytes=size_bytes) for k in range(min(batch, 100))))
        largest = max(largest, on_disk_bytes(tmp_path))
        rig.tidy()
    evicted = rig.dropped(DropReason.EVICTED_FULL)
    assert largest <= SMALL.size_max_bytes
    assert rig.store.stats().entries == len(ids) - evicted
    assert [stored.entry_id for stored in rig.peek()] == ids[evicted:]
    # Most of the bound is for entries.
    assert rig.store.stats().size_bytes > SMALL.size_max_bytes // 6
    rig.close()


def test_alarms_are_never_evicted_and_make_room_for_themselves(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    alarms: list[int] = []
    rig.put(*(entry(number, size_bytes=1000) for number in range(60)))
    number = 1000
    refused: object = None
    while not isinstance(refused, BufferRefusedError):
        one = entry(number := number + 1, kind=EntryKind.ALARM, size_bytes=1000)
        (refused,) = rig.commit(Changes([[one]]))
        alarms += refused if isinstance(refused, list) else []
        rig.tidy()
    assert "may not be evicted" in str(refused)
    # All but what shares the last page.
    assert rig.drops.keys() == {("http", DropReason.EVICTED_FULL)}
    assert rig.dropped(DropReason.EVICTED_FULL) >= 57
    with pytest.raises(BufferRefusedError):
        rig.put(entry(1, size_bytes=20_000))
    # Of what comes together, each is decided by itself; forgetting gets through.
    alarm = entry(2, kind=EntryKind.ALARM, size_bytes=30_000)
    outcome = rig.store.commit(Changes([[alarm], [alarm]], [(alarms[:40], None)]))
    assert [isinstance(one, list) for one in outcome.puts] == [True, False]
    assert outcome.rest is None
    assert outcome.gone == [[]]
    kept = [stored for stored in rig.peek() if stored.entry.kind is EntryKind.ALARM]
    assert len(kept) == len(alarms) - 40 + 1
    assert on_disk_bytes(tmp_path) <= SMALL.size_max_bytes
    rig.close()


def test_old_telemetry_goes_alarms_stay(tmp_path: Path) -> None:
    clock = Clock()
    rig = Rig(tmp_path, BufferBounds(size_max_bytes=2 * 1024 * 1024, age_max_s=3600), clock)
    rig.put(entry(1), entry(2, kind=EntryKind.ALARM), entry(3, kind=EntryKind.DEAD_LETTER))
    clock.ms += 3_000_000
    rig.put(entry(4))
    clock.ms += 600_001
    rig.store._age_at_s = 0.0
    rig.tidy()
    assert rig.drops == {("http", DropReason.EVICTED_AGE): 2}
    assert [stored.entry for stored in rig.peek()] == [entry(2, kind=EntryKind.ALARM), entry(4)]
    assert rig.store.stats().oldest_put_ms == clock.ms - 3_600_001
    rig.close()


def test_saved_values_are_bounded_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    ids = rig.put(entry(1))
    value = bytes(SMALL.saved_max_bytes // 2)
    assert rig.store.commit(Changes(saved={"a": value})).saves is None
    outcome = rig.store.commit(Changes([[entry(2)]], [(ids, None)], {"b": value, "c": b"x"}))
    assert isinstance(outcome.puts[0], list)
    assert outcome.rest is None
    assert outcome.gone == [[]]
    assert isinstance(outcome.saves, BufferRefusedError)
    assert rig.store.commit(Changes(saved={"a": None, "b": value})).saves is None
    assert rig.store.saved() == {"b": value}
    rig.close()


def test_the_file_shrinks_once_it_is_empty(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    while rig.dropped(DropReason.EVICTED_FULL) == 0:
        rig.put(*(entry(number, size_bytes=3000) for number in range(20)))
        rig.tidy()
    before = database(tmp_path).stat().st_size
    rig.drain()
    rig.store._age_at_s = 0.0
    rig.tidy()
    assert database(tmp_path).stat().st_size < before // 4
    assert rig.put(entry(1))
    rig.close()


def test_a_peek_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plantwire.gateway.buffer.store.PEEK_MAX_BYTES", 10_000)
    rig = Rig(tmp_path)
    ids = rig.put(*(entry(number, size_bytes=3000) for number in range(5)), entry(9, size_bytes=20_000))
    assert [stored.entry_id for stored in rig.peek()] == ids[:3]
    rig.forget(ids[:5])
    assert [stored.entry_id for stored in rig.peek()] == ids[5:]
    rig.close()


def test_the_file_ends_at_its_bound_even_when_it_is_misjudged() -> None:
    for size_max_bytes in (1024**2, 3 * 1024**2, 50 * 1024**2, 1024**3, 1024**4):
        bounds = BufferBounds(size_max_bytes=size_max_bytes)
        together = bounds.file_pages_max * 4096 + bounds.wal_max_bytes + bounds.reserve_bytes
        assert together <= size_max_bytes
        assert bounds.pages_max * 4096 > size_max_bytes // 4


@pytest.mark.parametrize("wrong", [{"size_max_bytes": 1000}, {"age_max_s": 0.0}, {"waiting_max_bytes": 0}])
def test_bounds_that_cannot_be_kept(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max"):
        BufferBounds(**wrong)
