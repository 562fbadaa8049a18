"""What a peer engine is asked to do, and the detection step that is the same in each.

In: an order file named by the environment variable `BENCH_ORDER`. Out: decoded frames judged by the domain.
Guarantees: the same checks and the same hop stamps as the Flink job's function, so that every engine
does the same work per frame and gives the same bytes but for the stamps.
Not here: how an engine reads, keys, keeps state and writes (the modules beside this one).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.domain.detection import DeviceDetector, FrameFields
from plantwire.domain.packed_state import pack, unpack
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC
from plantwire.schemas.frame_layout import FrameReader, FrameReading
from plantwire.schemas.records import AlarmRule
from plantwire.schemas.topics import HEADER_FINGERPRINT

ORDER_VARIABLE: Final = "BENCH_ORDER"
ALARM_HEADERS: Final[list[tuple[str, str | bytes | None]]] = [
    (HEADER_FINGERPRINT, ALARM_CODEC.fingerprint.encode())
]


class EngineOrder(msgspec.Struct, frozen=True):
    """Topics, group and rules of one run."""

    bootstrap: str
    frames_topic: str
    alarms_topic: str
    group: str
    state_folder: str
    checkpoint_interval_s: float
    rules: tuple[AlarmRule, ...]
    by_layout: bool
    """Whether frames are read by their layout first, as the Flink job does, or each is decoded whole."""


def read_order() -> EngineOrder:
    """The order of this process; raises SystemExit where there is none."""
    path = os.environ.get(ORDER_VARIABLE)
    if path is None:
        raise SystemExit(f"{ORDER_VARIABLE} is not set; engines are started by bench.detection")
    return msgspec.json.decode(Path(path).read_bytes(), type=EngineOrder)


class OpenedFrame(NamedTuple):
    """A frame as far as it had to be read: by its layout, or decoded."""

    device_id: str
    reading: FrameReading | None
    fields: dict[str, Any] | None


class DetectionStep:
    """From a frame's bytes to the bytes of its alarm events."""

    def __init__(self, order: EngineOrder) -> None:
        self._book = RuleBook(order.rules)
        self._reader = FrameReader() if order.by_layout else None

    def restore(self, device_id: str, packed: bytes | None) -> DeviceDetector:
        """A device's detector, with the state that the engine kept, if any."""
        site, state = unpack(packed) if packed is not None else ("", {})
        detector = DeviceDetector(device_id, self._book.for_device(device_id), state)
        detector.site = site
        return detector

    def save(self, detector: DeviceDetector) -> bytes | None:
        """The state that the engine must keep; None where there is nothing to remember."""
        return pack(detector.site, detector.state) if detector.state else None

    def open(self, body: bytes) -> OpenedFrame:
        """Read a frame far enough to know whose it is."""
        reading = self._reader.read(body) if self._reader is not None else None
        if reading is not None:
            return OpenedFrame(reading.layout.device_id, reading, None)
        fields = self._decode(body)
        return OpenedFrame(fields["device_id"], None, fields)

    def judge(
        self, detector: DeviceDetector, frame: OpenedFrame, body: bytes, detect_in_us: int
    ) -> list[bytes]:
        """The bodies of the alarm events that a frame causes, nearly always none."""
        latest_ms = detect_in_us // 1000 + MAX_AHEAD_MS
        reading = frame.reading
        if (
            reading is not None
            and not reading.layout.historical
            and reading.event_time_ms <= latest_ms
            and detector.passes(reading.layout.names, reading.numbers, reading.event_time_ms)
        ):
            return []
        fields = frame.fields if frame.fields is not None else self._decode(body)
        event_time_ms = fields["event_time_ms"]
        if fields["historical"] or event_time_ms > latest_ms:
            return []
        return [
            ALARM_CODEC.encode(
                msgspec.structs.replace(
                    event,
                    device_us=event_time_ms * 1000,
                    gateway_in_us=fields["gateway_in_us"],
                    gateway_out_us=fields["gateway_out_us"],
                    detect_in_us=detect_in_us,
                    detect_out_us=time.time_ns() // 1000,
                )
            )
            for event in detector.take_frame(cast(FrameFields, fields), detect_in_us // 1000)
        ]

    def _decode(self, body: bytes) -> dict[str, Any]:
        fields = FRAME_CODEC.decode_fields(body)
        if self._reader is not None:
            self._reader.learn(body, fields)
        return fields
