"""Since when what a tier is computed from is whole.

In: settings, what the database knows of retention. Out: the time before which a sample is too late.
Guarantees: a tier is computed only from time that nothing was deleted from yet, also after a tier is to be
kept longer than it was, and while another process still goes by other settings.
Not here: what deletes, and its notes (`retention`, `policies`).

A sample changes its second, minute, hour and day, each computed from all rows of the tier below. So the raw
samples have to be whole since its second, the 1 s tier since its minute, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from plantwire.schemas.tiers import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from plantwire.storage.migration import Connection
from plantwire.storage.policies import days_in_force
from plantwire.storage.settings import StorageSettings

MARGIN_MS: Final = HOUR_MS
"""How long before its tier goes a sample is too late for it, so that the tiers above are computed in time."""
_BUCKETS_MS: Final = {
    "device_telemetry": SECOND_MS,
    "telemetry_1s": MINUTE_MS,
    "telemetry_1m": HOUR_MS,
    "telemetry_1h": DAY_MS,
}
"""Of each relation, the bucket that is computed from it."""


class Bound(NamedTuple):
    """What the database knows of one relation."""

    gone_before_ms: int = 0
    """Rows before it may have been deleted."""
    days: int = 0
    """How far back its policies keep it and compute from it; 0 where none does, or without end."""


Bounds = Mapping[str, Bound]


def read_bounds(connection: Connection) -> dict[str, Bound]:
    """What the database knows; raises psycopg.Error."""
    rows = connection.execute(
        "SELECT relation, (extract(epoch FROM gone_before) * 1000)::bigint FROM storage_retention"
    )
    gone_before_ms: dict[str, int] = dict(rows.fetchall())
    days = days_in_force(connection)
    return {
        relation: Bound(gone_before_ms.get(relation, 0), days.get(relation, 0)) for relation in _BUCKETS_MS
    }


def horizon_ms(settings: StorageSettings, bounds: Bounds, now_ms: int) -> int:
    """Samples before this are too late for the tiers; 0 where none is."""
    keeps = {
        "device_telemetry": settings.storage_keep_raw_days,
        "telemetry_1s": settings.storage_keep_1s_days,
        "telemetry_1m": settings.storage_keep_1m_days,
        "telemetry_1h": settings.storage_keep_1h_days,
    }
    horizon = 0
    for relation, bucket_ms in _BUCKETS_MS.items():
        bound = bounds.get(relation, Bound())
        whole_since_ms = bound.gone_before_ms
        for days in (keeps[relation], bound.days):
            if days:
                whole_since_ms = max(whole_since_ms, now_ms - days * DAY_MS)
        if whole_since_ms > 0:
            horizon = max(horizon, -(-(whole_since_ms + MARGIN_MS) // bucket_ms) * bucket_ms)
    return horizon
