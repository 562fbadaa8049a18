"""The host application's own STATE: whether we are online, for edge nodes to see.

In: a host id, a time; a received STATE payload. Out: topic, payloads, what a payload says. Pure.
Guarantees: what we publish is UTF-8 JSON with exactly `online` (a boolean) and `timestamp` (ms since the
epoch), as the standard asks (tck-id-host-topic-phid-birth-payload, tck-id-host-topic-phid-death-payload).
Not here: when to publish (`host`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from plantwire.gateway.sparkplug.topic import NAMESPACE

STATE_QOS: Final = 1
_PAYLOAD_MAX_BYTES: Final = 4096
TIMESTAMP_MAX_MS: Final = 2**53
"""The largest integer that every JSON reader keeps exact."""


class HostState(msgspec.Struct, frozen=True):
    """One STATE message."""

    online: bool
    timestamp: int


_decoder = msgspec.json.Decoder(HostState)


def state_topic(host_id: str) -> str:
    """`spBv1.0/STATE/{host_id}`."""
    return f"{NAMESPACE}/STATE/{host_id}"


def state_payload(online: bool, timestamp_ms: int) -> bytes:
    """The JSON that says whether we are online."""
    return msgspec.json.encode(HostState(online, timestamp_ms))


def parse_state(payload: bytes) -> HostState | None:
    """What a STATE payload says; None where it is none (the plain words of older versions among them)."""
    if len(payload) > _PAYLOAD_MAX_BYTES:
        return None
    try:
        state = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return state if 0 <= state.timestamp < TIMESTAMP_MAX_MS else None
