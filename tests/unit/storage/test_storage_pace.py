"""Steps become small enough to be through, and large again."""

from __future__ import annotations

from plantwire.storage.pace import SHORT_S, Pace


def test_a_step_that_was_given_up_is_followed_by_smaller_ones_down_to_one() -> None:
    pace = Pace(100)
    sizes = [pace.size]
    while pace.given_up():
        sizes.append(pace.size)
    assert sizes == [100, 25, 6, 1]
    assert pace.size == 1


def test_it_grows_again_only_while_steps_are_short() -> None:
    pace = Pace(100)
    assert pace.given_up()
    pace.took(SHORT_S)
    assert pace.size == 25
    for _ in range(5):
        pace.took(SHORT_S / 2)
    assert pace.size == 100
