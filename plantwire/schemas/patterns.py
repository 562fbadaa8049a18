"""Telemetry patterns as records: what a pattern file says, once it is known to be sound.

In: values that `schemas.pattern_files` has checked. Out: what the SQL and the alarms are made from.
Guarantees: immutable; every number finite and within its bound.
Not here: files (`schemas.pattern_files`), SQL (`domain.patterns`), alarms (`domain.pattern_alarms`).
"""

from __future__ import annotations

from typing import Final

import msgspec

RULE_PREFIX: Final = "pattern:"
"""Begins the `rule_id` of a pattern's alarms. No id of an alarm rule has a colon, so the two cannot be mixed
up: whoever keeps account of rules' alarms leaves these alone.
"""


class RiseThenDrop(msgspec.Struct, frozen=True, tag="rise_then_drop"):
    """`rises` samples in a row, each above the one before; then, at most `within_s` after the top, a value
    that is lower than the top by `drop_percent` of the top's magnitude, or by `drop_by`: one of the two.
    """

    rises: int
    within_s: int
    drop_percent: float | None = None
    drop_by: float | None = None


class Spikes(msgspec.Struct, frozen=True, tag="spikes"):
    """`count` spikes, of which the last is at most `within_s` after the first.

    A spike is a sample above `above` (below `below`) after one that was not, or one that differs from the
    one before by more than `change`: one of the three.
    """

    count: int
    within_s: int
    above: float | None = None
    below: float | None = None
    change: float | None = None


class Stuck(msgspec.Struct, frozen=True, tag="stuck"):
    """One and the same number for `for_s` or longer, in at least `samples` samples."""

    for_s: int
    samples: int


class Pattern(msgspec.Struct, frozen=True):
    """One pattern in one version: an alarm for each device and metric that shows `shape`."""

    pattern_id: str
    version: int
    devices: str
    metric: str
    severity: int
    message: str
    shape: RiseThenDrop | Spikes | Stuck
    hold_s: int
    """How long after its last match the alarm clears; not used where the shape itself ends (`Stuck`)."""

    @property
    def rule_id(self) -> str:
        """What its alarms carry as `rule_id`."""
        return RULE_PREFIX + self.pattern_id


def is_pattern_alarm(rule_id: str) -> bool:
    """Whether a pattern raised the alarms of this `rule_id`."""
    return rule_id.startswith(RULE_PREFIX)
