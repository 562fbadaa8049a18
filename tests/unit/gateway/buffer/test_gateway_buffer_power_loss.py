"""Loss of power at any write: what the edge buffer acknowledged is there when power is back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from plantwire.gateway.buffer import database as database_module
from plantwire.gateway.buffer.bounds import BufferBounds
from plantwire.gateway.buffer.edge_buffer import SqliteEdgeBuffer
from plantwire.gateway.buffer.entry import DropReason, Entry
from tests.unit.gateway.buffer.buffer_rig import Rig, entry
from tests.unit.gateway.buffer.power_loss_disk import PowerLossDisk

# Small, so that checkpoints and restarts of the log happen often.
BOUNDS = BufferBounds(size_max_bytes=2 * 1024 * 1024)


class Cut:
    """The state of the disk at one moment, and what had been acknowledged before it."""

    def __init__(self, files: dict[str, bytes], certain: dict[int, Entry], saved: int) -> None:
        self.files = files
        self.certain = certain
        self.saved = saved


async def run_with_cuts(
    folder: Path, seed: int, patch: pytest.MonkeyPatch, puts: int, every: int
) -> list[Cut]:
    """Use a buffer for a while; lose power at about every n-th write, and go on."""
    chance = random.Random(seed)
    disk = PowerLossDisk(f"power-loss-{seed}")
    disk.watch(patch)
    acknowledged: dict[int, Entry] = {}
    given_up: set[int] = set()
    saved = [0]
    cuts: list[Cut] = []
    countdown = [chance.randint(1, every)]

    def may_cut() -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            countdown[0] = chance.randint(1, every)
            certain = {i: one for i, one in acknowledged.copy().items() if i not in given_up}
            files = disk.cut(chance.getrandbits(32))
            cuts.append(Cut(files, certain, saved[0]))

    disk.on_operation = may_cut
    drops: list[object] = []
    buffer = SqliteEdgeBuffer(folder, BOUNDS, lambda *drop: drops.append(drop), vfs=disk.name)
    await buffer.start()
    number = 0
    for round_number in range(puts):
        entries = [
            [entry(number := number + 1, size_bytes=chance.choice([20, 300, 3000, 9000]))]
            for _ in range(chance.choice([1, 1, 3, 8]))
        ]
        waiting = [buffer.put(one) for one in entries]
        if round_number % 3 == 0:
            await buffer.save("round", str(round_number).encode())
            saved[0] = round_number
        for future, one in zip(waiting, entries, strict=True):
            acknowledged |= zip(await future, one, strict=True)
        if chance.random() < 0.2:
            first = [stored.entry_id for stored in await buffer.peek(chance.randint(1, 40))]
            given_up.update(first)
            await buffer.acknowledge(first)
    assert await buffer.close(10)
    assert not drops
    return cuts


class Found:
    """What there is after power came back."""

    def __init__(self, cut: Cut, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        for name, content in cut.files.items():
            (folder / name).write_bytes(content)
        rig = Rig(folder, BOUNDS)
        self.set_aside = rig.store.stats().set_aside
        self.saved = int(rig.store.saved().get("round", b"0"))
        there = rig.drain()
        self.corrupt = rig.dropped(DropReason.CORRUPT)
        rig.close()
        self.lost = {entry_id for entry_id, one in cut.certain.items() if there.get(entry_id) != one}


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_acknowledged_is_lost(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = await run_with_cuts(tmp_path / "disk", seed, monkeypatch, puts=50, every=70)
    assert len(cuts) >= 10
    assert any(cut.certain for cut in cuts)
    for number, cut in enumerate(cuts):
        found = await asyncio.to_thread(Found, cut, tmp_path / f"cut-{number}")
        assert not found.lost, f"cut {number}"
        assert found.saved >= cut.saved
        # Nor does it look like damage.
        assert not found.set_aside
        assert not found.corrupt


@pytest.mark.parametrize(("synchronous", "value"), [("NORMAL", 1), ("OFF", 0)])
async def test_the_disk_bites_where_commits_are_not_synced(
    tmp_path: Path, synchronous: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with weaker settings loses acknowledged entries: so the test above can fail."""
    monkeypatch.setitem(database_module.PRAGMAS, "synchronous", (synchronous, value))
    cuts = await run_with_cuts(tmp_path / "disk", 1, monkeypatch, puts=40, every=60)
    found = [await asyncio.to_thread(Found, cut, tmp_path / f"cut-{n}") for n, cut in enumerate(cuts)]
    assert sum(bool(one.lost) for one in found) >= 3
