"""What a request body is made of: its media type and its content coding.

In: the request's headers. Out: a `BodyForm`, or a refusal that names what would be taken.
Guarantees: nothing is guessed from the bytes. Answers are JSON whatever `Accept` says: what they hold is a
count or a problem, and no telemetry is lost over the form of its receipt (RFC 9110, 12.4.1 leaves that to the
server).
Not here: undoing the coding (`http_body`), reading the body (`decode_json`, `decode_avro`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.rejected import Reason

JSON_TYPE: Final = "application/json"
AVRO_FRAME_TYPE: Final = "application/vnd.plantwire.frame+avro"
AVRO_FILE_TYPES: Final = ("application/avro", "avro/binary")
FINGERPRINT_HEADER: Final = "plantwire-fingerprint"
"""The writer schema's CRC-64-AVRO fingerprint, in hex; the schema in force where left out."""


class Media(StrEnum):
    """How frames are written in a body."""

    JSON = "json"
    AVRO_FRAME = "avro-frame"
    AVRO_FILE = "avro-file"


class BodyForm(NamedTuple):
    """How to read a body."""

    media: Media
    gzip: bool
    fingerprint: str | None


_MEDIA: Final[dict[bytes, Media]] = {
    JSON_TYPE.encode(): Media.JSON,
    AVRO_FRAME_TYPE.encode(): Media.AVRO_FRAME,
    **{name.encode(): Media.AVRO_FILE for name in AVRO_FILE_TYPES},
}
# x-gzip is gzip by another name (RFC 9110, 8.4.1.3).
_GZIP: Final = (b"gzip", b"x-gzip")
_ACCEPTED_TYPES: Final = ", ".join((JSON_TYPE, AVRO_FRAME_TYPE, *AVRO_FILE_TYPES))
_PLAIN_JSON: Final = BodyForm(Media.JSON, gzip=False, fingerprint=None)
_FINGERPRINT_KEY: Final = FINGERPRINT_HEADER.encode()


def read_form(headers: dict[bytes, bytes]) -> BodyForm:
    """The form that the headers declare; raises `RefusalError` with what is taken instead."""
    declared = headers.get(b"content-type", b"application/json")
    coding = headers.get(b"content-encoding")
    if declared == b"application/json" and coding is None:
        return _PLAIN_JSON
    return BodyForm(
        media=_media(declared),
        gzip=coding is not None and _is_gzip(coding),
        fingerprint=headers[_FINGERPRINT_KEY].decode("latin-1") if _FINGERPRINT_KEY in headers else None,
    )


def _media(declared: bytes) -> Media:
    # A missing Content-Type is read as JSON: small devices leave it out.
    name = declared.partition(b";")[0].strip().lower()
    media = _MEDIA.get(name)
    if media is not None:
        return media
    if name.startswith(b"application/") and name.endswith(b"+json"):
        return Media.JSON
    raise RefusalError(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        f"A body is one of {_ACCEPTED_TYPES}.",
        ((b"accept", _ACCEPTED_TYPES.encode()),),
    )


def _is_gzip(coding: bytes) -> bool:
    name = coding.strip().lower()
    if name in _GZIP:
        return True
    if name in (b"", b"identity"):
        return False
    raise RefusalError(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        "A body is compressed with gzip, once, or not at all.",
        ((b"accept-encoding", b"gzip, identity"),),
    )
