"""What the clients of `bench.latency` saw: which client got which message when.

In: raw messages with the moment of receipt. Out: a file that the parent reads when all is over.
Guarantees: a message is kept once and referred to by number, so that a receipt costs no parsing and
little memory while the measurement runs.
Not here: how messages come (`bench.socket_clients`, `bench.official_clients`); what they mean
(`bench.deliveries`).
"""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec


class Receipts(msgspec.Struct):
    """Receipts of alarm messages, column by column: client, message number, moment in ns."""

    messages: list[str]
    """Each a JSON list [event name, alarm]."""
    clients: list[int]
    numbers: list[int]
    received_ns: list[int]
    telemetry: int
    """Telemetry messages of all clients together; they are only counted."""
    disconnected: list[str]
    """A line for every connection that was lost."""
    cpu_s: float


class Recorder:
    """Collects receipts while the measurement runs."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._clients = array("I")
        self._messages = array("I")
        self._received_ns = array("q")
        self.telemetry = 0
        self.disconnected: list[str] = []

    def record(self, client: int, message: bytes, received_ns: int) -> None:
        """Note that `client` got the alarm `message` (a JSON list)."""
        number = self._numbers.setdefault(message, len(self._numbers))
        self._clients.append(client)
        self._messages.append(number)
        self._received_ns.append(received_ns)

    def write(self, path: Path, cpu_s: float) -> None:
        """Write everything to `path`."""
        receipts = Receipts(
            messages=[message.decode() for message in self._numbers],
            clients=self._clients.tolist(),
            numbers=self._messages.tolist(),
            received_ns=self._received_ns.tolist(),
            telemetry=self.telemetry,
            disconnected=self.disconnected,
            cpu_s=cpu_s,
        )
        path.write_bytes(msgspec.json.encode(receipts))


def read_receipts(path: Path) -> Receipts:
    """The receipts that a client process wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Receipts)
