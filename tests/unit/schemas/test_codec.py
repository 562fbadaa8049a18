"""Plain Avro bodies: round trips, and old and new schemas reading each other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import plantwire.schemas
from plantwire.schemas.codec import (
    ALARM_CODEC,
    FRAME_CODEC,
    RULE_CODEC,
    AvroCodec,
    UndecodableError,
    load_schema,
)
from plantwire.schemas.records import AlarmEvent, AlarmRule, Limit, Metric, Missing, TelemetryFrame

numbers = st.floats(allow_nan=False, allow_infinity=False)
longs = st.integers(-(2**63), 2**63 - 1)
ints = st.integers(-(2**31), 2**31 - 1)
texts = st.text(max_size=20)
metrics = st.builds(
    Metric,
    name=texts,
    number=st.none() | numbers,
    text=st.none() | texts,
    quality=ints,
    event_time_ms=st.none() | longs,
)
frames = st.builds(
    TelemetryFrame,
    device_id=texts,
    site=texts,
    sequence=st.none() | longs,
    event_time_ms=longs,
    received_time_ms=longs,
    protocol=texts,
    historical=st.booleans(),
    metrics=st.lists(metrics, max_size=5).map(tuple),
    gateway_in_us=longs,
    gateway_out_us=longs,
    edge_state=st.binary(max_size=20),
)
events = st.builds(
    AlarmEvent,
    **{
        name: {"str": texts, "int": ints, "float | None": st.none() | numbers}[kind]
        for name, kind in AlarmEvent.__annotations__.items()
    },
)
limits = st.builds(
    Limit, severity=ints, above=st.none() | numbers, below=st.none() | numbers, deadband=numbers
)
rules = st.builds(
    AlarmRule,
    rule_id=texts,
    version=ints,
    devices=texts,
    metric=texts,
    limits=st.lists(limits, max_size=3).map(tuple),
    on_delay_ms=longs,
    off_delay_ms=longs,
    message=texts,
    retired=st.booleans(),
    missing=st.lists(st.builds(Missing, severity=ints, after_ms=longs), max_size=3).map(tuple),
)


@given(frames)
def test_frames_round_trip(frame: TelemetryFrame) -> None:
    assert FRAME_CODEC.decode(FRAME_CODEC.encode(frame), FRAME_CODEC.fingerprint) == frame


@given(events)
def test_events_round_trip(event: AlarmEvent) -> None:
    assert ALARM_CODEC.decode(ALARM_CODEC.encode(event)) == event


@given(rules)
def test_rules_round_trip(rule: AlarmRule) -> None:
    assert RULE_CODEC.decode(RULE_CODEC.encode(rule)) == rule


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_or_refused_and_never_anything_else(body: bytes) -> None:
    try:
        decoded: object = FRAME_CODEC.decode(body)
    except UndecodableError as error:
        decoded = str(error)
    assert isinstance(decoded, TelemetryFrame | str)


@pytest.mark.parametrize("body", [b"", b"{}", b"\x02", b"\xff" * 30])
def test_refusals_name_the_record(body: bytes) -> None:
    with pytest.raises(UndecodableError, match="TelemetryFrame"):
        FRAME_CODEC.decode(body)


CODECS = [(FRAME_CODEC, "TelemetryFrame"), (ALARM_CODEC, "AlarmEvent"), (RULE_CODEC, "AlarmRule")]
SAMPLES: dict[str, Any] = {
    "TelemetryFrame": TelemetryFrame("d", "s", 1, 2, 3, "http", False, (Metric("m", 1.5),), 4, 5),
    "AlarmEvent": AlarmEvent(
        "id", 1, "r", 1, "d", "s", "m", 1.0, 2.0, 0, "RAISED", "text", 3, 3, 1, 4, 5, 6, 7, 8, 9
    ),
    "AlarmRule": AlarmRule("r", 1, "*", "*", (Limit(0, above=1.0),), missing=(Missing(1, 60_000),)),
}


def newer(schema: Any) -> Any:
    """The schema with a field more at its end, as a next version would have it."""
    extended = copy.deepcopy(dict(schema))
    extended["fields"].append({"name": "added_later", "type": ["null", "string"], "default": None})
    return extended


@pytest.mark.parametrize(("codec", "name"), CODECS)
def test_the_code_of_today_reads_the_data_of_tomorrow(codec: AvroCodec[Any], name: str) -> None:
    tomorrow = newer(load_schema(name))
    writer = AvroCodec(type(SAMPLES[name]), tomorrow)
    fields = {**msgspec.to_builtins(SAMPLES[name], builtin_types=(bytes,)), "added_later": "something"}
    body = _write(tomorrow, fields)
    assert codec.decode(body, writer.fingerprint) == SAMPLES[name]
    assert codec.decode(body) == SAMPLES[name]


@pytest.mark.parametrize(("codec", "name"), CODECS)
def test_the_code_of_tomorrow_reads_the_data_of_today(codec: AvroCodec[Any], name: str) -> None:
    today = load_schema(name)
    tomorrow = AvroCodec(type(SAMPLES[name]), newer(today), former=(today,))
    body = codec.encode(SAMPLES[name])
    for fingerprint in (codec.fingerprint, None):
        fields = tomorrow.decode_fields(body, fingerprint)
        assert fields["added_later"] is None
        assert tomorrow.decode(body, fingerprint) == SAMPLES[name]


@pytest.mark.parametrize("name", [name for _, name in CODECS])
def test_every_schema_ever_in_force_is_a_prefix_of_the_present_one(name: str) -> None:
    """Plain bodies are readable without a registry only because fields are never moved, changed or
    inserted. `released/` holds each schema as it was first released; this is what holds it to that.
    """
    folder = Path(plantwire.schemas.__file__).parent / "avro" / "released"
    released = sorted(folder.glob(f"{name}.*.avsc"))
    assert released, f"no released schema of {name}"
    present = _bare(load_schema(name))
    for path in released:
        former = _bare(json.loads(path.read_text("utf-8")))
        count = len(former["fields"])
        assert present["fields"][:count] == former["fields"], f"{path.name} is not a prefix"
        assert all("default" in field for field in load_schema(name)["fields"][count:])


def test_fields_of_records_and_schemas_are_the_same() -> None:
    for codec, name in CODECS:
        assert [f["name"] for f in load_schema(name)["fields"]] == list(
            type(SAMPLES[name]).__struct_fields__
        ), codec.fingerprint


def _write(schema: Any, fields: dict[str, Any]) -> bytes:
    from io import BytesIO

    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), fields)
    return out.getvalue()


def _bare(schema: Any) -> Any:
    """The schema without its documentation."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in ("doc", "default")}
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema
