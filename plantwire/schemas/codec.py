"""Records ↔ plain Avro bodies.

In: a frozen record, or bytes with the writer schema's fingerprint (a Kafka header).
Out: bytes without any prefix (Flink SQL's `avro` format reads them as they are), or a record.
Guarantees: bytes of every registered former schema are read; bytes of a *newer* schema are read as
far as this one knows it, since new fields only go to the end of the top-level record. A test holds
the schemas to that.
Not here: topic names (`schemas.topics`), JSON (`schemas.wire`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from io import BytesIO
from typing import Any, Final, Generic, TypeVar

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from plantwire.schemas.records import AlarmEvent, AlarmRule, TelemetryFrame

R = TypeVar("R", bound=msgspec.Struct)

# Avro has bytes of its own; without this msgspec would turn them into base64.
_KEPT: Final = (bytes,)


class UndecodableError(ValueError):
    """The bytes are not a body of this schema nor of a former one."""


def schema_fingerprint(schema: object) -> str:
    """The CRC-64-AVRO (Rabin) fingerprint of a schema's parsing canonical form, in hex."""
    return str(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class AvroCodec(Generic[R]):
    """Encodes and decodes one record type.

    `schema` is the Avro schema in force; `former` are the schemas that are still in topics.
    """

    def __init__(self, record: type[R], schema: object, former: tuple[object, ...] = ()) -> None:
        self._record = record
        self._schema = fastavro.parse_schema(schema)
        self.fingerprint: Final = schema_fingerprint(schema)
        self._writers = {schema_fingerprint(s): fastavro.parse_schema(s) for s in former}

    def encode(self, record: R) -> bytes:
        """The plain Avro body of `record`."""
        out = BytesIO()
        fastavro.schemaless_writer(out, self._schema, msgspec.to_builtins(record, builtin_types=_KEPT))
        return out.getvalue()

    def decode_fields(self, body: bytes, writer_fingerprint: str | None = None) -> dict[str, Any]:
        """The fields of `body` as plain Python values, for the hot path.

        Raises `UndecodableError` with the reason.
        """
        writer = self._writers.get(writer_fingerprint) if writer_fingerprint else None
        try:
            if writer is not None:
                return fastavro.schemaless_reader(BytesIO(body), writer, self._schema)  # type: ignore[no-any-return]
            return fastavro.schemaless_reader(BytesIO(body), self._schema, None)  # type: ignore[no-any-return]
        except EOFError:
            return self._decode_former(body)
        except Exception as error:  # on garbage fastavro raises many types
            raise UndecodableError(f"{self._record.__name__}: {type(error).__name__}: {error}") from error

    def decode(self, body: bytes, writer_fingerprint: str | None = None) -> R:
        """The record in `body`; raises `UndecodableError`."""
        try:
            return msgspec.convert(self.decode_fields(body, writer_fingerprint), self._record)
        except msgspec.ValidationError as error:
            raise UndecodableError(f"{self._record.__name__}: {error}") from error

    def _decode_former(self, body: bytes) -> dict[str, Any]:
        """A body that ends early was written by a former schema, if by any."""
        for writer in self._writers.values():
            try:
                return fastavro.schemaless_reader(BytesIO(body), writer, self._schema)  # type: ignore[no-any-return]
            except Exception:  # noqa: S112 - any failure means: not this writer
                continue
        raise UndecodableError(f"{self._record.__name__}: body ends early ({len(body)} bytes)")


def _former(name: str, *numbers: int) -> tuple[Mapping[str, Any], ...]:
    return tuple(load_schema(f"released/{name}.{number}") for number in numbers)


def load_schema(name: str) -> Mapping[str, Any]:
    """The schema `name`.avsc of this package."""
    text = resources.files("plantwire.schemas").joinpath("avro", f"{name}.avsc").read_text("utf-8")
    schema: Mapping[str, Any] = json.loads(text)
    return schema


FRAME_CODEC: Final = AvroCodec(TelemetryFrame, load_schema("TelemetryFrame"), _former("TelemetryFrame", 1))
ALARM_CODEC: Final = AvroCodec(AlarmEvent, load_schema("AlarmEvent"))
RULE_CODEC: Final = AvroCodec(AlarmRule, load_schema("AlarmRule"), _former("AlarmRule", 1))
