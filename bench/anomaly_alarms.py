"""What alarms a series of scores would raise, and how they lie to what is known to be wrong.

In: scores with their times, windows in which something is wrong. Out: alarms, the limit for a budget of
alarms, precision, recall and lead time.
Guarantees: pure. A limit for a budget is found from the scores alone; the windows are not looked at.
Not here: what gives the scores (`anomaly_detectors`).

An alarm is raised by a score at or above the limit and lasts until none was for `off_delay_s`, as one of a
rule with that off-delay.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import groupby
from math import inf
from typing import NamedTuple

import msgspec


class Window(NamedTuple):
    """From when to when something is wrong, in seconds."""

    start_s: float
    end_s: float


class Judged(msgspec.Struct, frozen=True):
    """Alarms held against windows. Lead times are from a window's start to the first alarm in it."""

    limit: float
    alarms: int
    true_alarms: int
    """Raised within a window."""
    windows_found: int
    windows: int
    precision: float
    recall: float
    false_alarms_per_day: float
    lead_h: tuple[float | None, ...]
    """Per window; None where it was not found."""


def alarms_at(
    scores: Sequence[float], times_s: Sequence[float], limit: float, off_delay_s: float
) -> list[int]:
    """The places at which alarms are raised."""
    raised: list[int] = []
    last_s = -inf
    for place, score in enumerate(scores):
        if score >= limit:
            if times_s[place] - last_s > off_delay_s:
                raised.append(place)
            last_s = times_s[place]
    return raised


def limit_for(scores: Sequence[float], times_s: Sequence[float], budget: int, off_delay_s: float) -> float:
    """The lowest limit above 0 down to which there are never more than `budget` alarms; infinite where even
    the highest score alone gives more.
    """
    by_score = sorted(range(len(scores)), key=lambda place: -scores[place])
    above: list[int] = []
    alarms = 0
    limit = inf

    def gap(earlier: int, later: int) -> int:
        return times_s[above[later]] - times_s[above[earlier]] > off_delay_s

    for score, places in groupby(by_score, key=lambda place: scores[place]):
        for place in places:
            at = bisect(above, place)
            above.insert(at, place)
            has_before, has_after = at > 0, at + 1 < len(above)
            if has_before and has_after:
                alarms -= times_s[above[at + 1]] - times_s[above[at - 1]] > off_delay_s
            alarms += gap(at - 1, at) if has_before else 1
            if has_after:
                alarms += gap(at, at + 1) - (0 if has_before else 1)
        if alarms > budget or score <= 0.0:
            break
        limit = score
    return limit


def judge(
    scores: Sequence[float],
    times_s: Sequence[float],
    windows: Sequence[Window],
    limit: float,
    off_delay_s: float,
) -> Judged:
    """The alarms at a limit, held against the windows."""
    raised_s = [times_s[place] for place in alarms_at(scores, times_s, limit, off_delay_s)]
    true = sum(any(start <= at <= end for start, end in windows) for at in raised_s)
    lead_h = [
        next((round((at - start) / 3600.0, 1) for at in raised_s if start <= at <= end), None)
        for start, end in windows
    ]
    found = sum(lead is not None for lead in lead_h)
    days = (times_s[-1] - times_s[0]) / 86_400.0
    return Judged(
        limit=limit,
        alarms=len(raised_s),
        true_alarms=true,
        windows_found=found,
        windows=len(windows),
        precision=round(true / len(raised_s), 3) if raised_s else 0.0,
        recall=round(found / len(windows), 3),
        false_alarms_per_day=round((len(raised_s) - true) / days, 3),
        lead_h=tuple(lead_h),
    )
