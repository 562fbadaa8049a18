"""Which time an event is stamped with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.chirpstack.event_time import EARLIEST_MS, choose_event_time_ms
from plantwire.gateway.chirpstack.events import RxInfo

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp()) * 1000
AHEAD_MS = 60_000
SECOND = timedelta(seconds=1)


def test_the_event_s_time_is_taken_where_it_is_credible() -> None:
    receptions = [RxInfo(ns_time=NOW)]
    for late in (timedelta(), timedelta(days=300), -timedelta(milliseconds=AHEAD_MS)):
        time = NOW - late
        assert choose_event_time_ms(time, receptions, NOW_MS, AHEAD_MS) == (
            NOW_MS - late // timedelta(milliseconds=1),
            False,
        )


def test_it_is_replaced_by_the_earliest_credible_one_of_the_network_server() -> None:
    receptions = [
        RxInfo(ns_time=NOW - SECOND),
        RxInfo(ns_time=NOW - 2 * SECOND),
        RxInfo(ns_time=datetime(1980, 1, 6, tzinfo=UTC)),
        RxInfo(gw_time=NOW - 9 * SECOND),
    ]
    ahead = NOW + timedelta(hours=1)
    assert choose_event_time_ms(ahead, receptions, NOW_MS, AHEAD_MS) == (NOW_MS - 2000, True)
    assert choose_event_time_ms(None, receptions, NOW_MS, AHEAD_MS) == (NOW_MS - 2000, False)


def test_else_by_ours() -> None:
    receptions = [RxInfo(ns_time=NOW + timedelta(days=1))]
    assert choose_event_time_ms(datetime(2003, 1, 1, tzinfo=UTC), receptions, NOW_MS, AHEAD_MS) == (
        NOW_MS,
        True,
    )


times = st.none() | st.datetimes(timezones=st.just(UTC))


@given(times, st.lists(times, max_size=4))
def test_the_choice_is_always_credible(time: datetime | None, server_times: list[datetime | None]) -> None:
    receptions = [RxInfo(ns_time=one) for one in server_times]
    chosen_ms, _ = choose_event_time_ms(time, receptions, NOW_MS, AHEAD_MS)
    assert EARLIEST_MS <= chosen_ms <= NOW_MS + AHEAD_MS
