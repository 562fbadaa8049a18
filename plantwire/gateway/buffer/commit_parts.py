"""Divides records among commits to the edge buffer. Pure.

In: records in order, with the alarms that they caused. Out: what is put together, in the same order.
Guarantees: no commit is above its bound in bytes or in records; an alarm is with its frame.
Not here: when to commit (`durability`), what a transaction gathers (`edge_buffer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from plantwire.gateway.buffer.record import Record, Row
from plantwire.gateway.buffer.rows import size_bytes

_COMMIT_MAX_RECORDS: Final = 500

AnyRecord = TypeVar("AnyRecord", bound=Record)


def with_alarms(records: Sequence[Record]) -> list[Record]:
    """Each record with its alarms behind it, as far as they are not in the buffer."""
    return [each for record in records for each in (record, *(a for a in record.alarms if a.row is Row.NONE))]


def size_with_alarms_bytes(record: Record) -> int:
    """What a record and its alarms take in the buffer."""
    return size_bytes(record.entry) + sum(size_bytes(alarm.entry) for alarm in record.alarms)


def commit_parts(records: Sequence[AnyRecord], max_bytes: int) -> Iterator[Sequence[AnyRecord]]:
    """The records, divided so that each part fits a commit, without those that fit none."""
    part: list[AnyRecord] = []
    part_bytes = 0
    for record in records:
        record_bytes = size_with_alarms_bytes(record)
        if record_bytes > max_bytes:
            continue
        if part and (part_bytes + record_bytes > max_bytes or len(part) == _COMMIT_MAX_RECORDS):
            yield part
            part, part_bytes = [], 0
        part.append(record)
        part_bytes += record_bytes
    if part:
        yield part
