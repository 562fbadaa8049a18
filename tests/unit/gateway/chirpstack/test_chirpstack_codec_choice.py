"""Which codec a device has."""

from __future__ import annotations

from pathlib import Path

import pytest

from plantwire.gateway.chirpstack.codec_choice import CodecChoice, CodecFileError
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.settings import ChirpstackSettings
from plantwire.gateway.chirpstack.source import build_chirpstack_source
from plantwire.gateway.decode_json import DecodeLimits

KNOWN = {"cayenne-lpp", "mine"}
GOOD = """\
codecs:
  - profile: "Milesight EM300"
    codec: none
  - profile: "Milesight *"
    codec: cayenne-lpp
  - {profile: "*-raw", codec: mine}
"""


def read(tmp_path: Path, text: str) -> CodecChoice:
    file = tmp_path / "codecs.yaml"
    file.write_text(text)
    return CodecChoice.from_file(file, KNOWN)


@pytest.mark.parametrize(
    ("tags", "profile", "codec"),
    [
        ({}, "Milesight AM103", "cayenne-lpp"),
        ({}, "Milesight EM300", None),  # the first line that fits
        ({}, "milesight AM103", None),  # case counts
        ({}, "x-raw", "mine"),
        ({}, "", None),
        ({"plantwire_codec": "mine"}, "Milesight AM103", "mine"),
        ({"plantwire_codec": "none"}, "Milesight AM103", None),
        ({"plantwire_codec": ""}, "Milesight AM103", "cayenne-lpp"),
        ({"plantwire_codec": "not there"}, "", "not there"),
    ],
)
def test_the_tag_then_the_first_line_that_fits(
    tmp_path: Path, tags: dict[str, str], profile: str, codec: str | None
) -> None:
    assert read(tmp_path, GOOD).choose(tags, profile) == codec


def test_json_is_taken_too(tmp_path: Path) -> None:
    choice = read(tmp_path, '{"codecs": [{"profile": "a", "codec": "mine"}]}')
    assert choice.choose({}, "a") == "mine"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: the file is empty"),
        ("codecs:\n  profile: a\n", ":2: codecs must be a list"),
        ("codec: []\n", ":1: the file has no key 'codec'"),
        ("codecs:\n  - profile: a\n", ":2: an entry of codecs lacks 'codec'"),
        ("codecs:\n  - profile: a\n    codec: theirs\n", ":3: there is no codec 'theirs'"),
        ("codecs:\n  - profile: 7\n    codec: mine\n", ":2: profile must be text"),
        ("codecs: [\n", ":"),
        ("- a\n", ":1: the file must be a mapping"),
        ("codecs:\n  - !!python/name:os.system x\n", ":2: not YAML: tags"),
    ],
)
def test_a_bad_file_is_refused_with_line_and_reason(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(CodecFileError) as caught:
        read(tmp_path, text)
    assert f"codecs.yaml{problem}" in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecFileError, match="No such file"):
        CodecChoice.from_file(tmp_path / "none.yaml", KNOWN)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(CodecFileError, match="utf-8"):
        CodecChoice.from_file(tmp_path / "bytes.yaml", KNOWN)


def test_a_bad_file_stops_the_start_and_names_the_setting(tmp_path: Path) -> None:
    limits = DecodeLimits(metrics_per_frame_max=10, frames_max=10, time_ahead_max_ms=60_000)
    settings = ChirpstackSettings(chirpstack_codecs_file=tmp_path / "none.yaml")
    with pytest.raises(SystemExit, match="PLANTWIRE_CHIRPSTACK_CODECS_FILE"):
        build_chirpstack_source(settings, limits, Codecs({}))
