"""Until when a device's silence is known, and that a backlog is none."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from plantwire.domain.listening import (
    GRACE_MS,
    IDLE_MS,
    LONG_AGO_MS,
    LOOK_AGAIN_MS,
    SETTLE_MS,
    STEP_MIN_MS,
    Ear,
    Heard,
    lag_ms,
    look_in_ms,
)

T0 = 1_795_000_000_000
HOUR_MS = 3_600_000


def ear(heard: Heard) -> Ear:
    """Of a device whose newest frame this is."""
    of_device = Ear(T0 - HOUR_MS)
    of_device.hear(heard)
    return of_device


def test_a_live_device_is_known_until_now_by_its_own_clock() -> None:
    for ahead_ms in (-HOUR_MS, -500, 0, 40_000):
        heard = Heard(T0 + ahead_ms, T0, T0 + 5)
        assert ear(heard).silent_until_ms(5, T0 + 10_005) == T0 + ahead_ms + 10_000 - GRACE_MS


def test_frames_that_wait_to_be_read_are_not_missed() -> None:
    # What is read now was received an hour ago; others of the device may follow at once.
    heard = Heard(T0 - HOUR_MS, T0 - HOUR_MS, T0)
    lag = lag_ms(heard, T0)
    assert lag == HOUR_MS
    assert ear(heard).silent_until_ms(lag, T0) == T0 - HOUR_MS - GRACE_MS
    # Another device's frames are read in time already: of this one it is known no sooner.
    assert ear(heard).silent_until_ms(0, T0 + 300) == T0 - HOUR_MS + 300 - GRACE_MS


def test_reading_more_slowly_than_time_passes_is_no_silence() -> None:
    heard = Heard(T0, T0, T0 + 1000)
    newest = Heard(T0 + 2000, T0 + 2000, T0 + 91_000)
    assert ear(heard).silent_until_ms(lag_ms(newest, T0 + 91_000), T0 + 91_000) == T0 + 2000 - GRACE_MS


def test_where_nothing_is_read_there_is_no_backlog() -> None:
    newest = Heard(T0 - HOUR_MS, T0 - HOUR_MS, T0)
    assert lag_ms(None, T0) == 0
    assert lag_ms(newest, T0 + IDLE_MS - 1) == HOUR_MS
    assert lag_ms(newest, T0 + IDLE_MS) == 0
    # A gateway whose clock is ahead of ours does not make the present come sooner.
    assert lag_ms(Heard(T0, T0 + 9000, T0), T0) == 0


def test_after_a_restart_a_device_is_given_time_and_then_goes_by_its_clock() -> None:
    restored = Ear(T0, 30_000)
    assert restored.silent_until_ms(0, T0 + SETTLE_MS - 1) == LONG_AGO_MS
    assert restored.silent_until_ms(0, T0 + SETTLE_MS) == T0 + SETTLE_MS + 30_000 - GRACE_MS
    assert restored.silent_until_ms(5000, T0 + SETTLE_MS) == T0 + SETTLE_MS + 30_000 - 5000 - GRACE_MS
    restored.hear(Heard(T0 + 500, T0 + 500, T0 + 1000))
    assert restored.silent_until_ms(0, T0 + 3000) == T0 + 2500 - GRACE_MS


def test_asking_again_is_neither_too_soon_nor_forgotten() -> None:
    assert look_in_ms(T0 + 60_000, T0) == 60_000
    assert look_in_ms(T0 - 5, T0) == look_in_ms(-inf, T0) == LOOK_AGAIN_MS
    assert look_in_ms(inf, T0) == inf


def test_a_clock_that_is_put_forward_is_seen_by_its_gateway() -> None:
    of_device = ear(Heard(1000, T0, T0))
    assert of_device.put_forward_ms(Heard(T0 + 500, T0 + 500, T0 + 600)) == T0 - 1000
    # A gap that passed for both, a clock put back, one that drifts, and a device of which nothing is known.
    assert of_device.put_forward_ms(Heard(1000 + HOUR_MS, T0 + HOUR_MS, T0 + HOUR_MS)) == 0
    assert of_device.put_forward_ms(Heard(0, T0 + HOUR_MS, T0 + HOUR_MS)) == 0
    assert of_device.put_forward_ms(Heard(1000 + STEP_MIN_MS - 1, T0, T0)) == 0
    assert of_device.put_forward_ms(Heard(1000 + STEP_MIN_MS, T0, T0)) == STEP_MIN_MS
    assert Ear(T0).put_forward_ms(Heard(T0 + HOUR_MS, T0, T0)) == 0


def test_frames_that_are_sent_together_put_no_clock_forward() -> None:
    """Every five minutes the ten that were measured since: each seems further ahead than the one before."""
    of_device = Ear(T0)
    for batch in range(3):
        received_ms = T0 + batch * 300_000
        for n in range(10):
            frame = Heard(received_ms - 300_000 + (n + 1) * 30_000, received_ms, received_ms)
            assert of_device.put_forward_ms(frame) == 0 or batch == 0
            of_device.hear(frame)
    assert of_device.clock_ahead_ms == 0


def test_a_clock_that_was_put_back_can_be_put_forward_again() -> None:
    of_device = ear(Heard(T0, T0, T0))
    back = Heard(T0 - HOUR_MS + 1000, T0 + 1000, T0 + 1000)
    of_device.hear(back, is_put_back=True)
    assert of_device.clock_ahead_ms == -HOUR_MS
    assert of_device.put_forward_ms(Heard(T0 + 2000, T0 + 2000, T0 + 2000)) == HOUR_MS


@given(
    st.integers(-HOUR_MS, 60_000),
    st.integers(-5_000, 2 * HOUR_MS),
    st.integers(0, 10 * HOUR_MS),
    st.integers(0, 10 * HOUR_MS),
)
def test_it_is_never_later_than_what_passed_since_the_last_frame(
    ahead_ms: int, on_its_way_ms: int, lag: int, quiet_ms: int
) -> None:
    heard = Heard(T0 + ahead_ms, T0, T0 + on_its_way_ms)
    until_ms = ear(heard).silent_until_ms(lag, heard.read_ms + quiet_ms)
    assert until_ms <= heard.event_ms + quiet_ms - GRACE_MS
    assert until_ms <= heard.read_ms + quiet_ms - lag + ahead_ms - GRACE_MS
