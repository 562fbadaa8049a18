"""What is kept of a device over a restart of the gateway, as bytes.

In: its alarm state, its active alarms, whether the cloud knows them. Out: bytes, and the way back.
Guarantees: bytes of another layout are refused, never guessed at; fields added later have defaults.
Not here: where they are kept (`buffer.entry.EdgeBuffer.save`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from plantwire.domain.detection import DeviceState
from plantwire.domain.packed_state import UnknownLayoutError, pack, unpack
from plantwire.schemas.records import AlarmEvent

KEY_PREFIX: Final = "edge-state/"


class UnreadableStateError(ValueError):
    """The bytes are not what this version writes."""


class SavedState(msgspec.Struct, frozen=True):
    """One device, as it is stored."""

    packed: bytes
    """`domain.packed_state` of site and state."""
    diverged: bool = False
    alarms: tuple[AlarmEvent, ...] = ()
    """The last event of each active alarm, for clients that connect."""


_decoder: Final = msgspec.msgpack.Decoder(SavedState)


def encode(site: str, state: DeviceState, diverged: bool, alarms: tuple[AlarmEvent, ...]) -> bytes | None:
    """The bytes to keep; None where nothing need be kept."""
    if not state and not diverged:
        return None
    return msgspec.msgpack.encode(SavedState(pack(site, state), diverged, alarms))


def decode(stored: bytes) -> tuple[SavedState, str, DeviceState]:
    """The inverse: what was saved, its site and its state. Raises `UnreadableStateError`."""
    try:
        saved = _decoder.decode(stored)
        site, state = unpack(saved.packed)
    except (msgspec.DecodeError, UnknownLayoutError) as error:
        raise UnreadableStateError(str(error)) from None
    return saved, site, state
