"""Cayenne LPP, type by type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.chirpstack.cayenne_lpp import TYPES, decode_cayenne_lpp


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        # The examples of the format's own description.
        ("03670110056700ff", {"temperature_3": 27.2, "temperature_5": 25.5}),
        ("01 67 ffd7 06 71 04d2 fb2e 0000", {"temperature_1": -4.1, "accelerometer_6": (1.234, -1.234, 0.0)}),
        ("01 88 06765f f2960a 0003e8", {"gps_1": (42.3519, -87.9094, 10.0)}),
        # Every type, with its sign and resolution.
        ("00 00 01", {"digital_input_0": 1}),
        ("ff 01 ff", {"digital_output_255": 255}),
        ("01 02 8000", {"analog_input_1": -327.68}),
        ("01 03 7fff", {"analog_output_1": 327.67}),
        ("01 64 ffffffff", {"generic_1": 4294967295}),
        ("01 65 ffff", {"illuminance_1": 65535}),
        ("01 66 01", {"presence_1": 1}),
        ("01 67 ffff", {"temperature_1": -0.1}),
        ("01 68 c8", {"humidity_1": 100}),
        ("01 68 65", {"humidity_1": 50.5}),
        ("01 71 ffff 0001 8000", {"accelerometer_1": (-0.001, 0.001, -32.768)}),
        ("01 73 2794", {"barometer_1": 1013.2}),
        ("01 74 ffff", {"voltage_1": 655.35}),
        ("01 75 ffff", {"current_1": 65.535}),
        ("01 76 33b50540", {"frequency_1": 867501376}),
        ("01 78 64", {"percentage_1": 100}),
        ("01 79 ff38", {"altitude_1": -200}),
        ("01 7d 01a4", {"concentration_1": 420}),
        ("01 80 ffff", {"power_1": 65535}),
        ("01 82 ffffffff", {"distance_1": 4294967.295}),
        ("01 83 00000001", {"energy_1": 0.001}),
        ("01 84 0168", {"direction_1": 360}),
        ("01 85 62d5298b", {"unix_time_1": 1658136971}),
        ("01 86 ffff 0001 8000", {"gyrometer_1": (-0.01, 0.01, -327.68)}),
        ("01 87 ff8000", {"colour_1": (255, 128, 0)}),
        ("01 88 800000 7fffff ffffff", {"gps_1": (-838.8608, 838.8607, -0.01)}),
        ("01 8e 01", {"switch_1": 1}),
        ("", {}),
        ("01 67 0001 01 67 0002", {"temperature_1": 0.2}),  # the last one counts
    ],
)
def test_values(payload: str, values: dict[str, object]) -> None:
    decoded = decode_cayenne_lpp(bytes.fromhex(payload), 1)
    flat = {name: tuple(v.values()) if isinstance(v, dict) else v for name, v in decoded.items()}
    assert flat == values


def test_the_parts_of_a_value_have_names() -> None:
    decoded = decode_cayenne_lpp(bytes.fromhex("01880000000000000000000287010203 0371000000000000"), 1)
    assert {name: list(v) for name, v in decoded.items() if isinstance(v, dict)} == {
        "gps_1": ["latitude", "longitude", "altitude"],
        "colour_2": ["red", "green", "blue"],
        "accelerometer_3": ["x", "y", "z"],
    }


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("01", "byte 0 is a channel without a type"),
        ("01 04 00", "byte 1 is 4, which is no type of Cayenne LPP"),
        ("01 67", "temperature of channel 1 needs 2 bytes from byte 2"),
        ("01 67 00", "temperature of channel 1 needs 2 bytes from byte 2"),
        ("01 66 00 02 88 00", "gps of channel 2 needs 9 bytes from byte 5"),
        ("01 66 00 02", "byte 3 is a channel without a type"),
    ],
)
def test_what_is_no_payload_is_refused(payload: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_cayenne_lpp(bytes.fromhex(payload), 1)


@given(st.binary(max_size=255))
def test_nothing_else_is_raised(payload: bytes) -> None:
    try:
        values = decode_cayenne_lpp(payload, 1)
    except ValueError:
        return
    assert all(isinstance(value, float | dict) for value in values.values())


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.sampled_from(sorted(TYPES)), st.binary(min_size=9)), max_size=20
    )
)
def test_every_sequence_of_known_types_is_read_to_its_end(entries: list[tuple[int, int, bytes]]) -> None:
    payload = b"".join(
        bytes((channel, kind)) + filler[: TYPES[kind].size_bytes] for channel, kind, filler in entries
    )
    names = {f"{TYPES[kind].name}_{channel}" for channel, kind, _ in entries}
    assert decode_cayenne_lpp(payload, 1).keys() == names
