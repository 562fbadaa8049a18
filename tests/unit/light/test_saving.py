"""Saving on a thread of its own: in order, again while the disk fails, and never half."""

from __future__ import annotations

import threading

import apsw
import pytest

from plantwire.light import saving
from plantwire.light.engine import PARTS
from plantwire.light.saving import Saver
from plantwire.light.state_file import Positions, Progress
from plantwire.platform.health import Health

WAIT_S = 10


class Disk:
    """In place of a `StateFile`: notes what is saved, fails when told so."""

    def __init__(self) -> None:
        self.saved: list[Progress] = []
        self.tries = 0
        self.fails = False

    def save(self, progress: Progress) -> None:
        self.tries += 1
        if self.fails:
            raise apsw.FullError("disk full")
        self.saved.append(progress)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def progress(n: int) -> Progress:
    return Progress({("topic", 0): n}, {})


def wait_for(event: threading.Event) -> None:
    assert event.wait(WAIT_S)
    event.clear()


def test_what_is_saved_is_told(disk: Disk) -> None:
    told: list[Positions] = []
    done = threading.Event()

    def on_saved(positions: Positions) -> None:
        told.append(positions)
        done.set()

    saver = Saver(disk, Health(PARTS), on_saved)  # type: ignore[arg-type]
    saver.start()
    for n in range(3):
        saver.hand_over(progress(n))
        wait_for(done)
        assert saver.is_idle
    saver.close()
    assert disk.saved == [progress(n) for n in range(3)]
    assert told == [p.positions for p in disk.saved]


def test_a_disk_that_fails_is_told_and_tried_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "RETRY_EVERY_S", 0.01)
    done = threading.Event()
    health = Health(PARTS)
    disk.fails = True
    saver = Saver(disk, health, lambda _: done.set())  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(progress(1))
    deadline = threading.Event()
    while disk.tries < 3:
        assert not deadline.wait(0.005)
    assert any("disk full" in reason for reason in health.obstacles())
    assert not saver.is_idle
    disk.fails = False
    wait_for(done)
    saver.close()
    assert disk.saved == [progress(1)]
    assert not any("state" in reason for reason in health.obstacles())


def test_what_waits_is_saved_before_the_end_but_not_waited_for_where_the_disk_fails(disk: Disk) -> None:
    saver = Saver(disk, Health(PARTS), lambda _: None)  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(progress(1))
    saver.close()
    assert disk.saved == [progress(1)]
    failing = Disk()
    failing.fails = True
    other = Saver(failing, Health(PARTS), lambda _: None)  # type: ignore[arg-type]
    other.start()
    other.hand_over(progress(2))
    other.close()
    assert failing.saved == []
    assert not other.is_idle


def test_one_at_a_time(disk: Disk) -> None:
    saver = Saver(disk, Health(PARTS), lambda _: None)  # type: ignore[arg-type]
    saver.hand_over(progress(1))
    with pytest.raises(AssertionError):
        saver.hand_over(progress(2))
