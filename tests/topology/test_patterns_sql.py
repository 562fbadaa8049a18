"""The SQL of patterns, as the job has it, over a file of samples: every match against a plain matcher."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from plantwire.platform.pattern_source import load_patterns
from plantwire.schemas.patterns import RiseThenDrop, Spikes, Stuck

BEGIN_MS = 1_761_440_400_000
SERIES = 12
LENGTH = 100

# Times and numbers are small and few, so that limits and spans are met exactly all the time.
PATTERNS = """\
patterns:
  - {id: a-percent, version: 1, devices: "pump-[1-3]", metric: "*", severity: low,
     rise_then_drop: {rises: 2, drop_percent: 25, within_s: 3}}
  - {id: b-by, version: 1, devices: "*", metric: "m?", severity: low,
     rise_then_drop: {rises: 3, drop_by: 2.5, within_s: 2}}
  - {id: c-above, version: 1, devices: "pump-*", metric: "[!x]*", severity: low,
     spikes: {count: 3, above: 5, within_s: 10}}
  - {id: d-below, version: 1, devices: "[p-t]*", metric: "a_b%", severity: low,
     spikes: {count: 2, below: -3, within_s: 4}}
  - {id: e-change, version: 1, devices: "?", metric: "Node Control/[]'a]*", severity: low,
     spikes: {count: 2, change: 6, within_s: 1}}
  - {id: f-stuck, version: 1, devices: "*", metric: "*\\\\*", severity: low,
     stuck: {for_s: 2}}
  - {id: g-stuck, version: 1, devices: "*", metric: "*°*", severity: low,
     stuck: {for_s: 1, samples: 4}}
"""

NAMES = [
    (device, metric)
    for device in ("pump-1", "pump-4", "p", "z", "tank:1@x", "stir.2")
    for metric in (
        "m1",
        "m",
        "x",
        "a_b%",
        "aXbY",
        "Node Control/]",
        "Node Control/'q",
        "C:\\T",
        "T °C",
        "\u6e29°",
    )
]


class Sample(NamedTuple):
    at_ms: int
    number: float


class Found(NamedTuple):
    begins: bool
    start_ms: int
    end_ms: int
    number: float
    limit: float | None


def matches_of(shape: object, samples: Sequence[Sample]) -> list[Found]:
    """The matches as docs/patterns.md defines them."""
    if isinstance(shape, RiseThenDrop):
        return list(drops(shape, samples))
    if isinstance(shape, Spikes):
        return list(spike_groups(shape, samples))
    assert isinstance(shape, Stuck)
    return list(stuck_times(shape, samples))


def drops(shape: RiseThenDrop, samples: Sequence[Sample]) -> Iterator[Found]:
    rises, top, open_top = 0, None, False
    for before, sample in zip([None, *samples], samples, strict=False):
        rises = rises + 1 if before is not None and sample.number > before.number else 0
        if rises >= shape.rises:
            top, open_top = sample, True
            continue
        if top is None or not open_top:
            continue
        depth = shape.drop_by if shape.drop_percent is None else abs(top.number) * (shape.drop_percent / 100)
        assert depth is not None
        if sample.number < top.number and sample.number <= top.number - depth:
            open_top = False
            if sample.at_ms - top.at_ms <= shape.within_s * 1000:
                yield Found(True, top.at_ms, sample.at_ms, sample.number, top.number - depth)


def spike_groups(shape: Spikes, samples: Sequence[Sample]) -> Iterator[Found]:
    group: list[Sample] = []
    for before, sample in zip([None, *samples], samples, strict=False):
        if shape.change is not None:
            is_spike = before is not None and abs(sample.number - before.number) > shape.change
        else:
            sign, limit = (1, shape.above) if shape.above is not None else (-1, shape.below)
            assert limit is not None
            is_spike = sign * sample.number > sign * limit and (
                before is None or sign * before.number <= sign * limit
            )
        if not is_spike:
            continue
        group = [spike for spike in group if sample.at_ms - spike.at_ms <= shape.within_s * 1000] + [sample]
        if len(group) == shape.count:
            limit = next(size for size in (shape.above, shape.below, shape.change) if size is not None)
            yield Found(True, group[0].at_ms, sample.at_ms, sample.number, limit)
            group = []


def stuck_times(shape: Stuck, samples: Sequence[Sample]) -> Iterator[Found]:
    first, count, told = samples[0], 0, False
    # Of the first sample it is not known whether it moved.
    yield Found(False, first.at_ms, first.at_ms, first.number, None)
    for sample in samples:
        if sample.number != first.number:
            if told:
                yield Found(False, first.at_ms, sample.at_ms, sample.number, None)
            first, count, told = sample, 0, False
        count += 1
        if not told and count >= shape.samples and sample.at_ms - first.at_ms >= shape.for_s * 1000:
            told = True
            yield Found(True, first.at_ms, sample.at_ms, sample.number, None)


def make_series(rng: random.Random, kind: object) -> list[Sample]:
    """In the order of their times, with times that occur twice."""
    at_ms, number, samples = BEGIN_MS, float(rng.randrange(-4, 8)), []
    for _ in range(LENGTH):
        at_ms += rng.choice((0, 1, 250, 500, 500, 999, 1000, 1001, 3000))
        move = rng.random()
        if isinstance(kind, Stuck):
            number += 0.0 if move < 0.8 else 1.5
        elif isinstance(kind, Spikes):
            number = rng.choice((-8.0, -3.0, 0.0, 3.0, 5.0, 9.0))
        elif move < 0.6:
            number += rng.choice((0.5, 1.0, 0.0))
        elif move < 0.8:
            number -= rng.choice((0.5, 2.5, 7.0))
        else:
            number = float(rng.randrange(-8, 12))
        samples.append(Sample(at_ms, number))
    return samples


def once(samples: Sequence[Sample]) -> list[Sample]:
    """Of several with the same time, the first."""
    return [sample for n, sample in enumerate(samples) if n == 0 or sample.at_ms != samples[n - 1].at_ms]


def in_flink(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "patterns.yaml").write_text(PATTERNS)
    (folder / "samples.json").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    names = [orjson.dumps({"device_id": device, "metric": metric}) for device, metric in NAMES]
    (folder / "names.json").write_bytes(b"\n".join(names))
    # A process of its own: a JVM in this one would outlive the test.
    script = Path(__file__).with_name("matches_of_file.py")
    files = ("patterns.yaml", "samples.json", "names.json", "matches.json")
    result = subprocess.run(
        [sys.executable, str(script), *(str(folder / name) for name in files)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answer: dict[str, Any] = orjson.loads((folder / "matches.json").read_bytes())
    return answer


def test_matches_are_what_a_plain_matcher_finds(tmp_path: Path) -> None:
    (tmp_path / "patterns.yaml").write_text(PATTERNS)
    patterns = load_patterns([tmp_path / "patterns.yaml"])
    assert isinstance(patterns, list)
    rng = random.Random(23)
    rows: list[tuple[float, dict[str, Any]]] = []
    expected: dict[tuple[int, str], list[Found]] = {}
    for number, pattern in enumerate(patterns):
        for device in (f"d{n}" for n in range(SERIES)):
            series = make_series(rng, pattern.shape)
            expected[number, device] = matches_of(pattern.shape, once(series))
            for sample in series:
                row = {
                    "pattern_no": number,
                    "device_id": device,
                    "site": f"hall of {device}",
                    "metric": 'a "metric", it\'s',
                    "sample_ms": sample.at_ms,
                    "number": sample.number,
                }
                # Out of order by less than the grace; those with the same time stay in their order.
                rows.append((sample.at_ms + random.Random(f"{device}{sample.at_ms}").randrange(1900), row))
    rows.sort(key=lambda row: row[0])
    answer = in_flink(tmp_path, [row for _, row in rows])

    found: dict[tuple[int, str], list[Found]] = {key: [] for key in expected}
    for match in answer["matches"]:
        assert match["site"] == f"hall of {match['device_id']}"
        assert match["metric"] == 'a "metric", it\'s'
        found[match["pattern_no"], match["device_id"]].append(
            Found(match["begins"], match["start_ms"], match["end_ms"], match["number"], match["limit_number"])
        )
    assert found == expected
    for number, pattern in enumerate(patterns):
        of_pattern = [match for key, matches in expected.items() if key[0] == number for match in matches]
        assert len(of_pattern) >= 20, pattern.pattern_id
        if not isinstance(pattern.shape, Stuck):
            # The bound itself is met, and counts.
            spans_ms = {match.end_ms - match.start_ms for match in of_pattern}
            assert max(spans_ms) == pattern.shape.within_s * 1000, pattern.pattern_id

    assert sorted(answer["marks"]) == sorted(
        [device, metric, number]
        for device, metric in NAMES
        for number, pattern in enumerate(patterns)
        if fnmatchcase(device, pattern.devices) and fnmatchcase(metric, pattern.metric)
    )
    assert {number for _, _, number in answer["marks"]} == set(range(len(patterns)))
