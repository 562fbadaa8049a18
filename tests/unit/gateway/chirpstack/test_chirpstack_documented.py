"""docs/lorawan.md tells what the code does; its examples work."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from plantwire.gateway.chirpstack.cayenne_lpp import TYPES, decode_cayenne_lpp
from plantwire.gateway.chirpstack.codec_choice import CodecChoice
from plantwire.gateway.chirpstack.codecs import BUILT_IN, ENTRY_POINT_GROUP, Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.chirpstack.topic import topic_filter
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Decoded, Remark
from plantwire.schemas.records import Metric
from tests.unit.gateway.chirpstack.chirpstack_events import EVENTS, payload_of, topic_of

DOCUMENT = (Path(__file__).parents[4] / "docs" / "lorawan.md").read_text("utf-8")


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", DOCUMENT, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return textwrap.dedent(found)


def test_every_remark() -> None:
    table = DOCUMENT[DOCUMENT.index("| remark |") :]
    assert set(re.findall(r"`([a-z-]+)`", re.sub(r"\|[^|]*\|$", "", table, flags=re.M))) == {
        remark.value for remark in Remark
    }


def test_every_cayenne_type_with_the_names_of_its_values() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \| (.*?) \|", DOCUMENT, re.MULTILINE)
    numbers = [int(number) for row in rows for number in row[0].split(", ")]
    assert numbers == sorted(TYPES)
    for row in rows:
        for number in row[0].split(", "):
            kind = TYPES[int(number)]
            value = decode_cayenne_lpp(bytes([1, int(number)]) + bytes(kind.size_bytes), 1)[f"{kind.name}_1"]
            first, *rest = value if isinstance(value, dict) else [""]
            assert f"`{kind.name}_1/{first}`".replace("/`", "`") in row[1]
            for part in rest:
                assert f"`/{part}`" in row[1]


def test_every_event_with_its_metrics() -> None:
    limits = DecodeLimits(metrics_per_frame_max=40, frames_max=10, time_ahead_max_ms=60_000)
    decoder = ChirpstackDecoder("", limits, Codecs({}), CodecChoice())
    for event in EVENTS:
        payload = payload_of(event, location={"accuracy": 1}) if event == "location" else payload_of(event)
        outcome = decoder.decode(topic_of(event), payload, 1_700_000_000_000_000)
        assert isinstance(outcome, Decoded)
        (row,) = re.findall(rf"^\| `{event}` \| (.*) \|$", DOCUMENT, re.MULTILINE)
        names = {m.name for m in outcome.frames[0].metrics} - {"lorawan/data"}
        assert set(re.findall(r"`(lorawan/[a-z_/]+)`", row)) == names


def test_the_example_of_an_object() -> None:
    example = block("json", "gps")
    payload = payload_of("up").replace(b'"dr": 1', b'"object": ' + example.encode())
    limits = DecodeLimits(metrics_per_frame_max=40, frames_max=10, time_ahead_max_ms=60_000)
    decoder = ChirpstackDecoder("", limits, Codecs({}), CodecChoice())
    outcome = decoder.decode(topic_of("up"), payload, 1_700_000_000_000_000)
    assert isinstance(outcome, Decoded)
    assert outcome.frames[0].metrics[:6] == (
        Metric("temperature", 21.5),
        Metric("door", 1.0),
        Metric("gps/lat", 52.1),
        Metric("channels/0", 4.1),
        Metric("channels/1", 4.2),
        Metric("error", None, None, 0),
    )


def test_the_example_of_a_codec_file(tmp_path: Path) -> None:
    file = tmp_path / "codecs.yaml"
    file.write_text(block("yaml", "codecs:"))
    choice = CodecChoice.from_file(file, BUILT_IN)
    assert choice.choose({}, "Dragino LHT65") is None
    assert choice.choose({}, "Dragino LSN50") == "cayenne-lpp"


def test_the_example_of_a_plug_in() -> None:
    assert f'"{ENTRY_POINT_GROUP}"' in block("toml", "entry-points")
    module: dict[str, Any] = {}
    exec(block("python", "def decode"), module)  # noqa: S102 - our own document
    codecs = Codecs({"soil-moisture": module["decode"]})
    assert codecs.decode("soil-moisture", b"\x3c", 3, 10) == [
        Metric("moisture", 30.0),
        Metric("sensor/ok", 1.0),
    ]


def test_the_subscription() -> None:
    assert f"`{topic_filter('')}`" in DOCUMENT
