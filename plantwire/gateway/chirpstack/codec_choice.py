"""Which codec decodes a device's uplinks: its tag, else the first line of a file that fits its profile.

In: a YAML file (JSON is YAML too)::

    codecs:
      - profile: "Milesight *"     # glob on the device profile's name; case counts
        codec: cayenne-lpp

and an event's tags and profile. Out: a codec's name, or None.
Guarantees: a file with anything wrong stops the start, with every line and reason.
Not here: the codecs themselves (`codecs`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Self

import msgspec

from plantwire.schemas.rule_yaml import NodeReader

CODEC_TAG: Final = "plantwire_codec"
"""Tag of a device, its profile or its application in ChirpStack; ChirpStack lets the device's win."""
NO_CODEC: Final = "none"
"""As a codec's name: leave the bytes as they are."""
_NAME_MAX_CHARACTERS: Final = 256


class CodecFileError(Exception):
    """The file cannot be used; the text has a line for each problem."""


class ProfileCodec(msgspec.Struct, frozen=True):
    """The codec of the device profiles whose name `profile` (a glob) matches."""

    profile: str
    codec: str


class CodecChoice:
    """Chooses; the first fitting line counts."""

    def __init__(self, lines: Sequence[ProfileCodec] = ()) -> None:
        self._lines = tuple(lines)

    @classmethod
    def from_file(cls, path: Path, known: Collection[str]) -> Self:
        """Read a file that may name the codecs in `known`; raises `CodecFileError`."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CodecFileError(f"{path}: {error}") from None
        reader = NodeReader(str(path))
        lines = _lines(reader, text, known)
        if reader.problems:
            raise CodecFileError("\n".join(str(problem) for problem in sorted(reader.problems)))
        return cls(lines)

    def choose(self, tags: Mapping[str, str], profile: str) -> str | None:
        """The codec's name for a device with these tags and this device profile."""
        named = tags.get(CODEC_TAG) or next(
            (line.codec for line in self._lines if fnmatchcase(profile, line.profile)), None
        )
        return None if named == NO_CODEC else named


def _lines(reader: NodeReader, text: str, known: Collection[str]) -> list[ProfileCodec]:
    root = reader.compose(text)
    if root is None:
        if not reader.problems:
            reader.report(1, "the file is empty; it needs 'codecs'")
        return []
    top = reader.mapping(root, "the file", known=("codecs",), required=("codecs",))
    if top is None or "codecs" not in top:
        return []
    lines: list[ProfileCodec] = []
    for item in reader.items(top["codecs"], "codecs") or []:
        keys = ("profile", "codec")
        entry = reader.mapping(item, "an entry of codecs", known=keys, required=keys)
        if entry is None or not entry.keys() >= set(keys):
            continue
        profile = reader.text(entry["profile"], "profile", _NAME_MAX_CHARACTERS)
        codec = reader.text(entry["codec"], "codec", _NAME_MAX_CHARACTERS)
        if profile is None or codec is None:
            continue
        if codec != NO_CODEC and codec not in known:
            choices = ", ".join([*sorted(known), NO_CODEC])
            reader.report(entry["codec"], f"there is no codec {codec!r}; there are {choices}")
            continue
        lines.append(ProfileCodec(profile, codec))
    return lines
