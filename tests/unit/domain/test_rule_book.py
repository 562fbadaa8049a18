"""Which rules are in force, for whom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from plantwire.domain.rule_book import RuleBook, is_sound
from plantwire.schemas.records import DELAY_MAX_MS, AlarmRule, Limit


def rule(
    rule_id: str, version: int, devices: str = "*", metric: str = "*", retired: bool = False
) -> AlarmRule:
    return AlarmRule(rule_id, version, devices, metric, (Limit(0, above=version),), retired=retired)


def ids(book: RuleBook, device: str, metric: str) -> list[str]:
    return [c.rule.rule_id for c in book.for_device(device).for_metric(metric)]


def test_the_highest_version_wins_in_any_order() -> None:
    book = RuleBook([rule("a", 2)])
    assert not book.put(rule("a", 1))
    assert book.put(rule("a", 3))
    (compiled,) = book.for_device("d").for_metric("m")
    assert compiled.rule.version == 3


def test_globs_choose_devices_and_metrics() -> None:
    book = RuleBook([rule("a", 1, "press-*", "temp*"), rule("b", 1, "press-[12]"), rule("c", 1, "pump")])
    assert ids(book, "press-2", "temperature") == ["a", "b"]
    assert ids(book, "press-3", "temperature") == ["a"]
    assert ids(book, "press-1", "pressure") == ["b"]
    assert ids(book, "pump-1", "x") == []


def test_a_retired_rule_applies_no_more_and_older_versions_do_not_revive_it() -> None:
    book = RuleBook([rule("a", 1), rule("a", 2, retired=True)])
    assert not book.put(rule("a", 1))
    assert ids(book, "d", "m") == []
    assert len(book) == 0
    assert book.put(rule("a", 3))
    assert ids(book, "d", "m") == ["a"]


def test_every_change_is_a_new_generation_and_nothing_else_is() -> None:
    book = RuleBook()
    before = book.generation
    book.put(rule("a", 1))
    assert book.generation != before
    before = book.generation
    book.put(rule("a", 1))
    assert not book.remove("b")
    assert book.generation == before
    assert book.remove("a")
    assert book.generation != before


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": (Limit(5, above=1.0),)},
        {"limits": (Limit(0, above=1.0), Limit(-1, above=2.0))},
        {"on_delay_ms": -1},
        {"off_delay_ms": DELAY_MAX_MS + 1},
    ],
)
def test_what_cannot_be_evaluated_or_told_is_known(changes: dict[str, object]) -> None:
    sound = replace(rule("a", 1), on_delay_ms=DELAY_MAX_MS, off_delay_ms=0)
    assert is_sound(sound)
    assert not is_sound(replace(sound, **changes))
