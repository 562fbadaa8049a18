"""A device's alarm state as one byte string: in savepoints, in a gateway's buffer, and from one to the other.

In Flink's thread mode keyed state crosses into Python by way of pickle (a primitive byte array would
even become a tuple of ints). One packed byte string per device pickles in a moment, keeps a layout of
our own in savepoints, and is read once and written on change.
"""

from __future__ import annotations

from typing import Final

import msgspec

from plantwire.domain.detection import DeviceState, Tracked
from plantwire.domain.limits import NORMAL
from plantwire.schemas.severity import Severity

# The first byte names the layout. A new layout gets the next number, and the old ones stay readable.
_LAYOUT_1: Final = b"\x01"

_SEVERITIES: Final = frozenset(Severity)
# Counts are Avro ints, and there must be room to count on; times are longs.
_COUNT_END: Final = 2**31 - 2**16
_TIME_END: Final = 2**63

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, str, Tracked]]])


class UnknownLayoutError(ValueError):
    """The bytes are no alarm state of a layout that this version knows."""


def pack(site: str, state: DeviceState) -> bytes:
    """A device's site and alarm state as bytes."""
    return _LAYOUT_1 + _encoder.encode((site, [(rule, metric, t) for (rule, metric), t in state.items()]))


def unpack(packed: bytes) -> tuple[str, DeviceState]:
    """The inverse of `pack`; raises `UnknownLayoutError`, also for a state that no detector can be in."""
    if packed[:1] != _LAYOUT_1:
        raise UnknownLayoutError(f"alarm state of layout {packed[:1].hex() or 'none'}")
    try:
        site, rows = _decoder.decode(packed[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownLayoutError(f"alarm state: {error}") from None
    # A frame brings one from outside: what no detector writes must not end the one that reads it.
    if not all(_is_possible(tracked) for _, _, tracked in rows):
        raise UnknownLayoutError("alarm state: it contradicts itself")
    return site, {(rule, metric): tracked for rule, metric, tracked in rows}


def _is_possible(tracked: Tracked) -> bool:
    """Whether a detector can go on from it, and can tell what comes of it."""
    limit, alarm, newest_ms = tracked
    times = [limit.changed_ms, newest_ms, *(part.due_ms for part in limit.parts)]
    if not all(part.severity in _SEVERITIES for part in limit.parts):
        return False
    if alarm is None:
        return limit.level == NORMAL and all(-_TIME_END <= time_ms < _TIME_END for time_ms in times)
    return (
        (limit.level == NORMAL or limit.level in _SEVERITIES)
        and alarm.severity in _SEVERITIES
        and 0 < alarm.revision < _COUNT_END
        and 0 < alarm.raises < _COUNT_END
        and all(-_TIME_END <= time_ms < _TIME_END for time_ms in (alarm.raise_ms, *times))
    )
