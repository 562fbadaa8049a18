"""How long to wait before trying again. Pure: chance arrives as an argument.

In: how often it failed. Out: seconds. Not here: the waiting.
"""

from __future__ import annotations


def jittered_backoff_s(failures: int, first_s: float, longest_s: float, chance: float) -> float:
    """Seconds to wait after `failures` (1 or more) failures in a row.

    The ceiling doubles with each failure from `first_s` up to `longest_s`; `chance` in [0, 1) picks a point
    in its upper half, so that those that lost a server together do not come back together.
    """
    ceiling_s = min(longest_s, first_s * 2.0 ** min(failures - 1, 32))
    return ceiling_s * (0.5 + 0.5 * chance)
