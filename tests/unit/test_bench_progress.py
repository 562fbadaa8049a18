"""Progress is the sum of the partitions' latest marks and never goes back."""

from __future__ import annotations

from bench.progress import Point, Progress


def test_partitions_add_up_and_a_repeated_mark_changes_nothing() -> None:
    progress = Progress(partitions=2, frames=200)
    progress.note(0, 50, 1.0)
    progress.note(1, 20, 2.0)
    progress.note(0, 50, 3.0)
    progress.note(0, 40, 4.0)
    assert progress.points == [Point(1.0, 50), Point(2.0, 70)]
    assert progress.frames == 70


def test_complete_only_when_every_partition_ended() -> None:
    progress = Progress(partitions=2, frames=200)
    progress.note(0, 100, 1.0)
    assert not progress.complete
    assert progress.reached(0.5)
    assert not progress.reached(0.51)
    progress.note(1, 100, 2.0)
    assert progress.complete


def test_rates_show_a_slow_begin() -> None:
    progress = Progress(partitions=1, frames=100)
    for frames, at_s in ((10, 10.0), (50, 20.0), (100, 22.5)):
        progress.note(0, frames, at_s)
    assert progress.rates_per_s(2) == [4.0, 20.0]


def test_nothing_seen_has_no_rate() -> None:
    assert Progress(partitions=1, frames=100).rates_per_s(4) == []
