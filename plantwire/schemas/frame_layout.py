"""Reading frames by their layout: after a device's first frame, the next cost a fraction of it.

In: TelemetryFrame bodies. Out: a frame's time and numbers, and what it shares with others of its device.
Guarantees: a body is read by a layout only if every byte outside its numbers and times is the same as in
the body that the layout was learnt from, and its times are whole varints; what is read is then what
`FRAME_CODEC` reads (a property test holds it to that). Everything else is left to the codec.
Not here: other records, and frames with text, bad quality or times of single metrics (`schemas.codec`).

A device sends the same metrics in the same order, again and again. In Avro's binary encoding such frames
differ only in the eight bytes of each number and in the varints of their times, as long as these keep
their lengths. So a layout is one `struct` format that cuts a body into fixed pieces, times and numbers.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import Any, Final, NamedTuple

from plantwire.schemas.records import QUALITY_GOOD

MAX_NUMBERS: Final = 500_000
"""Numbers in all the layouts remembered, about 100 MB; the layouts learnt first go first."""
MAX_RELEARNT: Final = 16
"""A device whose frames keep their length but not their layout is left to the codec after so many."""

_SHORT_TEXT: Final = 0x80
_VARINT_MAX_BYTES: Final = 8


class FrameReading(NamedTuple):
    """A frame read by its layout: `numbers[i]` belongs to `layout.names[i]`, all of good quality."""

    layout: FrameLayout
    event_time_ms: int
    numbers: tuple[float, ...]
    times: int
    """The varints of the frame's first times as they lie in the body."""

    @property
    def received_time_ms(self) -> int:
        """When the gateway received it; taken out of `times` only for those who ask."""
        return self.layout.received_time_ms(self.times)


class FrameLayout:
    """What the frames of one shape of one device have in common."""

    __slots__ = (
        "_event_mask",
        "_event_shift",
        "_fixed",
        "_pick_fixed",
        "_pick_numbers",
        "_received_shift",
        "_struct",
        "_times",
        "device_id",
        "historical",
        "names",
        "relearnt",
        "site",
    )

    def __init__(self, body: bytes, frame: dict[str, Any], pieces: _Pieces, relearnt: int) -> None:
        self.device_id: str = frame["device_id"]
        self.site: str = frame["site"]
        self.historical: bool = frame["historical"]
        self.names: tuple[str, ...] = tuple(metric["name"] for metric in frame["metrics"])
        self.relearnt = relearnt
        self._struct = struct.Struct("<" + "".join(pieces.formats))
        self._pick_fixed = itemgetter(*pieces.fixed)
        self._pick_numbers = itemgetter(*pieces.numbers)
        self._times = tuple((index, *_varint_ends(lengths)) for index, lengths in pieces.times)
        *before_event, event_bytes, _received_bytes = pieces.times[0][1]
        self._event_shift = 8 * sum(before_event)
        self._received_shift = self._event_shift + 8 * event_bytes
        self._event_mask = (1 << 8 * event_bytes) - 1
        self._fixed = self._pick_fixed(self._struct.unpack(body))

    def read(self, body: bytes) -> FrameReading | None:
        """The frame in `body`, which has the layout's length; None when it is of another layout."""
        values = self._struct.unpack(body)
        if self._pick_fixed(values) != self._fixed:
            return None
        (first, first_mask, first_ends), (last, last_mask, last_ends) = self._times
        times = int.from_bytes(values[first], "little")
        if times & first_mask != first_ends or (
            int.from_bytes(values[last], "little") & last_mask != last_ends
        ):
            return None
        event_time_ms = _long(times >> self._event_shift & self._event_mask)
        return FrameReading(self, event_time_ms, self._pick_numbers(values), times)

    def received_time_ms(self, times: int) -> int:
        """The last of the times that `FrameReading.times` holds."""
        return _long(times >> self._received_shift)


class FrameReader:
    """Layouts by device and length. Not shared between threads."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[bytes, int], FrameLayout] = {}
        self._numbers = 0

    def read(self, body: bytes) -> FrameReading | None:
        """The frame in `body`, if its layout was learnt; None leaves it to the codec."""
        if not body:
            return None
        layout = self._layouts.get((body[: 1 + (body[0] >> 1)], len(body)))
        return layout.read(body) if layout is not None else None

    def learn(self, body: bytes, frame: dict[str, Any]) -> None:
        """Remember the layout of `body`, which the codec read as `frame`, if it has one."""
        key = (body[: 1 + (body[0] >> 1)], len(body))
        known = self._layouts.get(key)
        relearnt = known.relearnt + 1 if known is not None else 0
        if relearnt > MAX_RELEARNT:
            return
        pieces = _cut(body, frame)
        if pieces is None:
            return
        if known is not None:
            self._forget(key)
        layout = FrameLayout(body, frame, pieces, relearnt)
        self._layouts[key] = layout
        self._numbers += len(layout.names)
        while self._numbers > MAX_NUMBERS:
            self._forget(next(iter(self._layouts)))

    def _forget(self, key: tuple[bytes, int]) -> None:
        self._numbers -= len(self._layouts.pop(key).names)


class _Pieces(NamedTuple):
    """A body cut up: struct formats, and the indices of the pieces by kind."""

    formats: list[str]
    fixed: list[int]
    numbers: list[int]
    times: list[tuple[int, list[int]]]
    """(index, byte lengths of the varints in it)."""


def _cut(body: bytes, frame: dict[str, Any]) -> _Pieces | None:
    """Cut `body` where its numbers and times are; None when it is not of the simple kind.

    The field order is that of TelemetryFrame.avsc; a field added at its end leaves bytes over, and
    then there is no layout until it is dealt with here.
    """
    metrics = frame["metrics"]
    simple = len(metrics) > 1 and all(
        metric["number"] is not None
        and metric["text"] is None
        and metric["quality"] == QUALITY_GOOD
        and metric["event_time_ms"] is None
        for metric in metrics
    )
    if not simple or body[0] >= _SHORT_TEXT:
        return None
    cutter = _Cutter(body)
    cutter.skip_text()  # device_id
    cutter.skip_text()  # site
    has_sequence = cutter.skip_varint() == 2
    times = [cutter.varint_bytes_at(0)] if has_sequence else []
    times.append(cutter.varint_bytes_at(sum(times)))  # event_time_ms
    times.append(cutter.varint_bytes_at(sum(times)))  # received_time_ms
    cutter.cut_times(times)
    cutter.skip_text()  # protocol
    cutter.position += 1  # historical
    if cutter.skip_varint() != 2 * len(metrics):  # several blocks, or a block with its size
        return None
    for _ in metrics:
        cutter.skip_text()
        cutter.position += 1  # number, not null
        cutter.cut_number()
        cutter.position += 1  # text, null
        cutter.skip_varint()  # quality
        cutter.position += 1  # event_time_ms, null
    cutter.position += 1  # end of the array
    times = [cutter.varint_bytes_at(0)]
    times.append(cutter.varint_bytes_at(times[0]))
    cutter.cut_times(times)
    if frame["edge_state"]:
        return None
    # Empty, one byte, and compared like everything fixed; a body of the former schema ends before it.
    cutter.position += cutter.position < len(body)
    cutter.cut_rest()
    whole = cutter.position == len(body) and all(
        length <= _VARINT_MAX_BYTES for _, lengths in cutter.pieces.times for length in lengths
    )
    return cutter.pieces if whole else None


class _Cutter:
    """Walks over a body that the codec has read, so every step is within it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._cut_to = 0
        self.position = 0
        self.pieces = _Pieces([], [], [], [])

    def skip_varint(self) -> int:
        """Pass over a varint; answers its first byte, which is all of it for small ones."""
        first = self._body[self.position]
        self.position += self.varint_bytes_at(0)
        return first

    def skip_text(self) -> None:
        length = self.varint_bytes_at(0)
        encoded = int.from_bytes(self._body[self.position : self.position + length], "little")
        self.position += length + _long(encoded)

    def varint_bytes_at(self, offset: int) -> int:
        """The byte length of the varint that begins `offset` bytes on."""
        end = self.position + offset
        while self._body[end] & 0x80:
            end += 1
        return end + 1 - self.position - offset

    def cut_times(self, lengths: list[int]) -> None:
        self._cut_fixed()
        self.pieces.times.append((len(self.pieces.formats), lengths))
        self.pieces.formats.append(f"{sum(lengths)}s")
        self.position += sum(lengths)
        self._cut_to = self.position

    def cut_number(self) -> None:
        self._cut_fixed()
        self.pieces.numbers.append(len(self.pieces.formats))
        self.pieces.formats.append("d")
        self.position += 8
        self._cut_to = self.position

    def cut_rest(self) -> None:
        self._cut_fixed()

    def _cut_fixed(self) -> None:
        self.pieces.fixed.append(len(self.pieces.formats))
        self.pieces.formats.append(f"{self.position - self._cut_to}s")


def _varint_ends(lengths: list[int]) -> tuple[int, int]:
    """(mask, value) that the continuation bits of varints of these lengths have, read little-endian."""
    bits = b"".join(b"\x80" * (length - 1) + b"\x00" for length in lengths)
    return int.from_bytes(b"\x80" * len(bits), "little"), int.from_bytes(bits, "little")


def _long(encoded: int) -> int:
    """The long in a varint of up to eight bytes, read little-endian: close the gaps, then un-zigzag."""
    joined = encoded & 0x7F7F7F7F7F7F7F7F
    joined = (joined & 0x007F007F007F007F) | ((joined & 0x7F007F007F007F00) >> 1)
    joined = (joined & 0x00003FFF00003FFF) | ((joined & 0x3FFF00003FFF0000) >> 2)
    joined = (joined & 0x0FFFFFFF) | ((joined & 0x0FFFFFFF00000000) >> 4)
    return (joined >> 1) ^ -(joined & 1)
