"""Thinning for many devices: rules unknown and changed, what did not get through, bounded memory."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from plantwire.domain.report_by_exception import Deadband, DeadbandBook
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.report_by_exception import Thinner, ThinningMetrics
from plantwire.schemas.records import AlarmRule, Limit, Metric, Missing, TelemetryFrame

T0 = 1_767_225_600_000
HOT = AlarmRule("hot", 1, "*", "t", (Limit(0, above=90),))


class Rules:
    """Rules that a test sets."""

    def __init__(self) -> None:
        self.book: RuleBook | None = RuleBook()


class Rig:
    """A thinner with its surroundings in reach."""

    def __init__(self, metrics_max: int = 1000) -> None:
        self.rules = Rules()
        self.is_live = True
        self.registry = CollectorRegistry()
        self._frames = 0
        deadbands = DeadbandBook([("press-*", "*", Deadband(percent=10, max_silence_ms=10**9))])
        self.thinner = Thinner(
            deadbands, self.rules, ThinningMetrics(self.registry), metrics_max, lambda: self.is_live
        )

    def frame(self, device_id: str = "press-1", historical: bool = False, **values: float) -> TelemetryFrame:
        self._frames += 1
        at_ms = T0 + self._frames
        metrics = tuple(Metric(name, float(value)) for name, value in values.items())
        return TelemetryFrame(device_id, "", None, at_ms, at_ms, "http", historical, metrics)

    def goes_on(self, device_id: str = "press-1", **values: float) -> bool:
        frame = self.frame(device_id, **(values or {"t": 50}))
        taken = self.thinner.thin(frame)
        assert taken in (frame, None)
        return taken is not None

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"plantwire_gateway_{name}")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_says_nothing_new_is_left_out_and_counted(rig: Rig) -> None:
    assert [rig.goes_on(t=50, p=1), rig.goes_on(t=51, p=1), rig.goes_on(t=50, p=1)] == [True, False, False]
    assert rig.value("values_left_out_total") == 4
    assert rig.value("reporting_metrics_remembered") == 3


def test_what_has_no_deadband_and_what_is_history_goes_on(rig: Rig) -> None:
    assert [rig.goes_on("oven-1") for _ in range(3)] == [True] * 3
    past = [rig.frame(historical=True, t=50) for _ in range(3)]
    assert [rig.thinner.thin(frame) for frame in past] == past


def test_while_no_rules_were_received_nothing_is_left_out(rig: Rig) -> None:
    rig.rules.book = None
    assert [rig.goes_on() for _ in range(3)] == [True] * 3
    rig.rules.book = RuleBook()
    assert [rig.goes_on() for _ in range(2)] == [True, False]


def test_a_rule_counts_from_the_next_value(rig: Rig) -> None:
    assert [rig.goes_on(t=95) for _ in range(2)] == [True, False]
    assert rig.rules.book is not None
    rig.rules.book.put(HOT)
    assert [rig.goes_on(t=95) for _ in range(3)] == [True] * 3
    rig.rules.book.put(msgspec.structs.replace(HOT, version=2, limits=(Limit(0, above=200),)))
    assert [rig.goes_on(t=95) for _ in range(2)] == [True, False]
    rig.rules.book = RuleBook([HOT])
    assert [rig.goes_on(t=95) for _ in range(2)] == [True] * 2


def test_what_was_not_taken_is_reported_again(rig: Rig) -> None:
    assert [rig.goes_on() for _ in range(2)] == [True, False]
    rig.thinner.forget("press-1")
    rig.thinner.forget("never-heard")
    assert [rig.goes_on() for _ in range(2)] == [True, False]


def test_what_went_to_the_buffer_is_reported_again_once_kafka_is_back(rig: Rig) -> None:
    assert [rig.goes_on(), rig.goes_on("press-2")] == [True, True]
    rig.is_live = False
    rig.thinner.on_spilled("press-1", 1)
    rig.thinner.on_spilled("never-heard", 2)
    assert [rig.goes_on() for _ in range(2)] == [False, False]
    rig.is_live = True
    assert [rig.goes_on() for _ in range(2)] == [True, False]
    assert not rig.goes_on("press-2")


def test_memory_is_bounded_and_who_is_forgotten_reports_in_full() -> None:
    rig = Rig(metrics_max=10)
    for number in range(100):
        assert rig.goes_on(f"press-{number}", t=50, p=1)
        assert (rig.value("reporting_metrics_remembered") or 0) <= 10
    assert not rig.goes_on("press-99", t=50, p=1)
    assert rig.goes_on("press-0", t=50, p=1)


def test_a_device_larger_than_the_memory_is_still_thinned() -> None:
    rig = Rig(metrics_max=10)
    many = {f"m{number}": 1.0 for number in range(50)}
    assert [rig.goes_on("press-1", **many), rig.goes_on("press-1", **many)] == [True, False]
    assert rig.goes_on("press-2")
    assert rig.value("reporting_metrics_remembered") == 2


def test_what_someone_waits_for_goes_on_and_of_each_frame_one_value(rig: Rig) -> None:
    assert rig.rules.book is not None
    rig.goes_on(t=50, p=1, q=1)
    rig.rules.book.put(AlarmRule("lost", 1, "press-1", "p", (), missing=(Missing(1, 60_000),)))
    rig.goes_on(t=50, p=1, q=1)

    def kept(**values: float) -> list[str]:
        taken = rig.thinner.thin(rig.frame(**values))
        return [metric.name for metric in taken.metrics] if taken is not None else []

    assert kept(t=50, p=1, q=1) == ["p"]
    assert kept(t=50, q=1) == ["t"]
    rig.goes_on("press-2", t=50)
    assert not rig.goes_on("press-2", t=50)
    rig.rules.book.put(AlarmRule("lost", 2, "press-1", "p", (), missing=(Missing(1, 60_000),), retired=True))
    rig.goes_on(t=50, p=1, q=1)
    assert kept(t=50, p=1, q=1) == []
