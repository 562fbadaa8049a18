"""Which frames the live paths take. Gateways ask the same before; this guards what others put on Kafka."""

from __future__ import annotations

from typing import Final

MAX_AHEAD_MS: Final = 120_000
"""How far a device's clock may be ahead. Further would make every later frame look late.

Twice what a gateway accepts at most, so that a frame that was acknowledged is not refused here because
this machine's clock is behind the gateway's.
"""


def is_too_far_ahead(event_time_ms: int, now_ms: int) -> bool:
    """Whether a frame claims to come from the future."""
    return event_time_ms > now_ms + MAX_AHEAD_MS
