"""The ledger: places, what is saved of it, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantwire.gateway.buffer.changes import Changes
from plantwire.gateway.buffer.entry import BufferStats, DropReason
from plantwire.gateway.buffer.ledger import SAVED_KEY, Ledger, counts_without_gateway, total
from plantwire.gateway.buffer.ledger_report import ledger_report
from plantwire.gateway.buffer.read_only import read_only_stats
from plantwire.gateway.metrics import GatewayMetrics
from tests.unit.gateway.buffer.buffer_rig import Rig, entry

MOVES = ("receive", "refuse", "deliver", "store", "drop", "deliver_stored", "drain", "lose")


@given(st.lists(st.tuples(st.sampled_from(MOVES), st.sampled_from(["http", "mqtt-json"]))))
def test_any_move_keeps_the_identity_and_a_restart_too(moves: list[tuple[str, str]]) -> None:
    ledger = Ledger()
    for move, source in moves:
        account = ledger.account(source)
        if move == "refuse":
            account.refuse(DropReason.UNCHANGED)
        elif move == "drop":
            account.drop(DropReason.RETURNED)
        elif move == "lose":
            ledger.handle_drop(source, DropReason.EVICTED_FULL, 2)
        else:
            getattr(account, move)()
        assert all(counts.identity_holds for counts in ledger.counts().values())
    rows = {source: max(0, counts.buffered) for source, counts in ledger.counts().items()}
    for source, counts in counts_without_gateway(ledger.save(), rows).items():
        assert counts.identity_holds
        assert counts.buffered == rows[source]
        assert counts.delivered_live == ledger.counts()[source].delivered_live
    assert total(ledger.counts()).identity_holds


def test_drops_found_while_opening_are_counted_once() -> None:
    ledger = Ledger()
    ledger.account("http").receive(3)
    for _ in range(3):
        ledger.account("http").store()
    again = Ledger()
    again.handle_drop("http", DropReason.CORRUPT, 1)  # the buffer tells before it is open
    again.restore(ledger.save(), {"http": 2})
    counts = again.counts()["http"]
    assert (counts.received, counts.buffered, counts.dropped) == (3, 2, {"corrupt": 1})
    assert counts.identity_holds


def test_rows_are_taken_over_even_if_the_saved_counts_are_garbage() -> None:
    ledger = Ledger()
    with pytest.raises(msgspec.MsgspecError):
        ledger.restore(b"\xc1", {"http": 4})
    assert ledger.counts()["http"].received == 4


def test_reasons_of_a_newer_gateway_are_left_out() -> None:
    saved = msgspec.msgpack.encode({"http": (1, 0, {"not-known-yet": 3, "returned": 2})})
    counts = counts_without_gateway(saved, {})["http"]
    assert (counts.received, counts.dropped) == (3, {"returned": 2})


def test_the_report_computes_what_it_claims() -> None:
    ledger = Ledger()
    ledger.account("http").receive()
    stats = BufferStats(0, 0, None, {})
    assert ledger_report(ledger.counts(), stats, "direct", None, 0).identity_holds
    ledger.account("http").received += 1
    assert not ledger_report(ledger.counts(), stats, "direct", None, 0).identity_holds


def test_prometheus_shows_every_place() -> None:
    metrics = GatewayMetrics()
    account = metrics.ledger.account("http")
    account.receive(3)
    account.deliver()
    account.store()
    account.drop(DropReason.NO_ROOM)
    text = metrics.exposition().decode()
    for line in (
        'plantwire_gateway_ledger_received_total{source="http"} 3.0',
        'plantwire_gateway_ledger_delivered_total{path="live",source="http"} 1.0',
        'plantwire_gateway_ledger_delivered_total{path="drained",source="http"} 0.0',
        'plantwire_gateway_ledger_dropped_total{reason="no-room",source="http"} 1.0',
        'plantwire_gateway_ledger_buffered{source="http"} 1.0',
        'plantwire_gateway_ledger_in_hand{source="http"} 0.0',
    ):
        assert line in text


def test_what_the_buffer_evicted_after_the_last_save_is_counted_after_a_kill(tmp_path: Path) -> None:
    rig, ledger, number = Rig(tmp_path), Ledger(), 0

    def put(commits: int) -> None:
        nonlocal number
        for _ in range(commits):
            rig.put(*[entry(number + n, size_bytes=2000) for n in range(20)])
            number += 20
            account = ledger.account("http")
            account.receive(20)
            for _ in range(20):
                account.store()
            for (source, reason), count in rig.drops.items():
                ledger.handle_drop(source, reason, count)
            rig.drops.clear()
            rig.tidy()

    put(20)
    rig.commit(Changes(saved={SAVED_KEY: ledger.save()}))
    put(40)
    before = ledger.counts()["http"]
    assert before.dropped["evicted-full"] > 0
    rig.abandon()
    after = Rig(tmp_path)
    stats = after.store.stats()
    restored = counts_without_gateway(after.store.saved()[SAVED_KEY], stats.by_source, stats.dropped)["http"]
    assert restored == before
    after.close()
    closed = read_only_stats(tmp_path)
    assert closed.dropped == stats.dropped


def test_the_buffers_totals_and_the_save_count_a_drop_once() -> None:
    ledger = Ledger()
    ledger.account("http").receive(9)
    for _ in range(9):
        ledger.account("http").store()
    ledger.handle_drop("http", DropReason.EVICTED_FULL, 4)
    again = Ledger()
    again.handle_drop("http", DropReason.CORRUPT, 1)  # told while it was opened, and in its totals
    again.restore(ledger.save(), {"http": 3}, {"http": {DropReason.EVICTED_FULL: 5, DropReason.CORRUPT: 1}})
    counts = again.counts()["http"]
    assert (counts.received, counts.dropped) == (9, {"evicted-full": 5, "corrupt": 1})
