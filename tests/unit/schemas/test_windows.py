"""Packed windows are read as SQL writes them, and nothing that is damaged becomes a value."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.identifiers import is_device_id, is_metric_name
from plantwire.schemas.windows import WindowValues, pack_windows, unpack_windows

finite = st.floats(allow_nan=False)
values = st.builds(WindowValues, finite, finite, finite, st.integers(1, 10**12))
names = st.text(min_size=1, max_size=20).filter(is_metric_name)
devices = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True).filter(is_device_id)


@given(
    st.dictionaries(devices, st.dictionaries(names, values, min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_what_was_packed_is_unpacked(windows: dict[str, dict[str, WindowValues]]) -> None:
    assert unpack_windows(pack_windows(windows)) == (windows, 0)


def test_numbers_are_read_as_the_jvm_writes_them() -> None:
    packed = "press-1\x1fNode Control/x\x1f1.0E10\x1f-Infinity\x1f4.9E-324\x1f3"
    (metrics, rejected) = unpack_windows(packed)
    assert rejected == 0
    assert metrics == {"press-1": {"Node Control/x": WindowValues(1e10, -math.inf, 5e-324, 3)}}


def test_what_cannot_be_read_is_left_out_and_told() -> None:
    good = "a\x1fx\x1f1.0\x1f1.0\x1f1.0\x1f1"
    for bad in ("", "a\x1fx", "a\x1fx\x1fy\x1f1.0\x1f1.0\x1f1.0\x1f1", "a b\x1fx\x1f1.0\x1f1.0\x1f1.0\x1f1"):
        for packed in (f"{bad}\x1e{good}", f"{good}\x1e{bad}"):
            assert unpack_windows(packed) == ({"a": {"x": WindowValues(1.0, 1.0, 1.0, 1)}}, 1)


def test_clients_see_an_average_weighted_by_the_samples() -> None:
    seen = WindowValues(10.0, 1.0, 4.0, 4).to_wire()
    assert seen == {"avg": 2.5, "min": 1.0, "max": 4.0, "sum": 10.0, "count": 4}
