"""What was received, as Kafka gets it."""

from __future__ import annotations

import pytest

from plantwire.gateway.buffer.entry import EntryKind
from plantwire.gateway.forwarder import DeadLetter
from plantwire.gateway.kafka_record import (
    DEAD_LETTER_MAX_BYTES,
    HEADER_ORIGINAL_BYTES,
    alarm_entry,
    dead_letter_entry,
    frame_entry,
    historical_entry,
    producer_arguments,
    undeliverable_entry,
)
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, UndecodableError
from plantwire.schemas.records import Metric, TelemetryFrame
from tests.builders import alarm_event

FRAME = TelemetryFrame(
    "press-1", "hall", 7, 1_000, 1_001, "http", False, (Metric("t", 1.5),), 5, edge_state=b"s"
)


def letter(payload: bytes, protocol: str = "") -> DeadLetter:
    return DeadLetter(payload, Rejected(Reason.NOT_JSON, "no"), "mqtt:a/b", 1_001, protocol)


def test_a_frame() -> None:
    entry = frame_entry(FRAME, 9)
    arguments = producer_arguments(entry, 0)
    decoded = FRAME_CODEC.decode(arguments["value"])
    assert (decoded.gateway_in_us, decoded.gateway_out_us, decoded.edge_state) == (5, 9, b"s")
    assert (arguments["topic"], arguments["key"], arguments["timestamp"]) == (
        topics.TELEMETRY_RAW,
        "press-1",
        1_000,
    )
    assert arguments["headers"] == [(topics.HEADER_FINGERPRINT, FRAME_CODEC.fingerprint.encode())]
    assert producer_arguments(entry, 2_000)["timestamp"] == 2_000


def test_a_historical_frame_differs_only_in_what_says_so() -> None:
    live = FRAME_CODEC.decode(frame_entry(FRAME, 9).body)
    late = FRAME_CODEC.decode(historical_entry(frame_entry(FRAME, 9), 20).body)
    assert (late.historical, late.gateway_out_us, late.edge_state) == (True, 20, b"")
    assert (late.metrics, late.event_time_ms, late.sequence, late.site) == (
        live.metrics,
        live.event_time_ms,
        live.sequence,
        live.site,
    )


def test_a_body_of_another_schema_is_read_by_its_fingerprint_and_garbage_is_named() -> None:
    entry = frame_entry(FRAME, 9)
    with pytest.raises(UndecodableError):
        historical_entry(type(entry)(entry.kind, "http", "press-1", 1, b"\xff\xff", entry.headers), 20)


def test_an_alarm_stays_as_it_is() -> None:
    entry = alarm_entry(alarm_event())
    assert historical_entry(entry, 20) is entry
    arguments = producer_arguments(entry, 0)
    assert arguments["topic"] == topics.ALARMS_FIRE
    assert arguments["key"] == "press-1"
    assert arguments["headers"] == [(topics.HEADER_FINGERPRINT, ALARM_CODEC.fingerprint.encode())]


@pytest.mark.parametrize(("protocol", "source"), [("", "mqtt"), ("chirpstack", "chirpstack")])
def test_a_dead_letter_has_no_key_and_counts_under_its_protocol(protocol: str, source: str) -> None:
    entry = dead_letter_entry(letter(b"{", protocol))
    arguments = producer_arguments(entry, 0)
    assert (entry.kind, entry.source) == (EntryKind.DEAD_LETTER, source)
    assert "key" not in arguments
    assert dict(arguments["headers"]) == {
        topics.HEADER_REASON: b"not-json",
        topics.HEADER_SOURCE: b"mqtt:a/b",
        topics.HEADER_RECEIVED_TIME: b"1001",
    }


def test_a_large_dead_letter_is_cut_and_says_how_large_it_was() -> None:
    entry = dead_letter_entry(letter(b"x" * (DEAD_LETTER_MAX_BYTES + 5)))
    assert len(entry.body) == DEAD_LETTER_MAX_BYTES
    assert dict(entry.headers)[HEADER_ORIGINAL_BYTES] == str(DEAD_LETTER_MAX_BYTES + 5).encode()


def test_what_kafka_refuses_for_good_names_its_source() -> None:
    headers = dict(undeliverable_entry(frame_entry(FRAME, 9), 2_000).headers)
    assert headers[topics.HEADER_REASON] == b"undeliverable"
    assert headers[topics.HEADER_SOURCE] == b"http:press-1"
