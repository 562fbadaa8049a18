"""Live windows: their sizes, how SQL packs them into one string, and how clients see them.

In: packed windows. Out: per device the values of its metrics, as objects for JSON.
Guarantees: what cannot be read is left out and told, never guessed.
Not here: windows as they are stored (`schemas.tiers`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from plantwire.schemas.identifiers import is_device_id, is_metric_name

# Control characters, which neither a device id nor a metric name has.
RECORD_SEPARATOR: Final = "\x1e"
FIELD_SEPARATOR: Final = "\x1f"
_FIELDS: Final = 6
GRACE_MS: Final = 100
"""How far behind the newest sample of its partition one may be and still find its window open."""


class Window(NamedTuple):
    """One kind of window; `every_ms` is how often one ends."""

    name: str
    size_ms: int
    every_ms: int


ONE_SECOND: Final = Window("1s", 1_000, 1_000)
FIVE_MINUTES: Final = Window("5m", 300_000, 60_000)
WINDOWS: Final = {window.name: window for window in (ONE_SECOND, FIVE_MINUTES)}


class WindowValues(NamedTuple):
    """What a metric did within a window; finite, or infinite where a sum is too large for a double."""

    total: float
    smallest: float
    largest: float
    samples: int

    def to_wire(self) -> dict[str, float | int]:
        """The object that clients see."""
        return {
            "avg": self.total / self.samples,
            "min": self.smallest,
            "max": self.largest,
            "sum": self.total,
            "count": self.samples,
        }


def unpack_windows(packed: str) -> tuple[dict[str, dict[str, WindowValues]], int]:
    """Device → metric → values, and how many records could not be read."""
    devices: dict[str, dict[str, WindowValues]] = {}
    rejected = 0
    for record in packed.split(RECORD_SEPARATOR):
        fields = record.split(FIELD_SEPARATOR)
        if len(fields) != _FIELDS or not is_device_id(fields[0]) or not is_metric_name(fields[1]):
            rejected += 1
            continue
        device_id, metric, total, smallest, largest, samples = fields
        values = WindowValues(float(total), float(smallest), float(largest), int(samples))
        devices.setdefault(device_id, {})[metric] = values
    return devices, rejected


def pack_windows(devices: dict[str, dict[str, WindowValues]]) -> str:
    """The inverse of `unpack_windows`: what SQL does."""
    return RECORD_SEPARATOR.join(
        FIELD_SEPARATOR.join((device_id, metric, *map(repr, values)))
        for device_id, metrics in devices.items()
        for metric, values in metrics.items()
    )
