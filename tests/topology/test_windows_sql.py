"""The windows' SQL, as the job has it, over a file of samples: every window against a plain computation."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import orjson

from plantwire.schemas.windows import FIVE_MINUTES, ONE_SECOND, Window, WindowValues

# A whole hour and a bit, so that windows of 5 min begin before the first sample and end after the last.
BEGIN_MS = 1_761_440_400_000  # 2025-10-26T01:00Z: in central Europe an hour that comes twice
SPAN_MS = 11 * 60_000
Key = tuple[str, str, int]


def make_samples(rng: random.Random) -> list[tuple[str, str, int, float]]:
    """(device, metric, time in ms, number), not further out of order than the grace."""
    samples = []
    for device, metric, every_ms in (
        ("a", "x", 137),
        ("a", "y", 5_000),
        ("b", "x", 1_000),
        ("c", "z", 70_000),
    ):
        for at_ms in range(BEGIN_MS, BEGIN_MS + SPAN_MS, every_ms):
            # Both ends of a second are cases of their own.
            at_ms += rng.choice((0, 999 - at_ms % 1000, rng.randrange(1000)))
            # Multiples of 1/8: their sums are exact in any order.
            samples.append((device, metric, at_ms, rng.randrange(-4000, 4000) / 8))
    return sorted(samples, key=lambda sample: sample[2] + rng.randrange(90))


def expected(samples: list[tuple[str, str, int, float]], window: Window) -> dict[Key, WindowValues]:
    """The windows as they are defined: every one that a sample lies in."""
    numbers: defaultdict[Key, list[float]] = defaultdict(list)
    for device, metric, at_ms, number in samples:
        end_ms = at_ms // window.every_ms * window.every_ms + window.every_ms
        while end_ms - window.size_ms <= at_ms:
            numbers[device, metric, end_ms].append(number)
            end_ms += window.every_ms
    return {k: WindowValues(sum(n), min(n), max(n), len(n)) for k, n in numbers.items()}


def test_windows_are_what_a_plain_computation_gives(tmp_path: Path) -> None:
    samples = make_samples(random.Random(5))
    lines = [
        orjson.dumps({"device_id": device, "metric": metric, "number": number, "at_ms": at_ms})
        for device, metric, at_ms, number in samples
    ]
    (tmp_path / "samples.json").write_bytes(b"\n".join(lines))
    # A process of its own: a JVM in this one would outlive the test.
    script = Path(__file__).with_name("windows_of_file.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "samples.json"), str(tmp_path / "windows.json")],
        env={**os.environ, "TZ": "Europe/Berlin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = {
        window: {(device, metric, end_ms): WindowValues(*values) for device, metric, end_ms, *values in rows}
        for window, rows in orjson.loads((tmp_path / "windows.json").read_bytes()).items()
    }
    assert found["1s"] == expected(samples, ONE_SECOND)
    assert found["5m"] == expected(samples, FIVE_MINUTES)
