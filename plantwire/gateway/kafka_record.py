"""What was received, as Kafka gets it: topic, key, value, headers, time stamp. Pure.

In: frames, alarm events, dead letters; entries of the buffer. Out: entries; the producer's arguments.
Guarantees: live and drained records of one entry differ in nothing but what says that they were late. A
record's time stamp is its event time, but not older than retention reaches: Kafka deletes by it.
Not here: producing (`live_producer`, `buffer.drain`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from plantwire.gateway.buffer.entry import Entry, EntryKind
from plantwire.gateway.buffer.ledger import SOURCE_EDGE_ALARMS
from plantwire.gateway.forwarder import DeadLetter
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC
from plantwire.schemas.records import AlarmEvent, TelemetryFrame

HEADER_ORIGINAL_BYTES: Final = "original.bytes"
"""Size of a refused message, on dead letters that hold only its beginning."""
DEAD_LETTER_MAX_BYTES: Final = 900_000
RECORD_OVERHEAD_BYTES: Final = 128
REASON_UNDELIVERABLE: Final = "undeliverable"
_SOURCE_MAX_CHARACTERS: Final = 1024
_TOPICS: Final = {
    EntryKind.ALARM: topics.ALARMS_FIRE,
    EntryKind.TELEMETRY: topics.TELEMETRY_RAW,
    EntryKind.DEAD_LETTER: topics.TELEMETRY_DLQ,
}
_FRAME_HEADERS: Final = ((topics.HEADER_FINGERPRINT, FRAME_CODEC.fingerprint.encode()),)
_ALARM_HEADERS: Final = ((topics.HEADER_FINGERPRINT, ALARM_CODEC.fingerprint.encode()),)


def frame_entry(frame: TelemetryFrame, out_us: int) -> Entry:
    """A frame that leaves the gateway at `out_us`, microseconds since the epoch."""
    body = FRAME_CODEC.encode(msgspec.structs.replace(frame, gateway_out_us=out_us))
    return Entry(
        EntryKind.TELEMETRY, frame.protocol, frame.device_id, frame.event_time_ms, body, _FRAME_HEADERS
    )


def alarm_entry(event: AlarmEvent) -> Entry:
    """An alarm event of the edge."""
    body = ALARM_CODEC.encode(event)
    return Entry(
        EntryKind.ALARM, SOURCE_EDGE_ALARMS, event.device_id, event.event_time_ms, body, _ALARM_HEADERS
    )


def dead_letter_entry(letter: DeadLetter) -> Entry:
    """A dead letter; of a large one the first `DEAD_LETTER_MAX_BYTES`."""
    headers: tuple[tuple[str, bytes], ...] = (
        (topics.HEADER_REASON, letter.rejected.reason.value.encode()),
        (topics.HEADER_SOURCE, letter.source[:_SOURCE_MAX_CHARACTERS].encode(errors="replace")),
        (topics.HEADER_RECEIVED_TIME, str(letter.received_time_ms).encode()),
    )
    body = letter.payload[:DEAD_LETTER_MAX_BYTES]
    if len(body) < len(letter.payload):
        headers = (*headers, (HEADER_ORIGINAL_BYTES, str(len(letter.payload)).encode()))
    source = letter.protocol or letter.source.partition(":")[0]
    return Entry(EntryKind.DEAD_LETTER, source, "", letter.received_time_ms, body, headers)


def undeliverable_entry(entry: Entry, now_ms: int) -> Entry:
    """What Kafka refuses for good, as a dead letter."""
    headers = (
        (topics.HEADER_REASON, REASON_UNDELIVERABLE.encode()),
        (topics.HEADER_SOURCE, f"{entry.source}:{entry.device_id}".encode()),
        (topics.HEADER_RECEIVED_TIME, str(now_ms).encode()),
        (HEADER_ORIGINAL_BYTES, str(len(entry.body)).encode()),
    )
    return Entry(EntryKind.DEAD_LETTER, entry.source, "", now_ms, entry.body[:DEAD_LETTER_MAX_BYTES], headers)


def historical_entry(entry: Entry, out_us: int) -> Entry:
    """The entry of a frame, marked as sent later than measured. Other entries come back as they are.

    Raises `UndecodableError`.
    """
    if entry.kind is not EntryKind.TELEMETRY:
        return entry
    fingerprint = dict(entry.headers).get(topics.HEADER_FINGERPRINT)
    frame = FRAME_CODEC.decode(entry.body, fingerprint.decode() if fingerprint else None)
    # Where detection at the edge stood then is no news any more.
    return frame_entry(msgspec.structs.replace(frame, historical=True, edge_state=b""), out_us)


def record_size_bytes(entry: Entry) -> int:
    """About what it takes in a producer's memory."""
    return len(entry.body) + RECORD_OVERHEAD_BYTES


def producer_arguments(entry: Entry, oldest_ms: int) -> dict[str, Any]:
    """For `Producer.produce`; a time stamp before `oldest_ms` becomes that."""
    arguments: dict[str, Any] = {
        "topic": _TOPICS[entry.kind],
        "value": entry.body,
        "timestamp": max(entry.event_time_ms, oldest_ms),
        "headers": list(entry.headers),
    }
    if entry.device_id:
        arguments["key"] = entry.device_id
    return arguments
