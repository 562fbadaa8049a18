"""What one kind of message on the gateway's MQTT connection is: where it comes from and what it becomes.

In: nothing. Out: `MqttSource`, the interface between the connection and each decoder, and its outcomes.
Guarantees: a source does no I/O and never raises, whatever the bytes are.
Not here: the connection, acknowledgements, what was seen already (`mqtt_transport`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from plantwire.gateway.rejected import Rejected
from plantwire.schemas.records import TelemetryFrame


class Remark(StrEnum):
    """What an operator should know of a message that was taken nevertheless. Counted, by protocol."""

    NO_CODEC = "no-codec"
    """LoRaWAN bytes that nothing decodes: neither ChirpStack nor a codec here."""
    ENCRYPTED = "encrypted"
    """LoRaWAN bytes that ChirpStack has no key for."""
    TIME_REPLACED = "time-replaced"
    """The message's time cannot be right: the next best was taken."""
    LOG_INFO = "log-info"
    LOG_WARNING = "log-warning"
    LOG_ERROR = "log-error"
    """ChirpStack reported something about a device."""


class Unneeded(StrEnum):
    """Why a message is acknowledged and not forwarded. Counted, by protocol."""

    DUPLICATE = "duplicate"
    """The same message was forwarded before."""
    NOTHING_TO_FORWARD = "nothing-to-forward"
    RETAINED_UNDATED = "retained-undated"
    """A retained message, sent anew at the subscription, that does not say when it was measured: its values
    would pass for the present ones."""
    NOT_SUBSCRIBED = "not-subscribed"
    """A topic of a subscription that the broker remembers from former settings."""


class Decoded(msgspec.Struct, frozen=True):
    """The frames of a message, one or more."""

    frames: tuple[TelemetryFrame, ...]
    key: str | None = None
    """Names the message where its protocol does: one with a key seen before is not forwarded again."""
    remarks: tuple[Remark, ...] = ()


Outcome = Decoded | Unneeded | Rejected


class MqttSource(Protocol):
    """One kind of message."""

    @property
    def protocol(self) -> str:
        """The `TelemetryFrame.protocol` of its frames; metrics count under it."""

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters to subscribe to. What comes before the first wildcard tells sources apart."""

    def decode(self, topic: str, payload: bytes, received_us: int) -> Outcome:
        """What a message becomes; `received_us` is when it came, microseconds since the epoch."""
