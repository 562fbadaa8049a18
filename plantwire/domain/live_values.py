"""The live values of every device of a stream of frames, on whichever engine.

In: TelemetryFrame bodies with their keys, timers; where states are kept (`keeping`). Out: messages to show.
Guarantees: a device's values go out at most once per interval, the newest to win; what is held back comes
with a timer. A device that was silent for `STATE_LIFETIME_MS` is forgotten.
Not here: what is merged how (`domain.coalescing`), where messages go (the engines).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.coalescing import NOTHING, Pending, Value, due_ms, holds_back, merge, shown
from plantwire.domain.keeping import Counters, DeviceKeeper
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError

STATE_LIFETIME_MS: Final = 24 * 3600 * 1000
"""A device that was silent for a day starts afresh; its latest values stay in Redis."""

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Pending)


class LiveMessage(NamedTuple):
    """What a device shows next."""

    device_id: str
    timestamp_ms: int
    values: dict[str, Value]
    qualities: dict[str, int]
    """Of metrics that are not good."""


class LiveValues:
    """One message per device and `interval_ms`."""

    def __init__(self, interval_ms: int, counters: Counters) -> None:
        self._interval_ms = interval_ms
        self._count_left_out = counters("values_left_out")
        self._count_historical = counters("frames_historical")
        self._count_rejected = counters("frames_rejected")
        self._count_messages = counters("telemetry_messages")

    def take(self, body: bytes, key: str | None, keeper: DeviceKeeper, now_ms: int) -> LiveMessage | None:
        """Take a frame in; `key` is the record's, and `keeper` keeps what belongs to it."""
        try:
            frame = FRAME_CODEC.decode_fields(body)
        except UndecodableError:
            # Detection reads the same frame and sends it to the dead-letter topic.
            self.reject()
            return None
        return self.take_fields(frame, key, keeper, now_ms)

    def reject(self) -> None:
        """Count a record that is no frame."""
        self._count_rejected.inc()

    def take_fields(
        self, frame: dict[str, Any], key: str | None, keeper: DeviceKeeper, now_ms: int
    ) -> LiveMessage | None:
        """As `take`, of a frame that is decoded already."""
        historical = frame["historical"]
        if historical:
            self._count_historical.inc()
        if key != frame["device_id"] or is_too_far_ahead(frame["event_time_ms"], now_ms):
            self._count_rejected.inc()
            return None
        packed = keeper.load()
        if packed is None and historical:
            return None
        if packed is None:
            before = NOTHING._replace(look_again_ms=now_ms + STATE_LIFETIME_MS)
            keeper.set_timer(before.look_again_ms)
        else:
            before = _decoder.decode(packed)
        pending, left_out = merge(before, frame["metrics"], frame["event_time_ms"], historical=historical)
        if historical and pending == before:
            return None
        if left_out:
            self._count_left_out.inc(left_out)
        message = None
        due = due_ms(pending, self._interval_ms)
        if due is not None and due <= now_ms:
            message, pending = self._show(frame["device_id"], pending, now_ms)
        elif due is not None and not holds_back(before):
            keeper.set_timer(due)
        keeper.save(_encoder.encode(pending))
        return message

    def wake(self, device_id: str, timer_ms: int, keeper: DeviceKeeper) -> LiveMessage | None:
        """A device's timer of `timer_ms` has come."""
        packed = keeper.load()
        if packed is None:
            return None
        message = None
        pending = before = _decoder.decode(packed)
        if holds_back(pending):
            message, pending = self._show(device_id, pending, timer_ms)
        elif timer_ms >= pending.shown_ms + STATE_LIFETIME_MS:
            keeper.clear()
            return None
        if timer_ms >= pending.look_again_ms:
            pending = pending._replace(look_again_ms=pending.shown_ms + STATE_LIFETIME_MS)
            keeper.set_timer(pending.look_again_ms)
        if pending is not before:
            keeper.save(_encoder.encode(pending))
        return message

    def timers_of(self, packed: bytes) -> list[int]:
        """The timers of a device whose state is `packed`, for an engine that keeps none itself."""
        pending = _decoder.decode(packed)
        due = due_ms(pending, self._interval_ms)
        return [pending.look_again_ms] if due is None else [pending.look_again_ms, due]

    def _show(self, device_id: str, pending: Pending, now_ms: int) -> tuple[LiveMessage, Pending]:
        self._count_messages.inc()
        message = LiveMessage(device_id, pending.timestamp_ms, pending.values, pending.qualities)
        return message, shown(pending, now_ms)
