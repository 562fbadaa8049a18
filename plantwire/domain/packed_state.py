"""A device's alarm state as one byte string: in savepoints, in a gateway's buffer, and from one to the other.

In Flink's thread mode keyed state crosses into Python by way of pickle (a primitive byte array would
even become a tuple of ints). One packed byte string per device pickles in a moment, keeps a layout of
our own in savepoints, and is read once and written on change.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from plantwire.domain.alarm_events import Alarm
from plantwire.domain.device_state import DeviceState, Tracked
from plantwire.domain.limits import NORMAL, LimitState
from plantwire.schemas.severity import Severity

# The first byte names the layout. A new layout gets the next number, and the old ones stay readable. What the
# first can say is still written in it, so that a former version reads it as long as no data are waited for.
_LAYOUT_1: Final = b"\x01"
_LAYOUT_2: Final = b"\x02"

_SEVERITIES: Final = frozenset(Severity)
# Counts are Avro ints, and there must be room to count on; times are longs.
_COUNT_END: Final = 2**31 - 2**16
_TIME_END: Final = 2**63
# To the time of the last value the longest silence that a rule allows is added, and must be a time still.
_SEEN_END: Final = 2**62


class _Tracked1(NamedTuple):
    """`Tracked` as layout 1 has it."""

    limit: LimitState
    alarm: Alarm | None
    newest_ms: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder_1: Final = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, str, _Tracked1]]])
_decoder_2: Final = msgspec.msgpack.Decoder(tuple[str, int, list[tuple[str, str, Tracked]]])


class UnknownLayoutError(ValueError):
    """The bytes are no alarm state of a layout that this version knows."""


class Unpacked(NamedTuple):
    """What is kept of a device."""

    site: str
    state: DeviceState
    clock_ahead_ms: int | None
    """How far the device's clock was ahead of its gateway's; kept while data are waited for."""


def pack(site: str, state: DeviceState, clock_ahead_ms: int = 0) -> bytes:
    """A device's site and alarm state as bytes; its clock too, where data are waited for."""
    if any(tracked.silence for tracked in state.values()):
        rows = [(rule, metric, tracked) for (rule, metric), tracked in state.items()]
        return _LAYOUT_2 + _encoder.encode((site, clock_ahead_ms, rows))
    rows_1 = [(rule, metric, tracked[:3]) for (rule, metric), tracked in state.items()]
    return _LAYOUT_1 + _encoder.encode((site, rows_1))


def unpack(packed: bytes) -> tuple[str, DeviceState]:
    """Site and alarm state out of what `pack` made; raises `UnknownLayoutError`, also for a state that no
    detector can be in.
    """
    site, state, _ = unpack_with_clock(packed)
    return site, state


def unpack_with_clock(packed: bytes) -> Unpacked:
    """The inverse of `pack`; raises as `unpack`."""
    layout = packed[:1]
    ahead_ms: int | None = None
    try:
        if layout == _LAYOUT_1:
            site, rows_1 = _decoder_1.decode(packed[1:])
            rows = [(rule, metric, Tracked(*tracked)) for rule, metric, tracked in rows_1]
        elif layout == _LAYOUT_2:
            site, ahead_ms, rows = _decoder_2.decode(packed[1:])
        else:
            raise UnknownLayoutError(f"alarm state of layout {layout.hex() or 'none'}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownLayoutError(f"alarm state: {error}") from None
    # A frame brings one from outside: what no detector writes must not end the one that reads it.
    if (
        not all(_is_possible(tracked) for _, _, tracked in rows)
        or not -_SEEN_END <= (ahead_ms or 0) < _SEEN_END
    ):
        raise UnknownLayoutError("alarm state: it contradicts itself")
    return Unpacked(site, {(rule, metric): tracked for rule, metric, tracked in rows}, ahead_ms)


def _is_possible(tracked: Tracked) -> bool:
    """Whether a detector can go on from it, and can tell what comes of it."""
    limit, alarm, newest_ms, silence = tracked
    if silence and (limit.parts or not -_SEEN_END <= newest_ms < _SEEN_END):
        return False
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
