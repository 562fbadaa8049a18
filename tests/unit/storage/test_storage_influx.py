"""The sink settles nothing that InfluxDB has not acknowledged or refused, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from plantwire.platform.health import Health
from plantwire.schemas.records import Metric
from plantwire.storage import influx
from plantwire.storage.batch import Record
from plantwire.storage.influx import INFLUX, InfluxSink
from plantwire.storage.influx_client import InfluxAwayError, InfluxRefusedError
from plantwire.storage.influx_metrics import InfluxMetrics
from plantwire.storage.influx_settings import InfluxSettings
from plantwire.storage.supply import KAFKA
from tests.telemetry_truth import frame, record

AT_MS = 1_790_000_000_000


def numbered(*numbers: int) -> list[Record]:
    """A record of one sample for each number, at that offset."""
    return [record(frame("press-1", AT_MS + n, Metric("n", float(n), None)), n) for n in numbers]


class World:
    """Source and InfluxDB in one, with what happened to them in order."""

    obstacle: str | None = None

    def __init__(self, *batches: list[Record]) -> None:
        self.stopping = threading.Event()
        self.metrics = InfluxMetrics()
        self.health = Health((INFLUX, KAFKA))
        self.batches = list(batches)
        self.happened: list[str] = []
        self.sizes: list[int] = []
        self.taken: set[float] = set()
        self.settled: list[int] = []
        self.failures: list[Exception] = []
        self.poison: set[float] = set()
        self.dropped = 0
        self.now_s = 0.0
        self.on_wait: Callable[[], None] = lambda: None

    def run(self, **changes: int) -> None:
        settings = InfluxSettings(influx_url="http://i", influx_database="d", influx_batch_ms=1, **changes)
        InfluxSink(
            settings, self, self, self.metrics, self.health, self.stopping, clock=lambda: self.now_s
        ).run()

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"plantwire_influx_{name}", labels) or 0.0

    def take(self, timeout_s: float) -> list[Record]:
        self.now_s += timeout_s
        if not self.batches:
            self.stopping.set()
            return []
        return self.batches.pop(0)

    def settle(self, records: list[Record]) -> None:
        self.happened.append("settled")
        self.settled += [one.offset for one in records]

    def pause(self) -> None:
        self.happened.append("paused")

    def resume(self) -> None:
        self.happened.append("resumed")

    def wait(self, timeout_s: float) -> None:
        self.now_s += timeout_s
        self.on_wait()

    def look(self, timeout_s: float) -> int | None:
        return 3

    def ready(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.happened.append("asked")

    def write(self, lines: Sequence[bytes]) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.sizes.append(len(lines))
        found = {float(line.rpartition(b"value=")[2].partition(b",")[0]) for line in lines}
        if found & self.poison:
            raise InfluxRefusedError("field type conflict")
        self.taken |= found
        self.happened.append("written")
        return self.dropped


def test_what_came_is_written_and_then_settled() -> None:
    world = World(numbered(0, 1), numbered(2))
    world.run()
    assert world.happened == ["written", "resumed", "settled"] * 2
    assert (world.taken, world.settled) == ({0, 1, 2}, [0, 1, 2])
    assert world.value("samples_total", outcome="written") == 3
    assert world.value("frames_total") == 3
    assert world.value("lag_records") == 3
    assert world.health.obstacles() == []


def test_while_influxdb_is_away_nothing_is_fetched_and_the_same_is_sent_again() -> None:
    world = World(numbered(0, 1))
    world.failures = [InfluxAwayError("no route"), InfluxAwayError("no route")]
    seen: list[list[str]] = []
    world.on_wait = lambda: seen.append(world.health.obstacles())
    world.run()
    assert world.happened == ["paused", "paused", "written", "resumed", "settled"]
    assert seen[0] == ["influxdb: no route"]
    assert world.health.obstacles() == []
    assert world.taken == {0, 1}
    assert world.value("failures_total") == 2


def test_it_waits_as_long_as_it_is_told() -> None:
    world = World(numbered(0))
    world.failures = [InfluxAwayError("busy", 120.0)]
    world.run()
    assert 120 <= world.now_s < 121


def test_told_to_stop_it_settles_nothing_that_is_not_written() -> None:
    world = World(numbered(0), numbered(1))
    world.failures = [InfluxAwayError("no route")] * 1000
    world.on_wait = world.stopping.set
    world.run()
    assert (world.settled, world.taken) == ([], set())


def test_a_sample_that_is_never_taken_is_found_counted_and_left_behind() -> None:
    world = World(numbered(*range(100)))
    world.poison = {17.0, 71.0}
    world.run()
    assert world.taken == set(range(100)) - world.poison
    assert world.settled == list(range(100))
    assert world.value("samples_total", outcome="refused") == 2
    assert world.value("samples_total", outcome="written") == 98
    assert len(world.sizes) < 40


def test_a_request_that_is_refused_whatever_is_in_it_is_waited_for() -> None:
    """By a proxy, or for a setting that is wrong: no sample is given up for it."""
    world = World(numbered(*range(100)))
    world.poison = set(range(100))
    waits: list[list[str]] = []

    def on_wait() -> None:
        waits.append(world.health.obstacles())
        if len(waits) == 20:
            world.poison = {17.0}

    world.on_wait = on_wait
    world.run()
    assert waits[0] == ["influxdb: field type conflict"]
    assert world.taken == set(range(100)) - world.poison
    assert world.settled == list(range(100))
    assert world.value("samples_total", outcome="refused") == 1
    assert world.value("samples_total", outcome="written") == 99


def test_a_few_samples_that_are_refused_hold_nothing_up() -> None:
    world = World(numbered(0, 1), numbered(2))
    world.poison = {0.0, 1.0}
    world.run()
    assert (world.settled, world.taken) == ([0, 1, 2], {2.0})


def test_a_few_samples_that_are_refused_hold_nothing_up_over_an_outage_either() -> None:
    world = World(numbered(0, 1))
    world.poison = {0.0, 1.0}
    inner = world.write

    def write(lines: Sequence[bytes]) -> int:
        if len(world.sizes) == 2 and not world.value("failures_total"):
            raise InfluxAwayError("no route")
        return inner(lines)

    world.write = write  # type: ignore[method-assign]
    waits: list[None] = []

    def on_wait() -> None:
        waits.append(None)
        if len(waits) == 100:
            world.stopping.set()

    world.on_wait = on_wait
    world.run()
    assert world.settled == [0, 1]
    assert world.value("failures_total") == 1


def test_an_outage_in_the_middle_of_the_search_loses_nothing() -> None:
    world = World(numbered(*range(8)))
    world.poison = {5.0}
    inner = world.write

    def write(lines: Sequence[bytes]) -> int:
        if len(world.sizes) == 3 and not world.value("failures_total"):
            raise InfluxAwayError("no route")
        return inner(lines)

    world.write = write  # type: ignore[method-assign]
    world.run()
    assert world.taken == set(range(8)) - {5.0}
    assert world.settled == list(range(8))


def test_what_influxdb_leaves_out_is_counted() -> None:
    world = World(numbered(0, 1, 2))
    world.dropped = 2
    world.run()
    assert world.value("samples_total", outcome="refused") == 2
    assert world.value("samples_total", outcome="written") == 1


def test_a_request_has_at_most_the_samples_that_are_set() -> None:
    world = World(numbered(*range(25)))
    world.run(influx_batch_samples=10)
    assert world.sizes == [10, 10, 5]


def test_records_without_a_line_are_settled_and_counted() -> None:
    world = World([record(b"\x00", 7)])
    world.run()
    assert world.settled == [7]
    assert world.value("left_out_total", reason="undecodable") == 1
    assert "asked" in world.happened


def test_with_nothing_to_do_it_asks_now_and_then_whether_influxdb_is_there() -> None:
    world = World(*[[] for _ in range(5000)])
    world.run()
    assert 2 <= world.happened.count("asked") <= 4
    assert world.settled == []


def test_it_does_not_start_without_an_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PLANTWIRE_INFLUX_URL", raising=False)
    assert influx.main() == 78
    assert "PLANTWIRE_INFLUX_URL" in capsys.readouterr().err
    monkeypatch.setenv("PLANTWIRE_INFLUX_URL", "http://anna:hunter2@influx:8086")
    assert influx.main() == 78
    assert "hunter2" not in capsys.readouterr().err


def test_every_setting_metric_and_reason_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "influxdb.md").read_text("utf-8")
    own = [name for name in InfluxSettings.model_fields if name.startswith("influx_")]
    settings = [f"PLANTWIRE_{name.upper()}" for name in own]
    metrics = [family.name for family in InfluxMetrics().registry.collect()]
    assert len(settings) > 10
    assert len(metrics) > 5
    assert [name for name in (*settings, *metrics) if f"`{name}`" not in text] == []
