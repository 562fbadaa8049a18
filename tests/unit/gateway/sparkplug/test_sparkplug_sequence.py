"""Sequence numbers of one edge node."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.sparkplug.rebirth_limit import RebirthLimit
from plantwire.gateway.sparkplug.sequence import Order, SequenceTracker


def test_numbers_follow_each_other_around_the_circle() -> None:
    tracker = SequenceTracker(254)
    assert [tracker.take(number) for number in (255, 0, 1)] == [Order.NEXT] * 3


def test_what_was_missing_fills_the_gap() -> None:
    tracker = SequenceTracker(0)
    assert tracker.take(4) is Order.AHEAD
    assert tracker.take(2) is Order.FILLS
    assert tracker.take(5) is Order.NEXT
    assert tracker.take(1) is Order.FILLS
    assert tracker.take(3) is Order.COMPLETES
    assert tracker.take(3) is Order.BEHIND


def test_two_gaps_complete_together() -> None:
    tracker = SequenceTracker(0)
    assert [tracker.take(number) for number in (2, 4, 1, 3)] == [
        Order.AHEAD,
        Order.AHEAD,
        Order.FILLS,
        Order.COMPLETES,
    ]


def test_a_number_from_behind_leaves_the_order_incomplete() -> None:
    tracker = SequenceTracker(10)
    assert tracker.take(10) is Order.BEHIND
    assert tracker.take(12) is Order.AHEAD
    assert tracker.take(11) is Order.FILLS
    tracker.give_up()
    assert tracker.take(14) is Order.AHEAD
    assert tracker.take(13) is Order.COMPLETES


def test_a_number_missing_for_a_whole_circle_is_lost() -> None:
    tracker = SequenceTracker(0)
    assert tracker.take(2) is Order.AHEAD
    assert {tracker.take(number % 256) for number in range(3, 3 + 255)} == {Order.NEXT}
    tracker.take(4)
    assert tracker.take(3) is Order.FILLS


@given(st.integers(0, 255), st.permutations(range(1, 41)))
def test_any_order_of_messages_completes_once_all_are_there(birth: int, order: list[int]) -> None:
    tracker = SequenceTracker(birth)
    orders = [tracker.take((birth + step) % 256) for step in order]
    assert Order.BEHIND not in orders
    gap_open = False
    seen: set[int] = set()
    for step, verdict in zip(order, orders, strict=True):
        seen.add(step)
        complete = seen == set(range(1, max(seen) + 1))
        assert (verdict is Order.COMPLETES) == (gap_open and complete)
        assert (verdict is Order.NEXT) == (step == max(seen) and step - 1 in {*seen, 0})
        gap_open = not complete


@given(st.integers(0, 255), st.lists(st.integers(0, 255), max_size=600))
def test_after_whatever_came_the_next_number_is_next(birth: int, numbers: list[int]) -> None:
    tracker = SequenceTracker(birth)
    newest = birth
    for number in numbers:
        if tracker.take(number) in (Order.NEXT, Order.AHEAD):
            newest = number
    assert tracker.take((newest + 1) % 256) is Order.NEXT


def test_rebirth_requests_move_apart_and_start_anew_after_peace() -> None:
    limit = RebirthLimit(5_000, 60_000)
    asked = []
    now_ms = 0
    for _ in range(7):
        now_ms = limit.allowed_at_ms(now_ms)
        limit.note_asked(now_ms)
        asked.append(now_ms)
    distances = [after - before for before, after in pairwise(asked)]
    assert distances == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]
    now_ms += 120_000
    limit.note_asked(now_ms)
    assert limit.allowed_at_ms(now_ms + 1) == now_ms + 5_000
