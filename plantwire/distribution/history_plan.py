"""Which tier answers a question for history, in which steps. Pure: the time is an argument.

In: the parameters of a request. Out: a `Plan`, or `PlanError` with a reason fit for the client.
Guarantees: times are aligned to whole steps in UTC; an automatic choice gives at most the wished number of
points, from a tier that still keeps all that the first one is made of, and reads at most `ROWS_PER_POINT_MAX`
rows for each; a cursor that was not made here is refused.
Not here: the query (`history_store`), who may ask (`history_api`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from plantwire.schemas.tiers import DAY_MS, HOUR_MS, MINUTE_MS, RAW, SECOND_MS, TIER_BY_NAME, TIERS, Tier

AUTO: Final = "auto"
RESOLUTIONS: Final = (AUTO, *TIER_BY_NAME)
DEFAULT_RANGE_MS: Final = HOUR_MS
TIME_MAX_MS: Final = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1000
# How densely raw samples are taken to lie, where their number has to be told beforehand.
RAW_STEP_MS: Final = 100
# The widths that an automatic choice may give to a point. Each divides a day, so that all agree on midnight.
STEPS_MS: Final = (
    *(n * SECOND_MS for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE_MS for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR_MS for n in (1, 2, 3, 6, 12)),
    DAY_MS,
)
ROWS_PER_POINT_MAX: Final = 30
# How much of a tier one request may span: beyond, the database would open thousands of chunks.
RANGE_MAX_MS: Final = {
    "raw": 31 * DAY_MS,
    "1s": 31 * DAY_MS,
    "1m": 3 * 366 * DAY_MS,
    "1h": 20 * 366 * DAY_MS,
    "1d": TIME_MAX_MS,
}


class PlanError(ValueError):
    """A request that cannot be answered; the text says why."""


@dataclass(frozen=True)
class Plan:
    """Points of `step_ms` (0: raw samples) from `tier`; `start_ms` ≤ point < `end_ms`, since the epoch."""

    tier: Tier
    step_ms: int
    start_ms: int
    end_ms: int

    @property
    def is_merged(self) -> bool:
        """Whether a point is made of several rows of the tier."""
        return self.step_ms > self.tier.step_ms

    def cursor(self, next_ms: int) -> str:
        """What to go on with at the point `next_ms`."""
        return f"{self.tier.name}.{self.step_ms}.{next_ms}.{self.end_ms}"


def plan_range(
    start: str | None,
    end: str | None,
    resolution: str,
    points: int,
    now_ms: int,
    kept_ms: Mapping[str, int | None],
    gone_before_ms: Mapping[str, int] | None = None,
) -> Plan:
    """The plan for [start, end); by default the hour until now. Raises PlanError.

    A time is ms since the epoch, or ISO 8601 with its offset. `points` bounds the automatic choice only,
    `kept_ms` tells for it how long each tier is kept (None: for ever), and `gone_before_ms` before when rows
    may be gone all the same.
    """
    end_ms = now_ms if end is None else parse_time(end, "to")
    start_ms = max(0, end_ms - DEFAULT_RANGE_MS) if start is None else parse_time(start, "from")
    if start_ms >= end_ms:
        raise PlanError("from is not before to")
    if resolution == AUTO:
        gone = gone_before_ms or {}
        since_ms = {
            name: max(0 if kept is None else now_ms - kept, gone.get(name, 0))
            for name, kept in kept_ms.items()
        }
        return _choose(start_ms, end_ms, points, since_ms)
    tier = TIER_BY_NAME.get(resolution)
    if tier is None:
        raise PlanError(f"resolution is none of {', '.join(RESOLUTIONS)}")
    if end_ms - start_ms > RANGE_MAX_MS[tier.name]:
        days = RANGE_MAX_MS[tier.name] // DAY_MS
        raise PlanError(f"a request for resolution {tier.name} may span {days} days")
    return _aligned(tier, tier.step_ms, start_ms, end_ms)


def plan_from_cursor(cursor: str) -> Plan:
    """The plan that a cursor goes on with; raises PlanError."""
    words = cursor.split(".")
    if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 15 for word in words[1:]):
        raise PlanError("the cursor is none of this interface")
    tier = TIER_BY_NAME.get(words[0])
    step_ms, start_ms, end_ms = (int(word) for word in words[1:])
    if (
        tier is None
        or not _fits(tier, step_ms)
        or not start_ms < end_ms <= TIME_MAX_MS
        or end_ms - start_ms > RANGE_MAX_MS[tier.name]
        or (step_ms and start_ms % step_ms)
    ):
        raise PlanError("the cursor is none of this interface")
    return Plan(tier, step_ms, start_ms, end_ms)


def parse_time(text: str, name: str) -> int:
    """ms since the epoch, from the number or from ISO 8601 with an offset; raises PlanError."""
    if text.isascii() and text.isdigit() and len(text) < 15:
        time_ms = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise PlanError(f"{name} is neither ms since the epoch nor an ISO 8601 time") from None
        if moment.tzinfo is None:
            raise PlanError(f"{name} lacks its offset from UTC: end it with Z, or +hh:mm with the + as %2B")
        time_ms = round(moment.timestamp() * 1000)
    if not 0 <= time_ms <= TIME_MAX_MS:
        raise PlanError(f"{name} is not between 1970 and 2200")
    return time_ms


def _choose(start_ms: int, end_ms: int, points: int, since_ms: Mapping[str, int]) -> Plan:
    """The finest step that gives at most `points`, from the coarsest tier that has it.

    What the first point is made of is all kept: it begins where its step does, not where the range does.
    """
    span_ms = end_ms - start_ms
    if span_ms <= points * RAW_STEP_MS and start_ms >= since_ms[RAW.name]:
        return _aligned(RAW, 0, start_ms, end_ms)
    for step_ms in STEPS_MS:
        tier = next(tier for tier in reversed(TIERS) if 0 < tier.step_ms <= step_ms)
        plan = _aligned(tier, step_ms, start_ms, end_ms)
        if (
            plan.end_ms - plan.start_ms <= points * step_ms
            and span_ms <= RANGE_MAX_MS[tier.name]
            and plan.start_ms >= since_ms[tier.name]
        ):
            return plan
    # Longer than `points` days: all days, page by page.
    return _aligned(TIERS[-1], DAY_MS, start_ms, end_ms)


def _fits(tier: Tier, step_ms: int) -> bool:
    if tier is RAW:
        return step_ms == 0
    is_multiple = step_ms % tier.step_ms == 0 and step_ms <= tier.step_ms * ROWS_PER_POINT_MAX
    return step_ms in STEPS_MS and is_multiple


def _aligned(tier: Tier, step_ms: int, start_ms: int, end_ms: int) -> Plan:
    """The first point is the one that `start_ms` lies in."""
    return Plan(tier, step_ms, start_ms - (start_ms % step_ms if step_ms else 0), end_ms)
