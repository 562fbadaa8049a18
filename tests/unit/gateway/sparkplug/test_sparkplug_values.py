"""Every datatype of Sparkplug B → a number, a text, or null."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.sparkplug.outcome import Note
from plantwire.gateway.sparkplug.texts import UnfitError
from plantwire.gateway.sparkplug.values import Value, is_metric_datatype, value_of
from plantwire.schemas.records import QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import metric

SIGNED = {pb.Int8: 8, pb.Int16: 16, pb.Int32: 32, pb.Int64: 64}
UNSIGNED = {pb.UInt8: 8, pb.UInt16: 16, pb.UInt32: 32, pb.UInt64: 64}
EXAMPLE_BOOLEANS = [bit == "1" for bit in "001101001101"]
NAMES = {number: name for name, number in pb.DataType.items()}


def read(datatype: int, field: str, value: Any) -> Value:
    return value_of(datatype, metric(datatype=datatype, value=value, field=field))


def number(datatype: int, field: str, value: Any) -> float | None:
    result = read(datatype, field, value)
    assert result.text is None
    assert result.note is None
    assert result.quality == QUALITY_GOOD
    return result.number


def text(datatype: int, data: bytes) -> Any:
    result = read(datatype, "bytes_value", data)
    assert result.number is None
    assert result.text is not None
    assert result.quality == QUALITY_GOOD
    return json.loads(result.text)


def refusal(datatype: int, field: str, value: Any) -> str:
    with pytest.raises(UnfitError) as unfit:
        read(datatype, field, value)
    return str(unfit.value)


def edges(bits: int) -> list[int]:
    half = 1 << bits - 1
    return [-half, -half + 1, -2, -1, 0, 1, half - 2, half - 1]


@pytest.mark.parametrize(
    ("datatype", "value"), [(kind, v) for kind, bits in SIGNED.items() for v in edges(bits)]
)
def test_signed_integers_at_their_edges_however_they_are_encoded(datatype: int, value: int) -> None:
    bits = SIGNED[datatype]
    expected = float(value)
    assert number(datatype, "long_value", value & 0xFFFF_FFFF_FFFF_FFFF) == expected
    if bits < 64:
        assert number(datatype, "int_value", value & 0xFFFF_FFFF) == expected
        own_bits = value & ((1 << bits) - 1)
        assert number(datatype, "int_value", own_bits) == expected
        assert number(datatype, "long_value", own_bits) == expected


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [
        (pb.Int8, 256),
        (pb.Int8, 0xFFFF_FF7F),
        (pb.Int8, 0x7FFF_FFFF),
        (pb.Int16, 65_536),
        (pb.Int16, 0xFFFF_7FFF),
        (pb.UInt8, 256),
        (pb.UInt16, 65_536),
        (pb.UInt8, 0xFFFF_FFFF),
    ],
)
def test_integers_that_the_datatype_does_not_hold(datatype: int, raw: int) -> None:
    assert "does not fit" in refusal(datatype, "int_value", raw)
    assert "does not fit" in refusal(datatype, "long_value", raw)


def test_integers_too_large_for_32_bits() -> None:
    for datatype in (pb.Int32, pb.UInt32):
        assert "does not fit" in refusal(datatype, "long_value", 1 << 32)
    # Nobody can tell whether -1 or 4294967295 is meant.
    assert "does not fit" in refusal(pb.Int64, "int_value", 0xFFFF_FFFF)
    assert number(pb.Int64, "int_value", 0x7FFF_FFFF) == 0x7FFF_FFFF


@pytest.mark.parametrize("datatype", UNSIGNED)
def test_unsigned_integers_at_their_edges(datatype: int) -> None:
    bits = UNSIGNED[datatype]
    for value in (0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1):
        assert number(datatype, "long_value", value) == float(value)
        if bits < 64:
            assert number(datatype, "int_value", value) == float(value)


def test_a_uint64_beyond_2_to_the_53_is_the_nearest_double() -> None:
    assert number(pb.UInt64, "long_value", 2**53 + 1) == 2.0**53
    assert number(pb.UInt64, "long_value", 2**64 - 1) == 2.0**64


@given(st.sampled_from([*SIGNED, *UNSIGNED]), st.integers(0, 2**64 - 1))
def test_an_integer_is_within_its_datatype_or_refused(datatype: int, raw: int) -> None:
    bits = SIGNED.get(datatype) or UNSIGNED[datatype]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if datatype in SIGNED else (0, (1 << bits) - 1)
    try:
        value = number(datatype, "long_value", raw)
    except UnfitError:
        return
    assert value is not None
    assert float(low) <= value <= float(high)
    assert (raw - int(value)) % (1 << bits) == 0 or bits == 64


def test_floating_point_numbers() -> None:
    assert number(pb.Double, "double_value", -1.5e300) == -1.5e300
    assert number(pb.Float, "float_value", 12.5) == 12.5
    # A float is told as it is, not rounded to look nicer.
    assert number(pb.Float, "float_value", 12.3) == struct.unpack("<f", struct.pack("<f", 12.3))[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("datatype", "field"), [(pb.Float, "float_value"), (pb.Double, "double_value")])
def test_what_is_not_finite_is_null_of_bad_quality(datatype: int, field: str, value: float) -> None:
    assert read(datatype, field, value) == Value(None, None, QUALITY_BAD, Note.VALUE_NOT_FINITE)


def test_booleans_and_moments() -> None:
    assert number(pb.Boolean, "boolean_value", True) == 1.0
    assert number(pb.Boolean, "boolean_value", False) == 0.0
    assert number(pb.DateTime, "long_value", 1_486_144_502_122) == 1_486_144_502_122.0


@pytest.mark.parametrize("datatype", [pb.String, pb.Text, pb.UUID])
def test_texts(datatype: int) -> None:
    assert read(datatype, "string_value", "Übergang 7: läuft").text == "Übergang 7: läuft"
    assert read(datatype, "string_value", "x" * 8192).text == "x" * 8192
    too_long = Value(None, None, QUALITY_BAD, Note.VALUE_TOO_LONG)
    assert read(datatype, "string_value", "x" * 8193) == too_long
    assert read(datatype, "string_value", "a\x00b") == too_long


def test_a_text_that_is_not_utf8_is_refused() -> None:
    raw = pb.Payload.Metric(string_value="ab").SerializeToString().replace(b"ab", b"\xff\xfe")
    with pytest.raises(UnfitError, match="UTF-8"):
        value_of(pb.String, pb.Payload.Metric.FromString(raw))


def test_bytes_are_base64_within_the_bound() -> None:
    data = bytes(range(256)) * 24
    assert base64.b64decode(read(pb.Bytes, "bytes_value", data).text or "") == data
    assert read(pb.Bytes, "bytes_value", data + b"!").note is Note.VALUE_TOO_LONG


def test_a_file_keeps_its_name_and_part() -> None:
    built = metric(datatype=pb.File, value=b"%PDF")
    built.metadata.file_name, built.metadata.file_type = "report.pdf", "pdf"
    assert json.loads(value_of(pb.File, built).text or "") == {
        "name": "report.pdf",
        "type": "pdf",
        "data": "JVBERg==",
    }
    built.metadata.is_multi_part, built.metadata.seq = True, 3
    assert json.loads(value_of(pb.File, built).text or "")["part"] == 3


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        # The standard's own example bytes, where they are little-endian as its rule is. (It says -23 of
        # the first, which is -17.)
        (pb.Int8Array, "EF7B", [-17, 123]),
        (pb.Int16Array, "D08A3075", [-30000, 30000]),
        (pb.Int32Array, "FFFFFFFFFAAFCB12", [-1, 315338746]),
        (pb.Int32Array, "15CD5B07B168DE3A", [123456789, 987654321]),
        (pb.Int64Array, "CE0672AC189CBAC4C4BA9C18AC7206CE", [-4270929666821191986, -3601064768563266876]),
        (pb.UInt8Array, "17FA", [23, 250]),
        (pb.UInt16Array, "1E0088CC", [30, 52360]),
        (pb.UInt32Array, "3400000049FB55C4", [52, 3293969225]),
        (pb.UInt64Array, "3400000000000000D99E02D1B27637E4", [52, 16444743074749521625]),
        (pb.BooleanArray, "0C00000034D0", EXAMPLE_BOOLEANS),
        (pb.BooleanArray, "0C00000034DF", EXAMPLE_BOOLEANS),
        (pb.BooleanArray, "00000000", []),
        (pb.StringArray, "4142430068656c6c6f00", ["ABC", "hello"]),
        (pb.StringArray, "414243", ["ABC"]),
        (pb.StringArray, "0000", ["", ""]),
        (pb.StringArray, "", []),
        # Each moment in eight bytes, as the rule is; the standard's example leaves the highest two out.
        (pb.DateTimeArray, "C7D0907524010000B8BAB89781010000", [1256102875335, 1656107875000]),
    ],
)  # fmt: skip
def test_arrays(datatype: int, data: str, expected: list[Any]) -> None:
    assert text(datatype, bytes.fromhex(data)) == expected


def test_arrays_of_floating_point_numbers() -> None:
    assert text(pb.FloatArray, struct.pack("<2f", 1.5, -0.25)) == [1.5, -0.25]
    assert text(pb.DoubleArray, struct.pack("<2d", 12.354213, 1022.9123213)) == [12.354213, 1022.9123213]
    assert text(pb.DoubleArray, struct.pack("<3d", math.nan, math.inf, 1.0)) == [None, None, 1.0]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        (pb.Int16Array, b"\x00"),
        (pb.DoubleArray, b"\x00" * 12),
        (pb.BooleanArray, b"\x01\x00\x00"),
        (pb.BooleanArray, b"\x09\x00\x00\x00\xff"),
        (pb.BooleanArray, b"\xff\xff\xff\xff\xff"),
        (pb.StringArray, b"\xff\x00"),
    ],
)
def test_arrays_that_are_none(datatype: int, data: bytes) -> None:
    assert refusal(datatype, "bytes_value", data)


@pytest.mark.parametrize("datatype", [n for n in NAMES if NAMES[n].endswith("Array")])
def test_an_array_too_long_for_a_text_is_null(datatype: int) -> None:
    # 400,000 bytes fit every element size; as booleans they are counted in four bytes first.
    data = b"a" * 400_000
    if datatype == pb.BooleanArray:
        data = (400_000 * 8).to_bytes(4, "little") + data
    assert read(datatype, "bytes_value", data).note is Note.VALUE_TOO_LONG


def dataset(rows: list[list[dict[str, Any]]], **fields: Any) -> pb.Payload.DataSet:
    built = pb.Payload.DataSet(**fields)
    for row in rows:
        elements = built.rows.add().elements
        for cell in row:
            elements.add(**cell)
    return built


COLUMNS: dict[str, Any] = {
    "num_of_columns": 3,
    "columns": ["id", "ok", "note"],
    "types": [pb.Int64, pb.Boolean, pb.String],
}


@pytest.mark.sparkplug(
    "tck-id-payloads-dataset-column-size",
    "tck-id-payloads-dataset-column-num-headers",
    "tck-id-payloads-dataset-types-def",
    "tck-id-payloads-dataset-types-type",
    "tck-id-payloads-template-dataset-value",
)
def test_a_dataset_is_json() -> None:
    rows = [
        [{"long_value": 2**64 - 5}, {"boolean_value": True}, {"string_value": "a"}],
        [{"long_value": 2**62 + 1}, {"boolean_value": False}, {}],
    ]
    value = read(pb.DataSet, "dataset_value", dataset(rows, **COLUMNS))
    assert json.loads(value.text or "") == {
        "columns": ["id", "ok", "note"],
        "types": ["Int64", "Boolean", "String"],
        "rows": [[-5, True, "a"], [2**62 + 1, False, None]],
    }


@pytest.mark.sparkplug(
    "tck-id-payloads-dataset-types-num",
    "tck-id-payloads-dataset-types-value",
    "tck-id-payloads-dataset-parameter-type-req",
)
@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([], {**COLUMNS, "num_of_columns": 2}),
        ([], {**COLUMNS, "types": [pb.Int64]}),
        ([], {**COLUMNS, "types": [pb.Int64, pb.Boolean, pb.DataSet]}),
        ([], {**COLUMNS, "types": [pb.Int64, pb.Boolean, 99]}),
        ([[{"long_value": 1}]], COLUMNS),
        ([[{"string_value": "x"}, {"boolean_value": True}, {"string_value": "a"}]], COLUMNS),
        ([[{"long_value": 1}, {"boolean_value": True}, {"long_value": 1}]], COLUMNS),
    ],
)
def test_datasets_that_contradict_themselves(rows: list[Any], fields: dict[str, Any]) -> None:
    assert refusal(pb.DataSet, "dataset_value", dataset(rows, **fields))


def test_a_large_dataset_is_null() -> None:
    row = [{"long_value": 1}, {"boolean_value": True}, {"string_value": "a"}]
    assert read(pb.DataSet, "dataset_value", dataset([row] * 2000, **COLUMNS)).note is Note.VALUE_TOO_LONG
    empty = dataset([[]] * 9000, num_of_columns=0)
    assert read(pb.DataSet, "dataset_value", empty).note is Note.VALUE_TOO_LONG


@pytest.mark.parametrize("datatype", [n for n in NAMES if is_metric_datatype(n) and n != pb.Template])
def test_null_and_a_missing_value(datatype: int) -> None:
    null = metric(datatype=datatype, is_null=True)
    assert value_of(datatype, null) == Value(None, None, QUALITY_GOOD)
    with pytest.raises(UnfitError):
        value_of(datatype, metric(datatype=datatype))


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        (pb.Boolean, "int_value", 1),
        (pb.Double, "int_value", 1),
        (pb.Double, "long_value", 1),
        (pb.Int32, "double_value", 1.0),
        (pb.Int32, "boolean_value", True),
        (pb.DateTime, "string_value", "2026-01-01"),
        (pb.String, "int_value", 1),
        (pb.String, "bytes_value", b"a"),
        (pb.Bytes, "string_value", "a"),
        (pb.Int8Array, "int_value", 1),
        (pb.DataSet, "string_value", "{}"),
    ],
)
def test_a_value_in_the_field_of_another_datatype(datatype: int, field: str, value: Any) -> None:
    assert refusal(datatype, field, value)


def test_datatypes_of_metrics() -> None:
    assert {NAMES[n] for n in NAMES if not is_metric_datatype(n)} == {
        "Unknown",
        "PropertySet",
        "PropertySetList",
    }
    assert not is_metric_datatype(35)


@pytest.mark.sparkplug(
    "tck-id-payloads-propertyset-quality-value-type", "tck-id-payloads-propertyset-quality-value-value"
)
@pytest.mark.parametrize("quality", [QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE])
def test_the_quality_property(quality: int) -> None:
    built = metric(datatype=pb.Double, value=1.5, quality=quality)
    assert value_of(pb.Double, built) == Value(1.5, None, quality)


def test_other_qualities_are_bad() -> None:
    unknown = metric(datatype=pb.Double, value=1.5, quality=193)
    assert value_of(pb.Double, unknown) == Value(1.5, None, QUALITY_BAD, Note.QUALITY_UNKNOWN)
    worded = metric(datatype=pb.Double, value=1.5)
    worded.properties.keys.append("Quality")
    worded.properties.values.add(type=pb.String, string_value="good")
    assert value_of(pb.Double, worded).note is Note.QUALITY_UNKNOWN


@pytest.mark.sparkplug(
    "tck-id-payloads-propertyset-keys-array-size", "tck-id-payloads-propertyset-values-array-size"
)
def test_properties_of_unequal_length_and_null_ones() -> None:
    built = metric(datatype=pb.Double, value=1.5)
    built.properties.keys.extend(["engUnit", "Quality"])
    built.properties.values.add(type=pb.String, string_value="°C")
    assert value_of(pb.Double, built) == Value(1.5, None, QUALITY_GOOD)
    built.properties.values.add(type=pb.Int32, is_null=True)
    assert value_of(pb.Double, built) == Value(1.5, None, QUALITY_GOOD)


@given(
    st.sampled_from([n for n in NAMES if is_metric_datatype(n) and n != pb.Template]), st.binary(max_size=80)
)
def test_whatever_the_bytes_are_a_value_is_finite_and_bounded_or_refused(datatype: int, data: bytes) -> None:
    built = pb.Payload.Metric()
    try:
        built.ParseFromString(data)
    except DecodeError:
        built = metric(datatype=datatype, value=data, field="bytes_value")
    try:
        value = value_of(datatype, built)
    except UnfitError:
        return
    assert value.number is None or (value.text is None and math.isfinite(value.number))
    assert value.text is None or (len(value.text) <= 8192 and "\x00" not in value.text)
    assert value.quality in (QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE)
