"""Rebirth requests are spread over time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.sparkplug.outcome import EdgeNodeId, RebirthReason, RequestRebirth
from plantwire.gateway.sparkplug.rebirth_pace import RebirthPace


def request(node: object, reason: RebirthReason = RebirthReason.BEFORE_BIRTH) -> RequestRebirth:
    return RequestRebirth(EdgeNodeId("plant", str(node)), reason)


def test_a_thousand_nodes_are_asked_in_their_order_at_the_settled_rate() -> None:
    pace = RebirthPace(20.0, 1000, now_ms=0)
    requests = [request(node) for node in range(1000)]
    assert all(pace.ask(one) for one in requests)
    asked: list[RequestRebirth] = []
    now_ms = 0
    while (due_ms := pace.next_due_ms()) is not None:
        now_ms = max(now_ms, due_ms)
        asked += pace.take_due(now_ms)
    assert asked == requests
    assert 48_900 <= now_ms <= 49_100  # a first 20 at once, the other 980 at 20 a second


def test_a_node_waits_once_and_can_be_withdrawn() -> None:
    pace = RebirthPace(1.0, 2, now_ms=0)
    assert pace.ask(request("a"))
    assert pace.ask(request("a", RebirthReason.SEQUENCE_GAP))
    assert pace.ask(request("b"))
    assert len(pace) == 2
    assert not pace.ask(request("c"))  # full
    pace.withdraw(EdgeNodeId("plant", "a"))
    pace.withdraw(EdgeNodeId("plant", "never asked"))
    assert pace.ask(request("c"))
    assert pace.take_due(0) == [request("b")]
    assert pace.take_due(999) == []
    assert pace.take_due(1000) == [request("c")]
    assert pace.next_due_ms() is None


def test_the_first_reason_stays_until_a_node_was_asked() -> None:
    pace = RebirthPace(1.0, 2, now_ms=0)
    pace.ask(request("a", RebirthReason.MALFORMED))
    pace.ask(request("a", RebirthReason.SEQUENCE_GAP))
    assert pace.take_due(0) == [request("a", RebirthReason.MALFORMED)]


def test_cleared() -> None:
    pace = RebirthPace(1.0, 2, now_ms=0)
    pace.ask(request("a"))
    pace.clear()
    assert (len(pace), pace.take_due(0), pace.next_due_ms()) == (0, [], None)


def test_less_than_one_in_a_second() -> None:
    pace = RebirthPace(0.1, 10, now_ms=0)
    for node in "abc":
        pace.ask(request(node))
    assert pace.take_due(0) == [request("a")]
    assert pace.next_due_ms() == 10_000
    assert pace.take_due(10_000) == [request("b")]


@given(
    st.floats(0.1, 100),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 30)), max_size=60),
)
def test_never_more_than_the_rate_and_a_first_burst(per_s: float, steps: list[tuple[int, int]]) -> None:
    pace = RebirthPace(per_s, 20, now_ms=0)
    now_ms, taken = 0, 0
    for wait_ms, node in steps:
        now_ms += wait_ms
        pace.ask(request(node))
        taken += len(pace.take_due(now_ms))
        assert taken <= max(1.0, per_s) + per_s * now_ms / 1000 + 1e-6
        assert len(pace) <= 20
