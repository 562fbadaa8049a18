"""A device's alarm state as one byte string: in savepoints, in a gateway's buffer, and from one to the other.

In Flink's thread mode keyed state crosses into Python by way of pickle (a primitive byte array would
even become a tuple of ints). One packed byte string per device pickles in a moment, keeps a layout of
our own in savepoints, and is read once and written on change.
"""

from __future__ import annotations

from typing import Final

import msgspec

from plantwire.domain.detection import DeviceState, Tracked

# The first byte names the layout. A new layout gets the next number, and the old ones stay readable.
_LAYOUT_1: Final = b"\x01"

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, str, Tracked]]])


class UnknownLayoutError(ValueError):
    """The bytes are no alarm state of a layout that this version knows."""


def pack(site: str, state: DeviceState) -> bytes:
    """A device's site and alarm state as bytes."""
    return _LAYOUT_1 + _encoder.encode((site, [(rule, metric, t) for (rule, metric), t in state.items()]))


def unpack(packed: bytes) -> tuple[str, DeviceState]:
    """The inverse of `pack`; raises `UnknownLayoutError`."""
    if packed[:1] != _LAYOUT_1:
        raise UnknownLayoutError(f"alarm state of layout {packed[:1].hex() or 'none'}")
    try:
        site, rows = _decoder.decode(packed[1:])
    except msgspec.DecodeError as error:
        raise UnknownLayoutError(f"alarm state: {error}") from None
    return site, {(rule, metric): tracked for rule, metric, tracked in rows}
