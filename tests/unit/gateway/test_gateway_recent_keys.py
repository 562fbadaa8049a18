"""What is remembered of messages that were forwarded."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.recent_keys import RecentKeys


def test_a_key_is_known_within_the_window_only() -> None:
    keys = RecentKeys(window_s=10, keys_max=5)
    assert not keys.seen("a", 0)
    keys.remember("a", 0)
    assert keys.seen("a", 9.9)
    assert not keys.seen("a", 10)


def test_a_repetition_does_not_prolong_it() -> None:
    keys = RecentKeys(window_s=10, keys_max=5)
    keys.remember("a", 0)
    keys.remember("a", 9)
    assert not keys.seen("a", 10)


def test_a_window_of_nothing_knows_nothing() -> None:
    keys = RecentKeys(window_s=0, keys_max=5)
    keys.remember("a", 1)
    assert not keys.seen("a", 1)


def test_the_oldest_goes_when_it_is_full() -> None:
    keys = RecentKeys(window_s=10, keys_max=2)
    for key in "abc":
        keys.remember(key, 1)
    assert [keys.seen(key, 2) for key in "abc"] == [False, True, True]


def test_a_burst_is_forgotten_in_linear_time() -> None:
    keys = RecentKeys(window_s=600, keys_max=100_000)
    for number in range(100_000):
        keys.remember(f"burst-{number}", number / 1000)
    started_s = time.process_time()
    keys.remember("next", 1000)
    # A tenth of it is usual; in quadratic time it would be seconds.
    assert time.process_time() - started_s < 0.4
    assert len(keys) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 20)), max_size=60),
    st.integers(1, 6),
)
def test_it_is_bounded_and_never_claims_what_was_not_remembered_lately(
    steps: list[tuple[str, float]], keys_max: int
) -> None:
    keys = RecentKeys(window_s=10, keys_max=keys_max)
    last: dict[str, float] = {}
    now_s = 0.0
    for key, later_s in steps:
        now_s += later_s
        if keys.seen(key, now_s):
            assert now_s - last[key] < 10
        else:
            last[key] = now_s
        keys.remember(key, now_s)
        assert len(keys) <= keys_max
