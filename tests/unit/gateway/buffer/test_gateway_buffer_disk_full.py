"""A disk that is full or failing: refusals, no loss, forgetting gets through, and it recovers by itself."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
import structlog

from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason, Entry, EntryKind
from tests.unit.gateway.buffer.buffer_rig import SMALL, Rig, entry
from tests.unit.gateway.buffer.failing_disk import FailingDisk, at_random


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_writes_fail_by_chance(
    tmp_path: Path, seed: int, share: float, error: type[apsw.Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plantwire.gateway.buffer.guarded_store._REOPEN_EVERY_S", 0.0)
    chance = random.Random(seed)
    disk = FailingDisk(f"failing-{error.__name__}-{share}-{seed}")
    rig = Rig(tmp_path, vfs=disk.name)
    held: dict[int, Entry] = {}
    in_question: set[int] = set()
    refused = 0
    for number in range(150):
        broken = number % 50 < 35
        disk.fault = at_random(chance, share, error) if broken else lambda path, act: None
        one = entry(number, size_bytes=chance.choice([30, 900, 7000]))
        try:
            held[rig.put(one)[0]] = one
        except BufferRefusedError:
            refused += 1
            assert broken
        if chance.random() < 0.3 and held:
            gone = chance.sample(sorted(held), chance.randint(1, min(5, len(held))))
            try:
                rig.forget(gone)
                in_question.difference_update(gone)
            except BufferRefusedError:
                in_question.update(gone)
                assert broken
            held = {entry_id: kept for entry_id, kept in held.items() if entry_id not in gone}
        rig.tidy()
    disk.fault = lambda path, act: None
    assert disk.faults
    if share > 0.1:
        assert refused
    rig.put(entry(1000))
    rig.close()
    assert not rig.drops
    there = (after := Rig(tmp_path)).drain()
    after.close()
    assert {entry_id: there[entry_id] for entry_id in held} == held
    assert not after.drops
    assert not after.store.stats().set_aside


def test_a_refused_put_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = FailingDisk("failing-refused")
    rig = Rig(tmp_path, vfs=disk.name)
    first = rig.put(entry(1))
    disk.fault = lambda path, act: apsw.FullError if act == "write" else None
    with pytest.raises(BufferRefusedError, match="the disk is full"):
        rig.put(entry(2), entry(3, kind=EntryKind.ALARM))
    assert rig.store.stats().entries == 1
    assert [stored.entry_id for stored in rig.peek()] == first
    disk.fault = lambda path, act: None
    assert rig.put(entry(4)) == [first[0] + 1]
    rig.close()
    after = Rig(tmp_path)
    assert [stored.entry for stored in after.peek()] == [entry(1), entry(4)]
    after.close()


def dead(disk: FailingDisk) -> None:
    disk.fault = lambda path, act: apsw.IOError
    disk.opens = False


def cannot_copy_the_log(disk: FailingDisk) -> None:
    disk.fault = lambda path, act: apsw.FullError if act == "write" and path.endswith(".db") else None


@pytest.mark.parametrize("break_disk", [dead, cannot_copy_the_log])
def test_a_disk_that_does_not_recover_is_tried_now_and_then_and_reported_once(
    tmp_path: Path, break_disk: Callable[[FailingDisk], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk(f"failing-tidy-{break_disk.__name__}")
    rig = Rig(tmp_path, vfs=disk.name)
    rig.put(entry(1))
    break_disk(disk)
    for number in range(2, 500):
        with contextlib.suppress(BufferRefusedError):
            rig.put(entry(number))
    now_s = [time.monotonic() + 120.0]
    monkeypatch.setattr("plantwire.gateway.buffer.guarded_store.time.monotonic", lambda: now_s[0])
    with structlog.testing.capture_logs() as logged:
        tidied = 0
        end_s = now_s[0] + 60.0
        while now_s[0] < end_s:
            rig.tidy()
            tidied += 1
            # As the thread does: it waits until something is due.
            due_s = rig.store.due_in_s()
            assert due_s > 0, "due again at once"
            now_s[0] += due_s
    assert tidied <= 70
    assert [event["event"] for event in logged].count("edge-buffer-not-tidied") == 1
    disk.fault, disk.opens = lambda path, act: None, True
    now_s[0] += 60.0
    rig.tidy()
    rig.put(entry(1000))
    rig.close()


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_the_files_stay_within_their_bound_while_no_checkpoint_gets_through(
    tmp_path: Path, error: type[apsw.Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plantwire.gateway.buffer.guarded_store._REOPEN_EVERY_S", 0.0)
    disk = FailingDisk(f"failing-checkpoint-{error.__name__}")
    rig = Rig(tmp_path, vfs=disk.name)
    disk.fault = lambda path, act: error if act == "write" and path.endswith(".db") else None
    ids, refused = [], 0
    for number in range(1500):
        try:
            ids += rig.put(entry(number))
        except BufferRefusedError:
            refused += 1
        rig.commit(Changes(saved={"ledger": b"%d" % number}))
        rig.tidy()
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= SMALL.size_max_bytes
    assert len(ids) > 10
    assert refused > 1000
    if error is apsw.FullError:
        rig.forget(ids[:5])
        del ids[:5]
    disk.fault = lambda path, act: None
    rig.tidy()
    ids += rig.put(entry(9999))
    rig.close()
    after = Rig(tmp_path)
    assert [stored.entry_id for stored in after.peek()] == ids
    after.close()


def mounted(folder: Path, size: str) -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real file system of 6 MB; not below pytest's folder, which is deleted while tests run."""
    folder = Path(tempfile.mkdtemp(prefix="plantwire-small-disk-"))
    try:
        if not mounted(folder, "6m"):
            pytest.skip("mounting a tmpfs is not allowed here")
        yield folder
    finally:
        # Lazy, since a failed test leaves files open.
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
        folder.rmdir()


# Three times the disk.
WIDE = BufferBounds(size_max_bytes=16 * 1024 * 1024)


def test_a_real_disk_runs_full_and_has_room_again(small_disk: Path) -> None:
    rig = Rig(small_disk / "buffer", WIDE)
    held: dict[int, Entry] = {}
    number = 0

    def fill() -> int:
        nonlocal number
        refused = 0
        while refused < 5:
            one = entry(number := number + 1, size_bytes=3000)
            try:
                held[rig.put(one)[0]] = one
            except BufferRefusedError:
                refused += 1
            rig.tidy()
        return refused

    fill()
    first_fill = len(held)
    assert first_fill > 100
    # Forgetting gets through on the full disk, in small steps and large ones.
    for count in (1, 1, 50, 200):
        gone = sorted(held)[:count]
        rig.forget(gone)
        for entry_id in gone:
            del held[entry_id]
        rig.tidy()
    assert rig.store.stats().entries == len(held)
    # And makes room for new ones.
    before = len(held)
    fill()
    assert len(held) >= before + 100
    # Another program takes all that is left, and gives it back.
    hog = small_disk / "hog"
    with contextlib.suppress(OSError), hog.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    gone = sorted(held)[:30]
    rig.forget(gone)
    for entry_id in gone:
        del held[entry_id]
    hog.unlink(missing_ok=True)
    rig.put(entry(-1))
    rig.close()
    assert not rig.drops
    after = Rig(small_disk / "buffer", WIDE)
    there = after.drain()
    after.close()
    assert {entry_id: there[entry_id] for entry_id in held} == held
    assert len(there) == len(held) + 1


def test_a_rescue_on_a_disk_with_no_room_for_two_copies(small_disk: Path) -> None:
    folder = small_disk / "buffer"
    rig = Rig(folder, WIDE)
    before: dict[int, Entry] = {}
    for number in range(900):
        one = entry(
            number, size_bytes=3000, kind=EntryKind.ALARM if number % 100 == 0 else EntryKind.TELEMETRY
        )
        before[rig.put(one)[0]] = one
        rig.tidy()
    rig.close()
    (file,) = folder.glob("buffer-*.db")
    with file.open("r+b") as stream:
        stream.seek(60 * 4096)
        stream.write(bytes(4096))
    rig = Rig(folder, WIDE)
    assert max(Path(kept).stat().st_size for kept in rig.store.stats().set_aside) > 2_500_000
    there = rig.drain()
    assert there.items() <= before.items()
    assert {i for i, one in before.items() if one.kind is EntryKind.ALARM} - there.keys() <= {1}
    assert rig.dropped(DropReason.CORRUPT) == len(before) - len(there)
    rig.close()


def test_a_put_of_many_is_refused_as_a_whole(tmp_path: Path) -> None:
    disk = FailingDisk("failing-many")
    rig = Rig(tmp_path, vfs=disk.name)
    writes = [0]

    def fault(path: str, act: str) -> type[apsw.Error] | None:
        writes[0] += act == "write"
        return apsw.FullError if 3 <= writes[0] < 6 else None

    disk.fault = fault
    many = [entry(number, size_bytes=3000) for number in range(20)]
    results = rig.commit(Changes([many[:10], many[10:]]))
    assert all(isinstance(one, BufferRefusedError) for one in results)
    assert rig.peek() == []
    rig.close()
    assert SMALL.put_max_bytes > 10 * 3000
