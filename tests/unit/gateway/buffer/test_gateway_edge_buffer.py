"""The edge buffer as its callers see it: promises, order, bounds, restarts, one owner."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.edge_buffer import SqliteEdgeBuffer
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, EdgeBuffer, EntryKind
from plantwire.gateway.buffer.folder import FolderInUseError
from tests.unit.gateway.buffer.buffer_rig import SMALL, Clock, entry
from tests.unit.gateway.buffer.failing_disk import FailingDisk

Drops = Counter[tuple[str, DropReason]]


def make(
    folder: Path, drops: Drops | None = None, bounds: BufferBounds = SMALL, vfs: str | None = None
) -> SqliteEdgeBuffer:
    counted: Drops = Counter() if drops is None else drops

    def on_drop(source: str, reason: DropReason, count: int) -> None:
        counted[source, reason] += count

    return SqliteEdgeBuffer(folder, bounds, on_drop, Clock(), vfs)


@pytest.fixture
async def buffer(tmp_path: Path) -> AsyncIterator[SqliteEdgeBuffer]:
    made = make(tmp_path / "buffer")
    await made.start()
    yield made
    await made.close(10)


async def test_it_is_what_the_gateway_expects(buffer: SqliteEdgeBuffer) -> None:
    promised: EdgeBuffer = buffer
    assert promised.stats().entries == 0


async def test_entries_come_back_as_they_were_put_alarms_first(buffer: SqliteEdgeBuffer) -> None:
    kinds = (
        EntryKind.TELEMETRY,
        EntryKind.DEAD_LETTER,
        EntryKind.ALARM,
        EntryKind.TELEMETRY,
        EntryKind.ALARM,
    )
    entries = [entry(number, kind=kind) for number, kind in enumerate(kinds)]
    first, second = await asyncio.gather(buffer.put(entries[:2]), buffer.put(entries[2:]))
    ids = first + second
    assert ids == sorted(set(ids))
    found = await buffer.peek(10)
    assert [(stored.entry_id, stored.entry) for stored in found] == [
        (ids[number], entries[number]) for number in (2, 4, 0, 1, 3)
    ]
    assert await buffer.peek(3) == found[:3]
    assert await buffer.peek(10, below_id=ids[3]) == [found[0], found[2], found[3]]


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.ReadOnlyError])
async def test_a_disk_that_fails_at_the_start_leaves_a_buffer_that_refuses(
    tmp_path: Path, error: type[apsw.Error]
) -> None:
    disk = FailingDisk(f"failing-start-{error.__name__}")
    disk.fault = lambda path, act: error
    buffer = make(tmp_path, vfs=disk.name)
    with pytest.raises(BufferRefusedError, match="could not be opened"):
        await buffer.start()
    for refused in (lambda: buffer.put([entry(1)]), lambda: buffer.save("ledger", b"1")):
        with pytest.raises(BufferRefusedError, match="could not be opened"):
            refused()
    with pytest.raises(BufferRefusedError, match="could not be opened"):
        await buffer.peek(1)
    assert (buffer.stats().entries, buffer.saved("")) == (0, {})
    assert await buffer.close(1)
    # The folder is free for whoever finds the disk well again.
    again = make(tmp_path)
    await again.start()
    assert await again.close(10)


async def test_a_folder_that_is_a_file_is_an_error_of_the_operator(tmp_path: Path) -> None:
    (tmp_path / "buffer").write_text("")
    with pytest.raises(NotADirectoryError):
        await make(tmp_path / "buffer").start()


async def test_acknowledged_entries_are_forgotten_and_others_named(buffer: SqliteEdgeBuffer) -> None:
    ids = await buffer.put([entry(number) for number in range(5)])
    assert await buffer.acknowledge([ids[0], ids[3], 999]) == [999]
    assert await buffer.acknowledge([ids[0], ids[1]]) == [ids[0]]
    assert [stored.entry_id for stored in await buffer.peek(10)] == [ids[2], ids[4]]
    assert buffer.stats().entries == 2


async def test_dropped_entries_are_counted_under_their_source(tmp_path: Path) -> None:
    drops: Drops = Counter()
    buffer = make(tmp_path, drops)
    await buffer.start()
    ids = await buffer.put([entry(1), entry(2, source="mqtt-json"), entry(3, kind=EntryKind.ALARM)])
    await buffer.drop([*ids, 77], DropReason.UNDELIVERABLE)
    assert drops == {("http", DropReason.UNDELIVERABLE): 2, ("mqtt-json", DropReason.UNDELIVERABLE): 1}
    assert buffer.stats().by_source == {}
    await buffer.close(10)


async def test_stats_change_with_the_promise(buffer: SqliteEdgeBuffer) -> None:
    waiting = buffer.put([entry(1, size_bytes=100), entry(2, source="mqtt-json", size_bytes=50)])
    assert buffer.stats().entries == 0
    await waiting
    stats = buffer.stats()
    assert stats.by_source == {"http": 1, "mqtt-json": 1}
    assert stats.entries == 2
    assert stats.size_bytes == 150
    assert stats.oldest_put_ms == Clock().ms


async def test_what_waits_is_committed_together(buffer: SqliteEdgeBuffer) -> None:
    store = buffer._store._store
    assert store is not None
    before = store.totals.transaction
    await asyncio.gather(*(buffer.put([entry(number)]) for number in range(200)))
    assert store.totals.transaction - before <= 5


async def test_a_promise_that_nobody_waits_for_any_more_harms_nobody(buffer: SqliteEdgeBuffer) -> None:
    given_up = buffer.put([entry(1)])
    given_up.cancel()
    await buffer.put([entry(2)])
    assert [stored.entry for stored in await buffer.peek(10)] == [entry(1), entry(2)]


async def test_too_much_that_waits_is_refused_at_once(tmp_path: Path) -> None:
    buffer = make(tmp_path, bounds=BufferBounds(size_max_bytes=16 * 1024 * 1024, waiting_max_bytes=100_000))
    await buffer.start()
    taken = [buffer.put([entry(number, size_bytes=1000)]) for number in range(90)]
    with pytest.raises(BufferRefusedError, match="waits"):
        buffer.put([entry(number, size_bytes=1000) for number in range(10)])
    # Forgetting makes room and is let in.
    forgotten = buffer.acknowledge([1])
    await asyncio.gather(*taken, forgotten)
    await buffer.put([entry(1)])
    await buffer.close(10)


@pytest.mark.parametrize("source", ["", "häuslich", "x" * 65])
async def test_an_entry_that_no_row_can_hold_harms_only_its_caller(
    buffer: SqliteEdgeBuffer, source: str
) -> None:
    other = buffer.put([entry(1)])
    with pytest.raises(ValueError, match="source"):
        buffer.put([entry(2, source=source)])
    assert await other


async def test_sources_are_bounded(buffer: SqliteEdgeBuffer) -> None:
    for number in range(64):
        await buffer.put([entry(1, source=f"s{number}")])
    with pytest.raises(ValueError, match="sources"):
        buffer.put([entry(1, source="another")])
    await buffer.put([entry(1, source="s0")])


async def test_a_put_that_is_too_large_is_refused(buffer: SqliteEdgeBuffer) -> None:
    with pytest.raises(BufferRefusedError, match="at most"):
        buffer.put([entry(1, size_bytes=SMALL.put_max_bytes)])


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.start()
    ids = await first.put([entry(1), entry(2, kind=EntryKind.ALARM)])
    await first.save("ledger", b"counts")
    await first.save("edge-state/press-1", b"state")
    await first.save("edge-state/press-2", b"state")
    await first.save("edge-state/press-2", None)
    assert first.saved("edge-state/") == {"edge-state/press-1": b"state"}
    assert await first.close(10)
    second = make(tmp_path)
    await second.start()
    assert second.stats().entries == 2
    assert [stored.entry_id for stored in await second.peek(5)] == [ids[1], ids[0]]
    assert second.saved("") == {"ledger": b"counts", "edge-state/press-1": b"state"}
    await second.acknowledge(ids)
    assert min(await second.put([entry(3)])) > max(ids)
    await second.close(10)


async def test_after_close_everything_is_refused(tmp_path: Path) -> None:
    buffer = make(tmp_path)
    await buffer.start()
    waiting = [buffer.put([entry(number)]) for number in range(50)]
    assert await buffer.close(10)
    assert all(future.done() and future.result() for future in waiting)
    with pytest.raises(BufferRefusedError):
        buffer.put([entry(1)])
    with pytest.raises(BufferRefusedError):
        await buffer.peek(1)
    assert await buffer.close(10)


async def test_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plantwire.gateway.buffer.guarded_store._LOCK_WAIT_S", 0.1)
    first = make(tmp_path)
    await first.start()
    with pytest.raises(FolderInUseError, match="in use by another process"):
        await make(tmp_path).start()
    assert await first.put([entry(1)])
    await first.close(10)
    second = make(tmp_path)
    await second.start()
    await second.close(10)


async def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        buffer = make(tmp_path / "a" / "b")
        await buffer.start()
        await buffer.put([entry(1)])
        files = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "a" / "b").iterdir()}
        await buffer.close(10)
    finally:
        os.umask(before)
    assert {"buffer-1.db", "buffer-1.db-wal", "lock", "reserve"} <= files.keys()
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


PUTTER = """
import asyncio, sys
from pathlib import Path
from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.edge_buffer import SqliteEdgeBuffer
from tests.unit.gateway.buffer.buffer_rig import entry

async def put_for_ever(buffer, start):
    number = start
    while True:
        (entry_id,) = await buffer.put([entry(number)])
        print(entry_id, number, flush=True)
        number += 10

async def main():
    buffer = SqliteEdgeBuffer(Path(sys.argv[1]), BufferBounds(), lambda *_: None)
    await buffer.start()
    await asyncio.gather(*(put_for_ever(buffer, start) for start in range(10)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    promised: dict[int, int] = {}
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PUTTER,
            str(tmp_path),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": "."},
        )
        assert process.stdout is not None
        for _ in range(300):
            line = await process.stdout.readline()
            assert line
            entry_id, number = map(int, line.split())
            promised[entry_id] = number
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode().splitlines(keepends=True)
        promised |= {int(i): int(n) for i, n in (line.split() for line in rest if line.endswith("\n"))}
        await process.wait()
    buffer = make(tmp_path, bounds=BufferBounds())
    await buffer.start()
    there = {stored.entry_id: stored.entry for stored in await buffer.peek(1_000_000)}
    await buffer.close(10)
    assert len(promised) >= 900
    for entry_id, number in promised.items():
        assert there[entry_id] == entry(number)
