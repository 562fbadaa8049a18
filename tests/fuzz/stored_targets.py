"""Bytes that come back from where they were stored: layouts, buffer rows, alarm states."""

from __future__ import annotations

import math
import struct

from plantwire.domain.adoption import go_on_from
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.packed_state import UnknownLayoutError, pack, unpack
from plantwire.domain.rule_book import RuleBook, is_sound
from plantwire.gateway.buffer.entry import Entry, EntryKind
from plantwire.gateway.buffer.rows import TABLES, from_row, table_of, to_row
from plantwire.gateway.edge_alarms.saved_state import KEY_PREFIX, UnreadableStateError, decode, encode
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC, RULE_CODEC, UndecodableError
from plantwire.schemas.frame_layout import MAX_NUMBERS, FrameReader
from plantwire.schemas.records import AlarmRule, Limit, Metric, Missing, TelemetryFrame
from tests.fuzz.cursor import Cursor
from tests.fuzz.frame_checks import RECEIVED_MS, RECEIVED_US
from tests.fuzz.target import Check

DEVICES = ("press-1", "p", "press-22", "x" * 70)
NAMES = ("t", "temperature", "u", "é")
TEXT = "x" * 20


def frame_layout_check() -> Check:
    """Frames of a few devices, some with a byte changed or cut: what a layout reads, the codec reads too.

    One reader for all inputs, as in a job that runs for ever: its memory stays within its bound.
    """
    reader = FrameReader()

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        while cursor.left:
            body = _body(cursor)
            reading = reader.read(body)
            try:
                fields = FRAME_CODEC.decode_fields(body)
            except UndecodableError:
                assert reading is None, body.hex()
                continue
            if reading is None:
                reader.learn(body, fields)
                continue
            layout = reading.layout
            assert layout.device_id == fields["device_id"]
            assert (layout.site, layout.historical) == (fields["site"], fields["historical"])
            assert reading.event_time_ms == fields["event_time_ms"]
            assert list(layout.names) == [metric["name"] for metric in fields["metrics"]]
            assert not fields["edge_state"]
            for number, metric in zip(reading.numbers, fields["metrics"], strict=True):
                assert struct.pack("<d", number) == struct.pack("<d", metric["number"])
                assert metric["text"] is None
        assert reader._numbers <= MAX_NUMBERS
        assert reader._numbers == sum(len(layout.names) for layout in reader._layouts.values())

    return check


def _body(cursor: Cursor) -> bytes:
    shape = cursor.byte()
    metrics = tuple(_metric(cursor, shape) for _ in range(cursor.byte() % 5))
    frame = TelemetryFrame(
        device_id=cursor.choose(DEVICES),
        site="hall" if shape & 1 else "",
        sequence=cursor.number(1 + shape % 7) if shape & 2 else None,
        event_time_ms=RECEIVED_MS - cursor.number(4) if shape & 4 else cursor.number(7),
        received_time_ms=RECEIVED_MS,
        protocol="http",
        historical=bool(shape & 8),
        metrics=metrics,
        gateway_in_us=RECEIVED_US,
        gateway_out_us=cursor.number(6) if shape & 16 else RECEIVED_US,
        edge_state=b"\x01" if shape & 224 == 224 else b"",
    )
    body = bytearray(FRAME_CODEC.encode(frame))
    if shape & 32:
        body[cursor.number(2) % len(body)] ^= cursor.byte()
    if shape & 64:
        del body[cursor.number(2) % len(body) :]
    return bytes(body)


def _metric(cursor: Cursor, shape: int) -> Metric:
    name = cursor.choose(NAMES)
    if shape & 128 and cursor.byte() & 1:
        return Metric(name, None, TEXT, 0, RECEIVED_MS)
    number = cursor.double()
    return Metric(name, number if math.isfinite(number) else 0.0)


def frame_layout_seeds() -> list[bytes]:
    """A device that sends the same shape thrice, two devices in turn, changes in between."""
    one = bytes((7, 2, 0)) + struct.pack("<d", 1.5) + b"\x01" + struct.pack("<d", 2.5) + bytes(16)
    changed = bytes((7 | 32, 2, 0)) + struct.pack("<d", 1.5) + b"\x01" + struct.pack("<d", 2.5) + bytes(20)
    return [one * 3, (one + changed) * 2, bytes((0, 0)), bytes(64), bytes(range(256))]


def buffer_row_check() -> Check:
    """Rows that a damaged file changed: the entry that was put, or nothing."""

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        entry = Entry(
            kind=cursor.choose(tuple(EntryKind)),
            source="http",
            device_id=cursor.choose(DEVICES),
            event_time_ms=cursor.number(6),
            body=cursor.piece()[:200],
            headers=((cursor.text(), cursor.take(3)),) if cursor.byte() & 1 else (),
        )
        row = to_row(cursor.number(4), entry, cursor.number(6))
        table, other = (TABLES if table_of(entry.kind) == TABLES[0] else TABLES[::-1])[:2]
        assert from_row(other, row) is None
        stored = from_row(table, row)
        assert stored is not None
        assert (stored.entry_id, stored.entry) == (row[0], entry)
        damaged: list[object] = list(row)
        for _ in range(cursor.byte() % 3):
            at = cursor.byte() % len(row)
            old = damaged[at]
            choices = (None, cursor.number(8), -1, b"", cursor.take(5), old, 2**63 - 1, "text")
            # As SELECT casts them: a number stays one and bytes stay bytes, or there is none at all.
            allowed = [c for c in choices if c is None or isinstance(c, int) == isinstance(row[at], int)]
            damaged[at] = cursor.choose([c for c in allowed if not isinstance(c, str)])
        again = from_row(cursor.choose(TABLES), tuple(damaged))
        assert again is None or (again.entry_id, again.entry) == (row[0], entry)

    return check


def buffer_row_seeds() -> list[bytes]:
    """Each kind, with and without headers and damage."""
    return [
        bytes((kind, 0)) + bytes(6) + b"\x05\0hello" + bytes(tail) for kind in range(3) for tail in (1, 40)
    ] + [bytes(range(80))]


def edge_state_check() -> Check:
    """Alarm states in frames and savepoints: a state, or UnknownLayoutError."""

    def check(data: bytes) -> None:
        try:
            site, state = unpack(data)
        except UnknownLayoutError:
            return
        assert unpack(pack(site, state)) == (site, state) or _has_nan(state)
        rules = RuleBook([_RULE, _LOST, _SILENT]).for_device("press-1")
        detector = DeviceDetector("press-1", rules, state)
        events = detector.take_frame(_FRAME_FIELDS, RECEIVED_MS)
        other = DeviceDetector("press-1", rules)
        events += go_on_from(other, state, RECEIVED_MS)
        for judge in (detector, other):
            events += judge.run_timers(RECEIVED_MS + 10_000, RECEIVED_MS + 10_000)
        events += other.take_frame(_FRAME_FIELDS, RECEIVED_MS)
        for event in events:
            ALARM_CODEC.encode(event)

    return check


def saved_state_check() -> Check:
    """What a gateway keeps over a restart: it is read, or UnreadableStateError."""

    def check(data: bytes) -> None:
        try:
            saved, site, state = decode(data)
        except UnreadableStateError:
            return
        encode(site, state, saved.diverged, saved.alarms)

    return check


def stored_rule_check() -> Check:
    """Rules as they come from Kafka: what can be decoded can be evaluated, and its events can be told."""

    def check(data: bytes) -> None:
        try:
            rule = RULE_CODEC.decode(data)
        except UndecodableError:
            return
        if not is_sound(rule):
            return
        detector = DeviceDetector("press-1", RuleBook([rule]).for_device("press-1"))
        events = []
        for at_ms, number in ((0, 50.0), (10, -50.0), (20, 0.0), (5000, 1e300)):
            frame = {**_FRAME_FIELDS, "event_time_ms": RECEIVED_MS + at_ms}
            frame["metrics"] = [{"name": "t", "number": number, "quality": 192, "event_time_ms": None}]
            events += detector.take_frame(frame, RECEIVED_MS + at_ms)  # type: ignore[arg-type]
        events += detector.run_timers(RECEIVED_MS + 100_000, RECEIVED_MS + 100_000)
        for event in events:
            ALARM_CODEC.encode(event)

    return check


def stored_rule_seeds() -> list[bytes]:
    """A rule of each form."""
    limits = (Limit(0, above=10.0, below=-10.0, deadband=1.0), Limit(4, above=5.0))
    return [
        RULE_CODEC.encode(_RULE),
        RULE_CODEC.encode(
            AlarmRule("r", 2, "press-[0-9]*", "*", limits, 100, 100, "{device} {value} {limit}")
        ),
        RULE_CODEC.encode(AlarmRule("r", 3, "*", "*", limits)),
        RULE_CODEC.encode(AlarmRule("r", 3, "*", "*", (), retired=True)),
        RULE_CODEC.encode(_LOST),
        RULE_CODEC.encode(_SILENT),
    ]


_RULE = AlarmRule("r", 1, "*", "t*", (Limit(0, above=10.0),), on_delay_ms=1000)
_LOST = AlarmRule("lost", 1, "*", "t*", (), missing=(Missing(0, 60_000), Missing(1, 2_000)))
_SILENT = AlarmRule("silent", 1, "*", "", (), missing=(Missing(1, 2_000),))
_FRAME_FIELDS = {
    "device_id": "press-1",
    "site": "hall",
    "event_time_ms": RECEIVED_MS,
    "metrics": [{"name": "t", "number": 50.0, "quality": 192, "event_time_ms": None}],
}


def _has_nan(state: object) -> bool:
    return "nan" in repr(state)


def edge_state_seeds() -> list[bytes]:
    """A device at rest, with an alarm pending, with an alarm active."""
    seeds = [pack("hall", {})]
    rules = RuleBook([_RULE, AlarmRule("s", 1, "*", "t", (Limit(1, above=1.0),))]).for_device("press-1")
    detector = DeviceDetector("press-1", rules)
    detector.take_frame(_FRAME_FIELDS, RECEIVED_MS)
    seeds.append(pack("hall", detector.state))
    waiting = DeviceDetector("press-1", RuleBook([_LOST, _SILENT]).for_device("press-1"))
    waiting.take_frame(_FRAME_FIELDS, RECEIVED_MS)
    seeds.append(pack("hall", waiting.state, -500))
    waiting.run_timers(RECEIVED_MS + 3_000, RECEIVED_MS + 3_000)
    seeds.append(pack("hall", waiting.state))
    return [*seeds, b"\x01", b"\x02", b"\x01\x92\xa0\x91\x93\xa1\xff\xa1t\xc0"]


def saved_state_seeds() -> list[bytes]:
    """As `edge_state_seeds`, the way the gateway keeps them."""
    stored = [encode(site, state, True, ()) for site, state in map(unpack, edge_state_seeds()[:2])]
    return [seed for seed in stored if seed is not None] + [KEY_PREFIX.encode()]
