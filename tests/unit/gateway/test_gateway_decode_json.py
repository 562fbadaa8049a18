"""The JSON decoder: what it takes, what it refuses by which name, and that nothing makes it raise."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantwire.gateway.decode_json import FRAME_MAX_BYTES, DecodeLimits, decode_telemetry
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.records import Metric, TelemetryFrame

NOW_MS = 1_767_225_600_000
NOW_US = NOW_MS * 1000 + 123
LIMITS = DecodeLimits(metrics_per_frame_max=1000, frames_max=1000, time_ahead_max_ms=60_000)


def decode(body: bytes | str, device_id: str = "press-1") -> tuple[TelemetryFrame, ...] | Rejected:
    raw = body.encode() if isinstance(body, str) else body
    return decode_telemetry(raw, device_id, "http", NOW_US, LIMITS)


def frames(body: bytes | str) -> tuple[TelemetryFrame, ...]:
    outcome = decode(body)
    assert not isinstance(outcome, Rejected), outcome
    return outcome


def test_a_full_frame_is_taken_field_by_field() -> None:
    body = {
        "timestamp": NOW_MS - 5000,
        "metrics": {
            "temperature": 101.2,
            "count": 7,
            "running": True,
            "stopped": False,
            "mode": "auto: fast",
        },
        "quality": 0,
        "sequence": 41,
        "site": "north",
        "historical": True,
    }
    assert frames(json.dumps(body)) == (
        TelemetryFrame(
            device_id="press-1",
            site="north",
            sequence=41,
            event_time_ms=NOW_MS - 5000,
            received_time_ms=NOW_MS,
            protocol="http",
            historical=True,
            metrics=(
                Metric("temperature", 101.2, None, 0),
                Metric("count", 7.0, None, 0),
                Metric("running", 1.0, None, 0),
                Metric("stopped", 0.0, None, 0),
                Metric("mode", None, "auto: fast", 0),
            ),
            gateway_in_us=NOW_US,
        ),
    )


def test_a_frame_without_a_timestamp_has_the_time_of_its_arrival() -> None:
    (frame,) = frames('{"metrics": {"t": 1}}')
    assert frame.event_time_ms == NOW_MS


def test_an_old_frame_is_not_historical_by_itself() -> None:
    (frame,) = frames(f'{{"timestamp": {NOW_MS - 86_400_000}, "metrics": {{"t": 1}}}}')
    assert not frame.historical
    assert frame.event_time_ms == NOW_MS - 86_400_000


def test_a_list_keeps_its_order() -> None:
    decoded = frames('[{"metrics": {"t": 1}}, {"metrics": {"t": 2}}]')
    assert [frame.metrics[0].number for frame in decoded] == [1.0, 2.0]


def test_one_bad_frame_refuses_the_list() -> None:
    assert isinstance(decode('[{"metrics": {"t": 1}}, {"metrics": {}}]'), Rejected)


@pytest.mark.parametrize("ahead_ms", [-1, 0, 60_000])
def test_a_little_ahead_is_taken(ahead_ms: int) -> None:
    (frame,) = frames(f'{{"timestamp": {NOW_MS + ahead_ms}, "metrics": {{"t": 1}}}}')
    assert frame.event_time_ms == NOW_MS + ahead_ms


def metrics(inner: str) -> str:
    return f'{{"metrics": {{{inner}}}}}'


def timed(timestamp: object) -> str:
    return f'{{"timestamp": {timestamp}, "metrics": {{"t": 1}}}}'


REFUSED = [
    ("", Reason.NOT_JSON),
    ("not json", Reason.NOT_JSON),
    ('{"metrics": {"t": 1}', Reason.NOT_JSON),
    ('{"metrics": {"t": 1}} {}', Reason.NOT_JSON),
    (b'{"metrics": {"t": "\xff"}}', Reason.NOT_JSON),
    (b'\xef\xbb\xbf{"metrics": {"t": 1}}', Reason.NOT_JSON),
    ('{"metrics": {"t": "\\ud800"}}', Reason.NOT_JSON),
    ("\x00", Reason.NOT_JSON),
    (metrics('"t": NaN'), Reason.NOT_A_NUMBER),
    (metrics('"t": Infinity'), Reason.NOT_A_NUMBER),
    (metrics('"t": -Infinity'), Reason.NOT_A_NUMBER),
    (metrics('"t": 1e999'), Reason.NOT_A_NUMBER),
    (metrics('"t": 1' + "0" * 400), Reason.NOT_A_NUMBER),
    (metrics('"t": 1' + "0" * 100_000), Reason.NOT_A_NUMBER),
    (metrics('"t": 1, "t": 2'), Reason.DUPLICATE_KEY),
    (metrics('"a:b": ":", "t": 1, "t": 1'), Reason.DUPLICATE_KEY),
    (metrics('"t": 1, "\\u0074": 2'), Reason.DUPLICATE_KEY),
    ('{"metrics": {"t": 1}, "metrics": {"t": 2}}', Reason.DUPLICATE_KEY),
    ('[{"metrics": {"t": 1}}, {"metrics": {"t": 1, "t": 2}}]', Reason.DUPLICATE_KEY),
    ("1", Reason.BAD_SHAPE),
    ("null", Reason.BAD_SHAPE),
    ("[]", Reason.BAD_SHAPE),
    ("[1]", Reason.BAD_SHAPE),
    ("[" * 100_000, Reason.BAD_SHAPE),
    ('{"metrics":' * 100_000, Reason.BAD_SHAPE),
    ("[" * 500 + "]" * 500, Reason.BAD_SHAPE),
    ("{}", Reason.BAD_SHAPE),
    ('{"metrics": {}}', Reason.BAD_SHAPE),
    ('{"metrics": []}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "timestmap": 1}', Reason.BAD_SHAPE),
    (metrics('"t": null'), Reason.BAD_SHAPE),
    (metrics('"t": [1]'), Reason.BAD_SHAPE),
    (metrics('"t": {"value": 1}'), Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "quality": -1}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "quality": true}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "sequence": 9223372036854775808}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "sequence": "1"}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "site": 1}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "site": "a\\u0000b"}', Reason.BAD_SHAPE),
    ('{"metrics": {"t": 1}, "historical": 1}', Reason.BAD_SHAPE),
    (timed("1.5"), Reason.BAD_SHAPE),
    (timed("true"), Reason.BAD_SHAPE),
    (timed('"2026-01-01"'), Reason.BAD_SHAPE),
    (timed(0), Reason.TIMESTAMP_OUT_OF_RANGE),
    (timed(-1), Reason.TIMESTAMP_OUT_OF_RANGE),
    (timed(2**53 + 1), Reason.TIMESTAMP_OUT_OF_RANGE),
    (timed(10**40), Reason.TIMESTAMP_OUT_OF_RANGE),
    (timed(NOW_MS + 60_001), Reason.TIMESTAMP_AHEAD),
    (timed(NOW_MS + 86_400_000), Reason.TIMESTAMP_AHEAD),
    (metrics('"": 1'), Reason.INVALID_METRIC_NAME),
    (metrics('"a\\u0000": 1'), Reason.INVALID_METRIC_NAME),
    (metrics('"a\\nb": 1'), Reason.INVALID_METRIC_NAME),
    (metrics(f'"{"n" * 257}": 1'), Reason.INVALID_METRIC_NAME),
    (metrics('"t": "a\\u0000"'), Reason.INVALID_TEXT),
    (metrics(f'"t": "{"x" * 8193}"'), Reason.INVALID_TEXT),
    (metrics(", ".join(f'"m{i}": 1' for i in range(1001))), Reason.TOO_MANY_METRICS),
    (json.dumps([{"metrics": {"t": 1}}] * 1001), Reason.TOO_MANY_FRAMES),
    (metrics(", ".join(f'"m{i}": "{"x" * 8000}"' for i in range(120))), Reason.FRAME_TOO_LARGE),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_by_name(body: bytes | str, reason: Reason) -> None:
    outcome = decode(body)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.reason == reason
    assert outcome.detail.endswith(".")
    assert len(outcome.detail) < 300


@pytest.mark.parametrize(
    "device_id", ["", "a/b", "a+b", "#", "a\x00b", "é", "-a", "a b", "a" * 129, "\ud800", "a*"]
)
def test_a_hostile_device_id_is_refused(device_id: str) -> None:
    outcome = decode('{"metrics": {"t": 1}}', device_id)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == Reason.INVALID_DEVICE_ID


def test_colons_in_texts_are_no_duplicates() -> None:
    (frame,) = frames(metrics('"a:b": "c:d", "e": ":::"'))
    assert [m.text for m in frame.metrics] == ["c:d", ":::"]


def test_a_large_body_of_small_frames_is_taken() -> None:
    body = json.dumps([{"metrics": {f"{'metric':-<50}{i}": 1.5 for i in range(60)}}] * 300)
    assert len(body) > FRAME_MAX_BYTES
    assert len(frames(body)) == 300


@pytest.mark.parametrize(("count", "refused"), [(20, False), (21, True)])
def test_the_metrics_of_all_frames_are_bounded(count: int, refused: bool) -> None:
    body = json.dumps([{"metrics": {f"m{i}": 1.5 for i in range(1000)}}] * count).encode()
    outcome = decode_telemetry(body, "press-1", "http", NOW_US, LIMITS)
    assert isinstance(outcome, Rejected) is refused
    if isinstance(outcome, Rejected):
        assert outcome.reason == Reason.TOO_MANY_METRICS
    else:
        assert len(outcome) == count


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VALUES = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.booleans()
    | st.text(max_size=20)
    | st.sampled_from([10**308, 10**309, -(10**400), 5e-324, -0.0, None, [], {}])
)
NEARLY_FRAMES = st.fixed_dictionaries(
    {"metrics": st.dictionaries(st.text(max_size=12), VALUES, max_size=6)},
    optional={
        "timestamp": st.integers(-1, 2**54) | st.integers(NOW_MS - 10, NOW_MS + 70_000) | ANY_JSON,
        "quality": st.integers(-1, 70_000) | ANY_JSON,
        "sequence": st.integers(-1, 2**64) | ANY_JSON,
        "site": st.text(max_size=12) | ANY_JSON,
        "historical": st.booleans() | ANY_JSON,
        "other": ANY_JSON,
    },
)
GOOD_FRAMES = st.fixed_dictionaries(
    {
        "metrics": st.dictionaries(
            st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20),
            st.floats(allow_nan=False, allow_infinity=False)
            | st.integers(-(2**63), 2**64)
            | st.booleans()
            | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30),
            min_size=1,
            max_size=8,
        )
    },
    optional={"timestamp": st.integers(1, NOW_MS + 60_000), "sequence": st.integers(0, 2**63 - 1)},
)
DEVICE_IDS = (
    st.just("press-1") | st.text(max_size=12) | st.sampled_from(["a/b", "+", "#", "\x00", "..", "\ud800"])
)


def holds(outcome: tuple[TelemetryFrame, ...] | Rejected) -> bool:
    """Whether an outcome keeps the decoder's promises; True where frames came out."""
    if isinstance(outcome, Rejected):
        assert outcome.reason in Reason
        return False
    assert outcome
    for frame in outcome:
        assert all(m.number is None or math.isfinite(m.number) for m in frame.metrics)
        assert all((m.number is None) != (m.text is None) for m in frame.metrics)
        body = FRAME_CODEC.encode(frame)
        assert len(body) < 1_000_000
        assert FRAME_CODEC.decode(body) == frame
    return True


@given(st.binary(max_size=200), DEVICE_IDS)
def test_random_bytes_never_raise(body: bytes, device_id: str) -> None:
    holds(decode(body, device_id))


@given(ANY_JSON | st.lists(NEARLY_FRAMES, max_size=3) | NEARLY_FRAMES, DEVICE_IDS, st.booleans())
@settings(max_examples=400)
def test_random_json_never_raises_and_what_is_taken_survives_avro(
    value: Any, device_id: str, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    holds(decode(text.encode(errors="surrogatepass"), device_id))


@given(GOOD_FRAMES, st.data())
def test_a_damaged_frame_never_raises(value: Any, data: st.DataObject) -> None:
    body = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    holds(decode(bytes(body)))


@given(st.lists(GOOD_FRAMES, min_size=1, max_size=4), st.booleans())
def test_good_frames_are_taken_whole(values: list[dict[str, Any]], ascii_only: bool) -> None:
    outcome = decode(json.dumps(values, ensure_ascii=ascii_only))
    assert holds(outcome)
    assert not isinstance(outcome, Rejected)
    assert [[m.name for m in frame.metrics] for frame in outcome] == [list(v["metrics"]) for v in values]
    assert [frame.event_time_ms for frame in outcome] == [v.get("timestamp", NOW_MS) for v in values]
