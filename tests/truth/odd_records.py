"""Records that a topic holds besides ordinary frames: odd values, former schemas, and what is no frame.

In: an ordinary frame. Out: what takes its place, or follows it, as records.
Guarantees: each oddity leaves the frame's device and moment as they are, or is a record that must be refused.
Not here: what each of them has to become in the tables (`offline_tables`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import fastavro
import msgspec

from plantwire.schemas import topics
from plantwire.schemas.codec import load_schema, schema_fingerprint
from plantwire.schemas.records import Metric, TelemetryFrame

FORMER_SCHEMA = load_schema("released/TelemetryFrame.1")
FORMER_FINGERPRINT = schema_fingerprint(FORMER_SCHEMA).encode()
_FORMER = fastavro.parse_schema(FORMER_SCHEMA)
TRANSIENT = "sparkplug-b-transient"
TEXTS = ("run", "stop", "", 'a,b"c', "line\nbreak\\.", "Größe ⌀ 🌡", "NULL", "\\N")
SIZES = (1e300, 1.0000000001e300, 1e-200, 9.99e-201, 5e-324, 1.7976931348623157e308, 3.0)
NAMES = (
    "Düse 1/Ø °C",
    "🌡",
    "\uffee",
    'a "quoted", name',
    "x" * 256,
    "Node Control/Rebirth",
    "\\N",
    "Ab",
    "aB",
)


class Sent(NamedTuple):
    """A record of the topic. Without `body` it is the frame as the gateway writes it.

    `frame` is None where the bytes are no frame. Sorted by `at_ms` records are in the order of the topic.
    """

    at_ms: int
    key: str | None
    frame: TelemetryFrame | None
    body: bytes | None = None
    tombstone: bool = False
    headers: tuple[tuple[str, bytes], ...] = ()


Oddity = Callable[[Sent, TelemetryFrame, random.Random], Sent]


def odd(sent: Sent, number: int, rng: random.Random) -> Sent:
    """The `number`th oddity of a device."""
    assert sent.frame is not None
    return ODDITIES[number % len(ODDITIES)](sent, sent.frame, rng)


def _with(sent: Sent, frame: TelemetryFrame, *metrics: Metric, **changes: object) -> Sent:
    changed = msgspec.structs.replace(frame, metrics=(*frame.metrics, *metrics), **changes)
    return sent._replace(frame=changed)


def _texts(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return _with(sent, frame, Metric("mode", text=rng.choice(TEXTS)), Metric("absent"))


def _qualities(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    names = ("good", "bad", "stale", "worst")
    return _with(
        sent,
        frame,
        *(
            Metric(name, rng.random(), quality=rng.choice((192, 0, 500, -1, 2**31 - 1, -(2**31))))
            for name in names
        ),
    )


def _own_times(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    """Before and after their frame's; too far ahead and before 1970 they are refused."""
    at_ms, received_ms = frame.event_time_ms, frame.received_time_ms
    times = (at_ms - 90_000, at_ms + 30_000, received_ms + 120_000, received_ms + 120_001, -5, 0, at_ms)
    metrics = [Metric("own", rng.random(), event_time_ms=one) for one in times]
    return _with(sent, frame, *metrics)


def _not_finite(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    numbers = (math.nan, math.inf, -math.inf, 1.0)
    return _with(sent, frame, *(Metric(f"wild {n}", number) for n, number in enumerate(numbers)))


def _sizes(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    size = rng.choice(SIZES)
    zero = Metric("zero", rng.choice((0.0, -0.0)))
    return _with(sent, frame, Metric("large or small", size), Metric("negative", -size), zero)


def _names(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return _with(sent, frame, *(Metric(name, rng.random()) for name in NAMES))


def _bad_samples(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    """A name that is none, an empty one, a text that no database takes; the others are stored."""
    return _with(sent, frame, Metric("bell\x07", 1.0), Metric("", 1.0), Metric("mode", text="a\x00b"))


def _twice_in_a_frame(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return _with(sent, frame, *(Metric("twice", rng.random()) for _ in range(3)))


def _empty(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return sent._replace(frame=msgspec.structs.replace(frame, metrics=()))


def _transient(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return _with(sent, frame, protocol=TRANSIENT)


def _former(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    """As the first schema wrote it; with the header that says so, or without."""
    out = BytesIO()
    fields = msgspec.to_builtins(frame, builtin_types=(bytes,))
    fastavro.schemaless_writer(out, _FORMER, fields)
    named = ((topics.HEADER_FINGERPRINT, FORMER_FINGERPRINT),)
    return sent._replace(body=out.getvalue(), headers=named if rng.random() < 0.5 else ())


def _garbage(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    body = rng.choice((b"", b"\xff\xff\xff", b'{"temperature": 20.5}'))
    return sent._replace(frame=None, body=body)


def _tombstone(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return sent._replace(frame=None, tombstone=True)


def _of_another_device(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    return sent._replace(key=rng.choice((None, "another", f"{frame.device_id} ")))


def _no_device_id(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    name = rng.choice(("two words", "#", "-dash"))
    return sent._replace(key=name, frame=msgspec.structs.replace(frame, device_id=name))


def _received_never(sent: Sent, frame: TelemetryFrame, rng: random.Random) -> Sent:
    never_ms = rng.choice((-1, 7_258_118_400_001))
    return sent._replace(frame=msgspec.structs.replace(frame, received_time_ms=never_ms))


ODDITIES: tuple[Oddity, ...] = (
    _texts,
    _qualities,
    _own_times,
    _not_finite,
    _sizes,
    _names,
    _bad_samples,
    _twice_in_a_frame,
    _empty,
    _transient,
    _former,
    _garbage,
    _tombstone,
    _of_another_device,
    _no_device_id,
    _received_never,
)
