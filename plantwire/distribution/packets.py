"""The events of the namespace /telemetry, encoded once for every recipient.

In: an event name and its JSON body, as bytes. Out: a `Packet` of this tier's namespace.
Guarantees: bodies are passed on byte for byte.
Not here: who receives it (`fanout`), the bytes on the wire (`platform.socket_packet`), how they are written
(`platform.socket_channel`).
"""

from __future__ import annotations

from typing import Final

import orjson

from plantwire.distribution.messages import AlarmHeader, TelemetryUpdate
from plantwire.platform import socket_packet

NAMESPACE: Final = "/telemetry"

ALL_GOOD: Final = b"{}"

EVENT_INITIAL_STATE: Final = "initial-state"
EVENT_TELEMETRY: Final = "telemetry"
EVENT_ALARM: Final = "alarm"
EVENT_ALARM_UPDATED: Final = "alarm-updated"
EVENT_ALARM_CLEARED: Final = "alarm-cleared"
EVENT_CATCH_UP: Final = "catch-up"
EVENT_SOURCE_STATUS: Final = "source-status"
EVENT_SESSION_ENDED: Final = "session-ended"


class Packet(socket_packet.Packet):
    """One event of this namespace."""

    __slots__ = ()

    def __init__(self, event: str, body: bytes) -> None:
        super().__init__(NAMESPACE, event, body)


def telemetry_packet(update: TelemetryUpdate) -> Packet:
    """The `telemetry` event of one device message; its values are passed on unparsed.

    The device id was checked at the edge to hold nothing that JSON escapes.
    """
    return Packet(EVENT_TELEMETRY, telemetry_body(update))


def telemetry_body(update: TelemetryUpdate) -> bytes:
    """`{seq, deviceId, timestamp, data, quality?}` as JSON; `quality` where not all values are good."""
    head = f'{{"seq":{update.seq},"deviceId":"{update.device_id}","timestamp":{update.timestamp},"data":'
    quality = bytes(update.quality)
    if quality == ALL_GOOD:
        return b"".join((head.encode(), bytes(update.metrics), b"}"))
    return b"".join((head.encode(), bytes(update.metrics), b',"quality":', quality, b"}"))


def with_emitted(header: AlarmHeader, body: bytes, emitted_ms: float) -> bytes:
    """`body` with `hops.emitted` added.

    An alarm as Plantwire writes it ends with its hops, so the value is spliced in; any other order
    costs a full parse.
    """
    hops = bytes(header.hops)
    emitted = f'"emitted":{emitted_ms:.3f}}}}}'.encode()
    if b"emitted" not in hops and body.endswith(b"}}") and body[:-1].endswith(hops):
        separator = b"," if len(hops) > len(b"{}") else b""
        return b"".join((body[:-2], separator, emitted))
    alarm = orjson.loads(body)
    alarm["hops"] = {**orjson.loads(hops), "emitted": round(emitted_ms, 3)}
    return orjson.dumps(alarm)
