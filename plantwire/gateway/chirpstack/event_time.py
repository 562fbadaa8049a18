"""Which of its times an event is stamped with. Pure: the present arrives as an argument.

In: the times that an event carries. Out: milliseconds since the epoch, and whether the first choice was
not believed.
Guarantees: the result is never further ahead of the gateway than allowed, and never before LoRaWAN.
Not here: reading times (`events`).

A LoRaWAN gateway with GNSS stamps what it receives, and ChirpStack passes that on as the event's time. A
receiver without a fix gives 1980, one with the week number rolled over is 1024 weeks off, and a drifting
clock runs ahead; the network server's clock is then the next best.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from plantwire.gateway.chirpstack.events import RxInfo

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
EARLIEST_MS: Final = 1_420_070_400_000
"""2015-01-01, the month of the LoRaWAN 1.0 specification: no uplink is older."""


def choose_event_time_ms(
    time: datetime | None, receptions: Iterable[RxInfo], received_ms: int, ahead_max_ms: int
) -> tuple[int, bool]:
    """The event's time; the earliest the network server had it; when it came here: the first credible one.

    The second value says that the event had a time and it was not credible.
    """
    if time is not None:
        time_ms = (time - _EPOCH) // _MILLISECOND
        if EARLIEST_MS <= time_ms <= received_ms + ahead_max_ms:
            return time_ms, False
    server_times_ms = [(r.ns_time - _EPOCH) // _MILLISECOND for r in receptions if r.ns_time is not None]
    credible_ms = [t for t in server_times_ms if EARLIEST_MS <= t <= received_ms + ahead_max_ms]
    return min(credible_ms, default=received_ms), time is not None
