"""Alarm severities, most severe first."""

from __future__ import annotations

from enum import IntEnum


class Severity(IntEnum):
    """ISA-18.2 priority of an alarm; the number is its rank, 0 the most severe."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    INFO = 4
