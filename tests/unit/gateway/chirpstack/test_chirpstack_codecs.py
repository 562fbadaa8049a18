"""Codecs that are there, and plug-ins that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.metadata import EntryPoint

import pytest

from plantwire.gateway.chirpstack.codecs import ENTRY_POINT_GROUP, Codec, Codecs, load_codecs
from plantwire.gateway.chirpstack.flatten import FlattenError
from plantwire.gateway.rejected import Reason
from plantwire.schemas.records import QUALITY_BAD, Metric


def moisture_codec(payload: bytes, f_port: int) -> Mapping[str, object]:
    """A plug-in as a package would bring it: one byte of moisture in half percents, on port 3."""
    if f_port != 3:
        raise ValueError(f"no uplink of port {f_port} is known")
    return {"moisture": payload[0] / 2, "sensor": {"ok": payload[0] != 255}}


NOT_A_CODEC = 7
MODULE = __name__


def plugin(name: str, attribute: str, module: str = MODULE) -> EntryPoint:
    return EntryPoint(name, f"{module}:{attribute}", ENTRY_POINT_GROUP)


def failure(codecs: Codecs, name: str, payload: bytes = b"\x01", f_port: int = 1) -> FlattenError:
    with pytest.raises(FlattenError) as caught:
        codecs.decode(name, payload, f_port, 10)
    return caught.value


def test_the_built_in_codec_is_there() -> None:
    assert load_codecs().names >= {"cayenne-lpp"}
    assert load_codecs().decode("cayenne-lpp", bytes.fromhex("036701 10"), 1, 10) == [
        Metric("temperature_3", 27.2)
    ]


def test_a_plug_in_decodes() -> None:
    codecs = load_codecs([plugin("moisture", "moisture_codec")])
    assert codecs.decode("moisture", b"\x3c", 3, 10) == [Metric("moisture", 30.0), Metric("sensor/ok", 1.0)]


def test_a_plug_in_s_error_names_it_and_its_words() -> None:
    error = failure(load_codecs([plugin("moisture", "moisture_codec")]), "moisture", f_port=4)
    assert error.rejected.reason is Reason.CODEC_FAILED
    assert str(error) == "Codec 'moisture': ValueError: no uplink of port 4 is known."


def test_plug_ins_that_cannot_be_loaded_disturb_no_other() -> None:
    codecs = load_codecs(
        [
            plugin("gone", "codec", "no_such_module_here"),
            plugin("missing", "no_such_name"),
            plugin("number", "NOT_A_CODEC"),
            plugin("moisture", "moisture_codec"),
        ]
    )
    for name in ("gone", "missing", "number"):
        assert name in codecs.names
        error = failure(codecs, name)
        assert error.rejected.reason is Reason.CODEC_FAILED
        assert "could not be loaded" in str(error)
    assert codecs.decode("moisture", b"\x02", 3, 10)[0].number == 1


def test_a_built_in_name_cannot_be_taken_over() -> None:
    codecs = load_codecs([plugin("cayenne-lpp", "moisture_codec")])
    assert codecs.decode("cayenne-lpp", b"\x01\x66\x01", 3, 10) == [Metric("presence_1", 1.0)]


def test_an_unknown_name_is_refused_by_name() -> None:
    assert failure(Codecs({}), "nope").rejected.reason is Reason.UNKNOWN_CODEC


class _SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words either")


class _BadMapping(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        yield "a"

    def __len__(self) -> int:
        return 1


def _raises(fault: BaseException) -> Codec:
    def codec(payload: bytes, f_port: int) -> Mapping[str, object]:
        raise fault

    return codec


def _recurse(payload: bytes, f_port: int) -> Mapping[str, object]:
    return _recurse(payload, f_port)


_cyclic: dict[str, object] = {}
_cyclic["again"] = _cyclic


@pytest.mark.parametrize(
    "codec",
    [
        _raises(ValueError("bad")),
        _raises(MemoryError()),
        _raises(SystemExit(3)),
        _raises(asyncio.CancelledError()),
        _raises(_SilentError()),
        _raises(FlattenError(Reason.BAD_SHAPE, "theirs")),
        _recurse,
        lambda payload, f_port: None,
        lambda payload, f_port: [1],
        lambda payload, f_port: _BadMapping(),
        lambda payload, f_port: _cyclic,
        lambda payload, f_port: {"a": Decimal(1)},
        lambda payload, f_port: {"a": b"bytes"},
        lambda payload, f_port: {"a": 10**400},
        lambda payload, f_port: {"a": "\ud800"},
        lambda payload, f_port: {"\ud800": 1},
        lambda payload, f_port: {"lorawan/rssi": 1},
        lambda payload, f_port: {str(n): n for n in range(11)},
    ],
)
def test_whatever_a_codec_does_is_codec_failed(codec: Codec) -> None:
    error = failure(Codecs({"bad": codec}), "bad")
    assert error.rejected.reason is Reason.CODEC_FAILED
    assert str(error).startswith("Codec 'bad': ")


def test_an_interrupt_is_not_the_codec_s() -> None:
    with pytest.raises(KeyboardInterrupt):
        Codecs({"bad": _raises(KeyboardInterrupt())}).decode("bad", b"", 1, 10)


def test_numbers_that_are_not_finite_have_no_value() -> None:
    codecs = Codecs({"c": lambda payload, f_port: {"a": float("nan"), "b": float("inf")}})
    assert codecs.decode("c", b"", 1, 10) == [
        Metric("a", None, None, QUALITY_BAD),
        Metric("b", None, None, QUALITY_BAD),
    ]
