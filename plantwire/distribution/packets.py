"""Socket.IO events as the bytes that go on the wire, encoded once for every recipient.

In: an event name and its JSON body, as bytes. Out: a `Packet`: the text of one WebSocket message, and
the ready frame.
Guarantees: the text is what python-socketio's `emit` sends for the same event; bodies are passed on
byte for byte.
Not here: who receives it (`fanout`), how it is written (`channel`).
"""

from __future__ import annotations

from typing import Final

import orjson
from websockets.frames import Frame, Opcode

from plantwire.distribution.messages import AlarmHeader, TelemetryUpdate

NAMESPACE: Final = "/telemetry"

EVENT_INITIAL_STATE: Final = "initial-state"
EVENT_TELEMETRY: Final = "telemetry"
EVENT_ALARM: Final = "alarm"
EVENT_ALARM_UPDATED: Final = "alarm-updated"
EVENT_ALARM_CLEARED: Final = "alarm-cleared"
EVENT_CATCH_UP: Final = "catch-up"
EVENT_SOURCE_STATUS: Final = "source-status"
EVENT_SESSION_ENDED: Final = "session-ended"

# Engine.IO message (4), Socket.IO event (2), namespace.
_PREFIX: Final = f'42{NAMESPACE},["'.encode()
CONNECTED_PREFIX: Final = f"40{NAMESPACE},"
DISCONNECTED_PREFIX: Final = f"41{NAMESPACE}"


class Packet:
    """One event, encoded. `text` is the message, `frame` the unmasked WebSocket text frame around it."""

    __slots__ = ("event", "frame", "text")

    def __init__(self, event: str, body: bytes) -> None:
        self.event = event
        self.text = b"".join((_PREFIX, event.encode(), b'",', body, b"]"))
        self.frame = Frame(Opcode.TEXT, self.text).serialize(mask=False)


def telemetry_packet(update: TelemetryUpdate) -> Packet:
    """The `telemetry` event of one device message; its values are passed on unparsed.

    The device id was checked at the edge to hold nothing that JSON escapes.
    """
    return Packet(EVENT_TELEMETRY, telemetry_body(update))


def telemetry_body(update: TelemetryUpdate) -> bytes:
    """`{seq, deviceId, timestamp, data}` as JSON."""
    head = f'{{"seq":{update.seq},"deviceId":"{update.device_id}","timestamp":{update.timestamp},"data":'
    return b"".join((head.encode(), bytes(update.metrics), b"}"))


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
