"""Lost, doubled and late alarms are found as such, and only those."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.deliveries import STAGES, WHOLE, ExpectedRaise, Matcher, compare
from bench.receipts import Receipts

DEVICE, METRIC = "bench-0001", "metric-01"
RAISE_MS, CLEAR_MS = 1_000_000, 1_003_000


def expected_raise(
    raise_ms: int = RAISE_MS, clear_ms: int = CLEAR_MS, measured: bool = True
) -> ExpectedRaise:
    return ExpectedRaise(DEVICE, METRIC, raise_ms, clear_ms, measured)


def wire(kind: str, event_ms: int, revision: int = 1, **changes: Any) -> str:
    alarm = {
        "alarmId": "a1",
        "revision": revision,
        "deviceId": DEVICE,
        "metric": METRIC,
        "severity": "CRITICAL",
        "kind": kind,
        "timestamp": event_ms,
        "hops": {
            "device": event_ms,
            "gatewayIn": event_ms + 2,
            "gatewayOut": event_ms + 3,
            "detectIn": event_ms + 7,
            "detectOut": event_ms + 8,
            "published": event_ms + 9,
            "emitted": event_ms + 12,
        },
    } | changes
    return msgspec.json.encode(["alarm", alarm]).decode()


def receipts(messages: list[str], got: list[tuple[int, int, float]]) -> Receipts:
    """`got`: (client, message number, received ms)."""
    return Receipts(
        messages=messages,
        clients=[client for client, _, _ in got],
        numbers=[number for _, number, _ in got],
        received_ns=[round(ms * 1e6) for _, _, ms in got],
        telemetry=0,
        disconnected=[],
        cpu_s=0,
    )


RAISED, CLEARED = wire("RAISED", RAISE_MS), wire("CLEARED", CLEAR_MS, revision=2)
COMPLETE = [
    (client, number, (RAISE_MS, CLEAR_MS)[number] + 15 + client) for client in (0, 1) for number in (0, 1)
]


def test_everything_received_once_is_neither_lost_nor_doubled() -> None:
    found = compare([expected_raise()], receipts([RAISED, CLEARED], COMPLETE), range(2))
    assert (found.lost_raises, found.lost_clears, found.doubled, found.unexpected) == (0, 0, 0, 0)


def test_a_raise_missing_at_one_client_is_lost_once() -> None:
    got = [entry for entry in COMPLETE if entry[:2] != (1, 0)]
    found = compare([expected_raise()], receipts([RAISED, CLEARED], got), range(2))
    assert (found.lost_raises, found.lost_clears) == (1, 0)
    assert found.lost_examples == (f"client 1: {DEVICE} {METRIC} raised at {RAISE_MS}",)


def test_a_clear_missing_everywhere_is_lost_at_every_client() -> None:
    got = [entry for entry in COMPLETE if entry[1] == 0]
    found = compare([expected_raise()], receipts([RAISED, CLEARED], got), range(2))
    assert (found.lost_raises, found.lost_clears) == (0, 2)


def test_the_same_revision_twice_at_one_client_is_doubled_whatever_the_bytes() -> None:
    other_bytes = RAISED.replace('"alarm"', '"alarm-updated"', 1)
    got = [*COMPLETE, (1, 2, RAISE_MS + 40)]
    found = compare([expected_raise()], receipts([RAISED, CLEARED, other_bytes], got), range(2))
    assert found.doubled == 1
    assert found.doubled_examples == ("client 1: a1 revision 1",)


def test_one_planned_raise_under_a_second_id_is_found_per_client_and_is_not_doubled() -> None:
    second, third = (wire("RAISED", RAISE_MS + ms, alarmId=f"a{ms}") for ms in (100, 200))
    got = [*COMPLETE, (1, 2, RAISE_MS + 115.0), (1, 3, RAISE_MS + 215.0), (0, 2, RAISE_MS + 115.0)]
    found = compare([expected_raise()], receipts([RAISED, CLEARED, second, third], got), range(2))
    assert (found.second_ids, found.doubled, found.lost_raises, found.unexpected) == (3, 0, 0, 0)
    assert found.second_id_examples == (
        f"client 0: {DEVICE} {METRIC} raised at {RAISE_MS} as a1, a100",
        f"client 1: {DEVICE} {METRIC} raised at {RAISE_MS} as a1, a100, a200",
    )


def test_later_revisions_and_other_raises_are_no_second_id() -> None:
    later = expected_raise(RAISE_MS + 60_000, CLEAR_MS + 60_000)
    again, other = wire("RAISED", RAISE_MS + 100, revision=3), wire("RAISED", later.raise_ms, alarmId="b")
    got = [*COMPLETE, (0, 2, RAISE_MS + 115.0), (0, 3, later.raise_ms + 15.0)]
    found = compare([expected_raise(), later], receipts([RAISED, CLEARED, again, other], got), range(2))
    assert (found.second_ids, found.second_id_examples) == (0, ())


def test_a_doubled_alarm_keeps_the_time_of_its_first_receipt() -> None:
    got = [*COMPLETE, (0, 0, RAISE_MS + 500)]
    found = compare([expected_raise()], receipts([RAISED, CLEARED], got), range(2))
    assert found.whole.ms is not None
    assert found.whole.ms.max == 16


def test_an_alarm_that_nobody_planned_is_unexpected() -> None:
    stranger = wire("RAISED", RAISE_MS, deviceId="bench-9999", alarmId="b")
    found = compare(
        [expected_raise()], receipts([RAISED, CLEARED, stranger], [*COMPLETE, (0, 2, 1.0)]), range(2)
    )
    assert (found.unexpected, found.lost_raises) == (1, 0)


def test_a_raise_of_lesser_severity_does_not_stand_for_the_critical_one() -> None:
    high = wire("RAISED", RAISE_MS, severity="HIGH")
    found = compare([expected_raise()], receipts([high], [(0, 0, RAISE_MS + 5.0)]), range(1))
    assert (found.lost_raises, found.unexpected) == (1, 1)


def test_other_clients_receipts_do_not_count() -> None:
    found = compare([expected_raise()], receipts([RAISED, CLEARED], COMPLETE), [5])
    assert (found.lost_raises, found.clients) == (1, 1)


def test_latency_is_of_the_window_but_losses_of_the_whole_run() -> None:
    warm_up = expected_raise(RAISE_MS - 100_000, CLEAR_MS - 100_000, measured=False)
    found = compare([warm_up, expected_raise()], receipts([RAISED, CLEARED], COMPLETE), range(2))
    assert (found.lost_raises, found.expected_raises, found.measured_raises) == (2, 2, 1)
    assert found.whole.ms is not None
    assert found.whole.ms.count == 2


def test_the_stages_follow_each_other_without_gap_and_add_up() -> None:
    assert [stage.begins for stage in STAGES[1:]] == [stage.ends for stage in STAGES[:-1]]
    assert (STAGES[0].begins, STAGES[-1].ends) == (WHOLE.begins, WHOLE.ends)
    found = compare([expected_raise()], receipts([RAISED, CLEARED], COMPLETE), range(1))
    assert [stage.ms and stage.ms.max for stage in found.stages] == [2, 1, 4, 2, 6]
    assert found.whole.ms is not None
    assert found.whole.ms.max == 15


def test_the_path_begins_at_the_intended_time_even_where_a_later_frame_raised_it() -> None:
    later = wire("RAISED", RAISE_MS + 100)
    found = compare([expected_raise()], receipts([later], [(0, 0, RAISE_MS + 115.0)]), range(1))
    assert found.lost_raises == 0
    assert found.whole.ms is not None
    assert found.whole.ms.max == 115


def test_median_and_last_client_are_per_alarm() -> None:
    got = [(client, 0, RAISE_MS + ms) for client, ms in enumerate((10.0, 20.0, 90.0))]
    found = compare([expected_raise()], receipts([RAISED], got), range(3))
    assert found.median_client_ms is not None
    assert found.last_client_ms is not None
    assert (found.median_client_ms.max, found.last_client_ms.max) == (20, 90)


def test_bands_say_what_the_slowest_pairs_are_made_of() -> None:
    got = [(client, 0, RAISE_MS + 15.0) for client in range(99)] + [(99, 0, RAISE_MS + 115.0)]
    bands = {
        band.name: band for band in compare([expected_raise()], receipts([RAISED], got), range(100)).bands
    }
    assert bands["above p99"].pairs == 1
    assert bands["above p99"].stage_mean_ms["WebSocket delivery"] == 106
    assert bands["above p99"].stage_share["WebSocket delivery"] == pytest.approx(0.922, abs=0.001)
    assert bands["all"].pairs == 100


@pytest.mark.parametrize(
    ("event_ms", "clear", "index"),
    [
        (RAISE_MS - 1, False, None),
        (RAISE_MS, False, 0),
        (CLEAR_MS - 1, False, 0),
        (CLEAR_MS, False, None),
        (CLEAR_MS, True, 0),
        (RAISE_MS, True, None),
        (RAISE_MS + 100_000, False, 1),
        (CLEAR_MS + 100_000, True, 1),
    ],
)
def test_an_event_belongs_to_the_raise_in_force_at_its_time(
    event_ms: int, clear: bool, index: int | None
) -> None:
    matcher = Matcher([expected_raise(), expected_raise(RAISE_MS + 100_000, CLEAR_MS + 100_000)])
    assert matcher.find(DEVICE, METRIC, event_ms, clear=clear) == index
