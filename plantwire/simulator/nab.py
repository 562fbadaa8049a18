"""A real machine, replayed: the machine temperature of the Numenta Anomaly Benchmark.

In: the copy of the data in this package. Out: the sample at a replay position; the labelled windows.
Guarantees: the samples in their order, then from the beginning again; the replay starts
`START_INDEX` samples in, shortly before the failure of 16 December 2013.
Not here: when which sample is due (`simulator.run`); the rules for it (rules/nab.yaml).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib import resources
from typing import Final

import msgspec

DEVICE_ID: Final = "nab-machine-01"
SITE: Final = "nab"
METRIC: Final = "temperature"
START_INDEX: Final = 3690
"""13 samples before the labelled window in which the first failure lies."""


class Sample(msgspec.Struct, frozen=True):
    """One reading: when it was taken, as the corpus writes it (no zone), and °F."""

    recorded: str
    value: float


class Window(msgspec.Struct, frozen=True):
    """A labelled anomaly, first and last moment, as `Sample.recorded`; the text sorts as the time does."""

    start: str
    end: str

    def holds(self, sample: Sample) -> bool:
        """Whether the sample lies in the window."""
        return self.start <= sample.recorded <= self.end


class Replay:
    """The recording as an endless series."""

    def __init__(self, samples: Sequence[Sample], start_index: int = START_INDEX) -> None:
        if not samples:
            raise ValueError("a replay needs at least one sample")
        self._samples = samples
        self._start_index = start_index

    def sample_at(self, position: int) -> Sample:
        """The sample `position` samples after the start of the replay."""
        return self._samples[(self._start_index + position) % len(self._samples)]


def load_samples() -> tuple[Sample, ...]:
    """All 22,695 samples, 5 minutes apart."""
    text = _data("machine_temperature.csv")
    return tuple(Sample(row["timestamp"], float(row["value"])) for row in csv.DictReader(text.splitlines()))


def load_windows() -> tuple[Window, ...]:
    """The corpus's four labelled windows."""
    windows = json.loads(_data("machine_temperature_anomaly_windows.json"))
    return tuple(Window(_seconds(start), _seconds(end)) for start, end in windows)


def _seconds(timestamp: str) -> str:
    # The windows are written with a fraction of zeros that the samples do not have.
    return timestamp.partition(".")[0]


def _data(name: str) -> str:
    return resources.files("plantwire.simulator").joinpath("data", "nab", name).read_text("utf-8")
