"""What a run must do to hold, and what is reported of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.cpu import Usage
from bench.deliveries import compare
from bench.fire_check import FireCheck
from bench.freshness import Freshness
from bench.latency import holds, main_targets, parse_arguments
from bench.latency_run import LatencyRun, expected_raises
from bench.load_generator import LoadResult
from bench.load_schedule import LoadPlan
from bench.receipts import Receipts
from bench.spread import distribution

PLAN = LoadPlan(warm_up_ms=0, window_ms=1_000)
START_MS = 1_750_000_000_000


def run_with(path_ms: float, **changes: Any) -> LatencyRun:
    """A run in which every raise and clear reached both clients after `path_ms`."""
    expected = expected_raises(PLAN, START_MS)
    messages, numbers, received_ns = [], [], []
    for index, raise_ in enumerate(expected):
        for kind, event_ms, revision in (("RAISED", raise_.raise_ms, 1), ("CLEARED", raise_.clear_ms, 2)):
            hops = dict.fromkeys(
                ("device", "gatewayIn", "gatewayOut", "detectIn", "detectOut", "published", "emitted"),
                event_ms,
            )
            alarm = {
                "alarmId": f"a{index}",
                "revision": revision,
                "deviceId": raise_.device_id,
                "metric": raise_.metric,
                "severity": "CRITICAL",
                "kind": kind,
                "timestamp": event_ms,
                "hops": hops,
            }
            messages.append(msgspec.json.encode(["alarm", alarm]).decode())
            numbers.append(len(messages) - 1)
            received_ns.append(round((event_ms + path_ms) * 1e6))
    receipts = Receipts(messages, [0] * len(messages), numbers, received_ns, 0, [], 0.0)
    delivered = compare(expected, receipts, [0])
    run = LatencyRun(
        plan=PLAN,
        load=LoadResult(PLAN.frame_count, PLAN.frame_count, PLAN.frame_count, {}, None, None, 0.0),
        delivered=delivered,
        official=compare(expected, receipts, [0], timed=False),
        fire=FireCheck(len(messages), len(expected), 0, 0, 0, 0),
        cpu=Usage({}, 0.0, ()),
        window_s=1.0,
        cores_by_part={},
        other_cores=0.0,
        telemetry_messages_per_s=0.0,
        disconnected=(),
        pending_records=0,
        freshness=Freshness(distribution([path_ms * 10]), 0, 1, distribution([1.0])),
    )
    return msgspec.structs.replace(run, **changes)


def test_a_quick_complete_run_holds_and_so_do_its_targets() -> None:
    run = run_with(20.0)
    assert holds(run)
    assert [target.name for target in main_targets(run) if not target.holds] == []


def test_a_slow_run_does_not_hold() -> None:
    run = run_with(100.0)
    assert not holds(run)
    failed = {target.name for target in main_targets(run) if not target.holds}
    assert {
        "whole path, critical, p99",
        "whole path, critical, p95",
        "device → queryable row, p99",
    } <= failed


def test_a_frame_that_was_not_accepted_ends_the_knee() -> None:
    load = LoadResult(
        PLAN.frame_count, PLAN.frame_count, PLAN.frame_count - 1, {"status 503": 1}, None, None, 0.0
    )
    run = run_with(20.0, load=load)
    assert not holds(run)
    assert "frames not accepted" in {target.name for target in main_targets(run) if not target.holds}


def test_a_run_without_any_alarm_does_not_hold_and_claims_no_latency() -> None:
    nothing = compare(expected_raises(PLAN, START_MS), Receipts([], [], [], [], 0, [], 0.0), [0])
    run = run_with(20.0, delivered=nothing)
    assert not holds(run)
    targets = {target.name: target.holds for target in main_targets(run)}
    assert "whole path, critical, p99" not in targets
    assert targets["raises lost at a client"] is False


def test_a_loss_at_an_official_client_counts() -> None:
    expected = expected_raises(PLAN, START_MS)
    official = compare(expected, Receipts([], [], [], [], 0, [], 0.0), [0], timed=False)
    failed = {t.name for t in main_targets(run_with(20.0, official=official)) if not t.holds}
    assert failed == {"raises lost at a client", "clears lost at a client"}


def test_a_raise_under_a_second_id_counts_wherever_it_is_seen() -> None:
    run = run_with(20.0)
    name = "raises under a second id"
    doubled = msgspec.structs.replace(run.delivered, second_ids=1)
    for changes in (
        {"delivered": doubled},
        {"official": msgspec.structs.replace(run.official, second_ids=1)},
        {"fire": msgspec.structs.replace(run.fire, second_ids=1)},
    ):
        targets = main_targets(msgspec.structs.replace(run, **changes))
        assert {target.name for target in targets if not target.holds} == {name}
    assert not holds(run_with(20.0, delivered=doubled))


def test_expected_raises_are_the_plans_at_its_start() -> None:
    expected = expected_raises(PLAN, START_MS)
    assert len(expected) == PLAN.raise_count
    assert all(START_MS <= raise_.raise_ms < raise_.clear_ms for raise_ in expected)


@pytest.mark.parametrize("words", [["--official", "0"], ["--clients", "2", "--official", "2"]])
def test_there_are_always_clients_of_both_kinds(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(words)
