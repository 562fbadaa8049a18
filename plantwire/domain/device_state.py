"""What is remembered of a device between its frames.

In, Out: plain tuples in a dict by (rule, metric).
Guarantees: replaced, never changed in place: whoever stores a state sees by identity whether it must.
Not here: who changes it (`domain.detection`, `domain.missing`), bytes (`domain.packed_state`).
"""

from __future__ import annotations

from typing import NamedTuple

from plantwire.domain.alarm_events import Alarm
from plantwire.domain.limits import LimitState


class Tracked(NamedTuple):
    """One rule on one metric of one device, while there is something to remember."""

    limit: LimitState
    alarm: Alarm | None
    newest_ms: int = 0
    """Event time of the newest value judged: what is late must be the same on a replay.

    Of a silence: no value was seen after it. While values keep coming it is ahead of them, so that it need
    not be stored with each; once they stay away it is the last one's time.
    """
    silence: bool = False
    """Whether data are waited for, instead of values judged; then `limit` has no parts."""


Key = tuple[str, str]
"""(rule id, metric); an empty metric is the device as a whole."""
DeviceState = dict[Key, Tracked]
"""What is remembered of a device; empty while all is normal and no data are waited for."""
