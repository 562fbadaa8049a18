"""Socket.IO events as the bytes that go on the wire, encoded once for every recipient.

In: a namespace, an event name, and its JSON body, as bytes. Out: a `Packet`: the text of one WebSocket
message, and the ready frame.
Guarantees: the text is what python-socketio's `emit` sends for the same event; bodies are passed on
byte for byte.
Not here: who receives it, how it is written (`socket_channel`).
"""

from __future__ import annotations

from websockets.frames import Frame, Opcode


class Packet:
    """One event, encoded. `text` is the message, `frame` the unmasked WebSocket text frame around it."""

    __slots__ = ("event", "frame", "text")

    def __init__(self, namespace: str, event: str, body: bytes) -> None:
        self.event = event
        # Engine.IO message (4), Socket.IO event (2), namespace.
        self.text = b"".join((f'42{namespace},["{event}",'.encode(), body, b"]"))
        self.frame = Frame(Opcode.TEXT, self.text).serialize(mask=False)
