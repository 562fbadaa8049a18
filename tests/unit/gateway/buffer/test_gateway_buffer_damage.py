"""Damaged buffer files: set aside, read as far as they can be, the rest counted; no crash, no silent loss."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plantwire.gateway.buffer import rescue
from plantwire.gateway.buffer.entry import DropReason, Entry, EntryKind
from plantwire.gateway.buffer.folder import BufferFolder
from tests.unit.gateway.buffer.buffer_rig import Rig, database, entry

KINDS = (EntryKind.TELEMETRY, EntryKind.TELEMETRY, EntryKind.ALARM, EntryKind.DEAD_LETTER)


def fill(rig: Rig, count: int, seed: int) -> dict[int, Entry]:
    """Puts, with every other seed some forgotten again; what should be there."""
    chance = random.Random(seed)
    held: dict[int, Entry] = {}
    number = 0
    while number < count:
        entries = [
            entry(
                seed * 100_000 + number + k,
                kind=chance.choice(KINDS),
                source=chance.choice(["http", "mqtt-json"]),
                size_bytes=chance.choice([10, 200, 1500, 6000]),
            )
            for k in range(chance.randint(1, 12))
        ]
        number += len(entries)
        held |= zip(rig.put(*entries), entries, strict=True)
        if seed % 2 and chance.random() < 0.2:
            gone = chance.sample(sorted(held), len(held) // 4)
            rig.forget(gone)
            held = {entry_id: one for entry_id, one in held.items() if entry_id not in gone}
        if chance.random() < 0.1:
            rig.tidy()
    return held


def counts_are_written(rig: Rig) -> None:
    rig.store._counts_at_s = 0.0
    rig.tidy()


def readable(rig: Rig) -> dict[int, Entry]:
    """What is there, without taking it out."""
    found = {stored.entry_id: stored.entry for stored in rig.peek()}
    if len(found) != rig.store.stats().entries:
        found = rig.drain()
    return found


def assert_accounted(rig: Rig, before: dict[int, Entry]) -> None:
    """All that can be read is as it was put, and what cannot is counted, per source."""
    after = readable(rig)
    for entry_id, one in after.items():
        if entry_id in before:
            assert one == before[entry_id]
    for source in ("http", "mqtt-json"):
        lost = {i for i, one in before.items() if one.source == source} - after.keys()
        assert len(lost) <= rig.drops[source, DropReason.CORRUPT]
    gone = before.keys() - after.keys()
    counted = rig.dropped(DropReason.CORRUPT)
    if nothing_was_forgotten(before):
        assert counted == len(gone)
    else:  # what was put and forgotten in commits that are lost counts as lost
        assert len(gone) <= counted <= max(before)
    assert set(rig.drops) <= {("http", DropReason.CORRUPT), ("mqtt-json", DropReason.CORRUPT)}
    # And it goes on.
    new_ids = rig.put(entry(1), entry(2, kind=EntryKind.ALARM))
    assert min(new_ids) > max(before)
    assert rig.peek(1)[0].entry.kind is EntryKind.ALARM


def nothing_was_forgotten(before: dict[int, Entry]) -> bool:
    return len(before) == max(before)


def flip(file: Path, chance: random.Random, bits: int) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(bits):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


# 1253: the number of the schema's format; 1618: one page in the trees of both tables.
@pytest.mark.parametrize("seed", [*range(40), 1253, 1618])
def test_bytes_flipped_after_a_clean_stop(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(tmp_path)
    before = fill(rig, 150, seed)
    rig.close()
    flip(database(tmp_path), chance, chance.choice([1, 3, 30]))
    rig = Rig(tmp_path)
    assert_accounted(rig, before)
    rig.close()


@pytest.mark.parametrize("seed", range(40))
def test_bytes_flipped_after_a_kill(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(tmp_path)
    before = fill(rig, 150, seed)
    counts_are_written(rig)
    rig.abandon()
    log = database(tmp_path).with_name(database(tmp_path).name + "-wal")
    flip(chance.choice([database(tmp_path), log]), chance, chance.choice([1, 3, 30, 300]))
    rig = Rig(tmp_path)
    assert_accounted(rig, before)
    rig.close()


# 5510: a row that is seen, and not found by its id.
@pytest.mark.parametrize("seed", [*range(30), 5510])
def test_bytes_flipped_under_a_running_process(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(tmp_path)
    before = fill(rig, 150, seed)
    store = rig.store._store
    assert store is not None
    if chance.random() < 0.7:
        store.checkpoint()
    # What SQLite has in its cache it does not read again.
    store._connection.release_memory()
    store._connection.execute("PRAGMA cache_size = 1")
    log = database(tmp_path).with_name(database(tmp_path).name + "-wal")
    for file in (database(tmp_path), log):
        content = file.read_bytes()
        with file.open("r+b") as stream:
            for _ in range(chance.choice([0, 3, 30]) if content else 0):
                at = chance.randrange(len(content))
                stream.seek(at)
                stream.write(bytes([content[at] ^ 1 << chance.randrange(8)]))
    assert_accounted(rig, before)
    rig.close()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_truncated_after_a_kill(tmp_path: Path, seed: int, suffix: str) -> None:
    chance = random.Random(seed)
    rig = Rig(tmp_path)
    before = fill(rig, 100, seed)
    counts_are_written(rig)
    rig.abandon()
    file = database(tmp_path).with_name(database(tmp_path).name + suffix)
    length = chance.choice([0, chance.randrange(file.stat().st_size)])
    with file.open("r+b") as stream:
        stream.truncate(length)
    rig = Rig(tmp_path)
    assert_accounted(rig, before)
    rig.close()


def as_a_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    (file / "within").mkdir(parents=True)


def as_garbage(file: Path) -> None:
    file.write_bytes(random.Random(0).randbytes(50_000))


def as_nothing(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [as_a_folder, as_garbage, as_nothing, Path.unlink])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_another_thing_in_the_place_of_a_file(
    tmp_path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    rig = Rig(tmp_path)
    before = fill(rig, 60, 1)
    counts_are_written(rig)
    rig.abandon()
    damage(database(tmp_path).with_name(database(tmp_path).name + suffix))
    rig = Rig(tmp_path)
    assert_accounted(rig, before)
    rig.close()


def test_a_log_without_its_database_meets_no_other(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    before = fill(rig, 60, 1)
    rig.tidy()
    for number in range(5):
        rig.put(entry(1000 + number))
    before |= {stored.entry_id: stored.entry for stored in rig.peek()}
    counts_are_written(rig)
    rig.abandon()
    database(tmp_path).unlink()
    rig = Rig(tmp_path)
    assert_accounted(rig, before)
    assert [Path(kept).name.rpartition(".")[2] for kept in rig.store.stats().set_aside] == ["damaged-wal"]
    rig.close()


@pytest.mark.parametrize(
    ("bound", "value", "kept"), [("SET_ASIDE_MAX", 3, 3), ("SET_ASIDE_MAX_BYTES", 2 * 1000, 3)]
)
def test_the_last_damaged_files_are_kept_and_the_others_counted(
    tmp_path: Path, bound: str, value: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"plantwire.gateway.buffer.folder.{bound}", value)
    folder = BufferFolder(tmp_path)
    names: list[str] = []
    for number in range(6):
        for suffix, size in (("", 600), ("-wal", 400)):
            file = tmp_path / f"buffer-1.db{suffix}"
            file.write_bytes(bytes([number]) * size)
        names.append(folder.set_aside(tmp_path / "buffer-1.db")[-1].name)
    left = {Path(file).name.removesuffix("-wal") for file in folder.set_aside_files()}
    assert left == set(names[-kept:])
    assert folder.deleted == 2 * (6 - kept)


def test_the_last_damaged_file_is_kept_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plantwire.gateway.buffer.folder.SET_ASIDE_MAX_BYTES", 10)
    folder = BufferFolder(tmp_path)
    for _ in range(2):
        (tmp_path / "buffer-1.db").write_bytes(bytes(100))
        folder.set_aside(tmp_path / "buffer-1.db")
    assert len(folder.set_aside_files()) == 1


@pytest.mark.parametrize("damage", [as_a_folder, as_garbage, as_nothing])
@pytest.mark.parametrize("name", ["counts.json", "reserve"])
def test_what_lies_beside_the_database_is_damaged(
    tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    rig = Rig(tmp_path)
    before = fill(rig, 60, 1)
    rig.close()
    damage(tmp_path / name)
    rig = Rig(tmp_path)
    assert readable(rig) == before
    assert not rig.drops
    assert_accounted(rig, before)
    rig.close()


def test_damaged_files_are_kept_as_they_were_and_never_written_over(tmp_path: Path) -> None:
    contents: set[bytes] = set()
    for seed in range(3):
        rig = Rig(tmp_path)
        fill(rig, 40, seed)
        rig.close()
        file = database(tmp_path)
        content = bytearray(file.read_bytes())
        content[0:16] = bytes(16)
        file.write_bytes(content)
        contents.add(bytes(content))
    rig = Rig(tmp_path)
    kept = rig.store.stats().set_aside
    assert {Path(one).read_bytes() for one in kept} == contents
    assert [Path(one).stat().st_mode & 0o777 for one in kept] == [0o600] * 3
    rig.close()


def test_the_rows_around_one_damaged_page_are_all_saved(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    before = dict(zip(ids := rig.put(*(entry(n) for n in range(400))), map(entry, range(400)), strict=True))
    rig.close()
    content = bytearray(database(tmp_path).read_bytes())
    at = content.index(before[ids[200]].body) // 4096 * 4096
    content[at : at + 4096] = random.Random(0).randbytes(4096)
    database(tmp_path).write_bytes(content)
    rig = Rig(tmp_path)
    lost = rig.dropped(DropReason.CORRUPT)
    assert 1 <= lost <= 4096 // 200
    assert_accounted(rig, before)
    rig.close()


@pytest.mark.parametrize("step", ["finish", "set_aside"])
def test_a_rescue_that_is_interrupted_is_done_again(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "buffer")
    before = fill(rig, 60, 1)
    rig.close()
    file = database(tmp_path / "buffer")
    content = bytearray(file.read_bytes())
    content[30:60] = bytes(30)
    file.write_bytes(content)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rescue.BufferFolder, step, killed)
        with pytest.raises(KeyboardInterrupt):
            Rig(tmp_path / "buffer")
    shutil.copytree(tmp_path / "buffer", tmp_path / "copy")
    rig = Rig(tmp_path / "copy")
    assert len(rig.store.stats().set_aside) >= 1
    after = readable(rig)
    assert after.items() <= before.items()
    if step == "finish":
        assert rig.dropped(DropReason.CORRUPT) == len(before) - len(after)
    rig.close()
