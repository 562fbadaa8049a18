"""Device ids and metric names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.schemas.identifiers import is_device_id, is_metric_name


@pytest.mark.parametrize("text", ["press-01", "0011223344556677", "hall:press.1", "a@b", "x" * 128])
def test_device_ids(text: str) -> None:
    assert is_device_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "a/b", "a+b", "#", "a#", "a\0", "a b", "a*", "a?", "[a]", "-a", "x" * 129, "a\n", "é", "a%2Fb"],
)
def test_what_is_no_device_id(text: str) -> None:
    assert not is_device_id(text)


@given(st.text(max_size=140))
def test_no_device_id_holds_what_another_layer_reads_as_syntax(text: str) -> None:
    if is_device_id(text):
        assert not set(text) & set("/+#*?[]\\\"'{}%\0 \t\r\n")


def test_metric_names() -> None:
    assert is_metric_name("Node Control/Rebirth")
    assert is_metric_name("Temperatur °C")
    for text in ("", "a\0", "a\n", "\x85", "\ud800", "x" * 257):
        assert not is_metric_name(text)
