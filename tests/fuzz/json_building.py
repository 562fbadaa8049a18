"""JSON built from a cursor's choices: well-formed more often than bytes by chance would be."""

from __future__ import annotations

from collections.abc import Sequence

from tests.fuzz.cursor import Cursor

BUILT_FROM = 0x80
"""A first byte from here on, which begins no JSON text, asks for a built one."""
DEPTH_MAX = 6
_NUMBERS = (
    *(b"0", b"-1", b"1.5", b"-0.0", b"1e400", b"1e-400", b"9007199254740993", b"18446744073709551616"),
    *(b"1700000000000", b"1700000059999", b"1700000090000", b"-9223372036854775809", b"1" * 400, b"65535"),
)
_TEXTS = (
    *(b'""', b'"x"', b'"a:b"', b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"a/b"', b'"\\n"'),
    *(
        b'"2023-11-14T22:13:20Z"',
        b'"AWcBEA=="',
        b'"0102030405060708"',
        b'"press-1"',
        b'"' + b"y" * 300 + b'"',
    ),
)
_WORDS = (b"null", b"true", b"false", b"NaN", b"-Infinity", b"nul", b"")


def build_json(cursor: Cursor, keys: Sequence[bytes], depth: int = 0) -> bytes:
    """A value; objects have some of `keys`, and now and then the same one twice."""
    kind = cursor.byte()
    if kind < 0x60 and depth < DEPTH_MAX:
        entries = [
            b'"' + cursor.choose(keys) + b'":' + build_json(cursor, keys, depth + 1)
            for _ in range(cursor.byte() % 8)
        ]
        return b"{" + b",".join(entries) + b"}"
    if kind < 0x80 and depth < DEPTH_MAX:
        return b"[" + b",".join(build_json(cursor, keys, depth + 1) for _ in range(cursor.byte() % 4)) + b"]"
    if kind < 0xB0:
        return cursor.choose(_NUMBERS)
    if kind < 0xE0:
        return cursor.choose(_TEXTS)
    if kind < 0xFC:
        return cursor.choose(_WORDS)
    return b'"' + cursor.take(cursor.byte() % 16) + b'"'
