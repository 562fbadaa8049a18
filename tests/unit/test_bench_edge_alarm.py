"""The edge bench expects exactly the events that the rules give, and sees what is lost or doubled."""

from __future__ import annotations

import msgspec
import orjson

from bench.edge_alarm_plan import RULE, EdgePlan, compare
from bench.receipts import Receipts
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import AlarmEvent
from plantwire.schemas.wire import alarm_to_wire

PLAN = EdgePlan(name="plant", devices=7, frames_per_s=200, warm_up_s=0.5, duration_s=2.0)
START_MS = 1_795_000_000_000


def events_of(plan: EdgePlan) -> list[AlarmEvent]:
    """What the rules make of the plan's frames."""
    book = RuleBook((RULE,))
    detectors = [
        DeviceDetector(plan.device_id(n), book.for_device(plan.device_id(n))) for n in range(plan.devices)
    ]
    events = []
    for frame in range(plan.frames):
        body = orjson.loads(plan.payload(START_MS, frame))
        at_ms = body["timestamp"]
        readings = [(name, value, at_ms) for name, value in body["metrics"].items()]
        events += detectors[frame % plan.devices].take_readings(readings, at_ms, "", at_ms)
    return events


def receipts_of(events: list[AlarmEvent], clients: int = 2) -> Receipts:
    messages = [msgspec.json.encode(["alarm", _emitted(alarm_to_wire(event))]).decode() for event in events]
    numbers = list(range(len(events)))
    return Receipts(
        messages=messages,
        clients=[client for client in range(clients) for _ in numbers],
        numbers=numbers * clients,
        received_ns=[(events[n].event_time_ms + 3) * 1_000_000 for n in numbers] * clients,
        telemetry=0,
        disconnected=[],
        cpu_s=0.0,
    )


def _emitted(alarm: dict[str, object]) -> dict[str, object]:
    hops = alarm["hops"]
    assert isinstance(hops, dict)
    hops["gatewayIn"] = alarm["timestamp"] + 1.0  # type: ignore[operator]
    hops["emitted"] = hops["gatewayIn"] + 0.5
    return alarm


def test_every_crossing_after_the_warm_up_is_an_event_and_no_other() -> None:
    crossings = PLAN.crossings(START_MS)
    from_ms = START_MS + 500
    expected = [(e.device_id, e.event_time_ms) for e in events_of(PLAN) if e.event_time_ms >= from_ms]
    assert crossings == expected
    assert len(crossings) > 80


def test_all_that_came_counts_and_nothing_else() -> None:
    crossings = PLAN.crossings(START_MS)
    found = compare(crossings, 2, receipts_of(events_of(PLAN)))
    assert (found.expected, found.lost, found.doubled) == (2 * len(crossings), 0, 0)
    assert found.path_ms is not None
    assert found.arrival_ms is not None
    assert found.gateway_ms is not None
    assert found.client_ms is not None
    assert (found.path_ms.count, found.path_ms.p99) == (2 * len(crossings), 3.0)
    assert (found.arrival_ms.max, found.gateway_ms.max, found.client_ms.max) == (1.0, 0.5, 1.5)


def test_what_is_lost_or_doubled_shows() -> None:
    events = events_of(PLAN)
    missing = events[:-1]
    assert compare(PLAN.crossings(START_MS), 2, receipts_of(missing)).lost == 2
    doubled = [*events, events[-1]]
    assert compare(PLAN.crossings(START_MS), 1, receipts_of(doubled, clients=1)).doubled == 1
