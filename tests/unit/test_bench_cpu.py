"""CPU seconds between two moments."""

from __future__ import annotations

from bench.cpu import Moment, parse_thread_stat, top_differences, usage_between


def test_usage_is_the_difference_by_part() -> None:
    begin = Moment({"gateway": {1: 10.0}, "flink": {2: 5.0, 3: 1.0}}, 100.0)
    end = Moment({"gateway": {1: 12.5}, "flink": {2: 9.0, 3: 1.0}}, 110.0)
    usage = usage_between(begin, end)
    assert usage.by_part_s == {"flink": 4.0, "gateway": 2.5}
    assert (usage.machine_busy_s, usage.ended) == (10.0, ())


def test_a_process_that_came_meanwhile_counts_from_its_start() -> None:
    usage = usage_between(Moment({"flink": {2: 5.0}}, 0.0), Moment({"flink": {2: 5.0, 9: 3.0}}, 4.0))
    assert usage.by_part_s == {"flink": 3.0}


def test_a_process_that_ended_is_named_and_not_guessed() -> None:
    usage = usage_between(Moment({"flink": {2: 5.0, 3: 7.0}}, 0.0), Moment({"flink": {2: 6.0}}, 4.0))
    assert (usage.by_part_s, usage.ended) == ({"flink": 1.0}, ("flink",))


def test_a_thread_name_may_hold_blanks_and_brackets() -> None:
    stat = "4711 (G1 Conc#0 (x)) S 1 2 3 4 5 6 7 8 9 10 250 30 0 0 20 0"
    assert parse_thread_stat(stat) == ("G Conc# (x)", 280)


def test_the_largest_growths_are_shown_and_the_rest_summed() -> None:
    begin = {"a": 1.0, "b": 2.0}
    end = {"a": 4.0, "b": 2.5, "c": 1.0, "d": 0.25}
    assert top_differences(begin, end, 2) == {"a": 3.0, "c": 1.0, "other": 0.75}
    assert top_differences(begin, end, 9) == {"a": 3.0, "c": 1.0, "b": 0.5, "d": 0.25}
