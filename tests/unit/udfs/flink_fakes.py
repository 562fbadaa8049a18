"""What a Flink function sees of Flink, in memory: state, timers, broadcast state, counters."""

from __future__ import annotations

from collections import Counter
from typing import Any

from plantwire.platform.topic_reader import TopicError
from plantwire.schemas.records import AlarmRule


class FakeFlink:
    """One keyed broadcast operator's surroundings. A restore is a new function on the same FakeFlink."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.broadcast: dict[str, bytes] = {}
        self.timers: set[tuple[str, int]] = set()
        self.counts: Counter[str] = Counter()
        self.key = ""

    # The runtime context.
    def get_state(self, _descriptor: object) -> FakeFlink:
        return self

    def get_metrics_group(self) -> FakeFlink:
        return self

    def add_group(self, _name: str) -> FakeFlink:
        return self

    def counter(self, name: str) -> FakeCounter:
        return FakeCounter(self.counts, name)

    # The value state.
    def value(self) -> bytes | None:
        return self.values.get(self.key)

    def update(self, value: bytes) -> None:
        self.values[self.key] = value

    def clear(self) -> None:
        self.values.pop(self.key, None)

    # The context of a call.
    def get_current_key(self) -> str:
        return self.key

    def get_broadcast_state(self, _descriptor: object) -> FakeBroadcast:
        return FakeBroadcast(self.broadcast)

    def timer_service(self) -> FakeFlink:
        return self

    def register_processing_time_timer(self, at_ms: int) -> None:
        self.timers.add((self.key, at_ms))

    def delete_processing_time_timer(self, at_ms: int) -> None:
        self.timers.discard((self.key, at_ms))

    # What Flink does.
    def element(self, function: Any, key: str, body: bytes | None) -> list[Any]:
        self.key = key
        return list(function.process_element(body, self) or ())

    def fire_timers(self, function: Any, now_ms: int) -> list[Any]:
        out = []
        for key, at_ms in sorted(self.timers, key=lambda timer: timer[1]):
            if at_ms <= now_ms and (key, at_ms) in self.timers:
                self.timers.discard((key, at_ms))
                self.key = key
                out += list(function.on_timer(at_ms, self))
        return out


class FakeCounter:
    def __init__(self, counts: Counter[str], name: str) -> None:
        self._counts, self._name = counts, name

    def inc(self, number: int = 1) -> None:
        # The real one finds no Java method for a bool.
        assert type(number) is int
        self._counts[self._name] += number


class FakeBroadcast:
    def __init__(self, rows: dict[str, bytes]) -> None:
        self._rows = rows

    def items(self) -> list[tuple[str, bytes]]:
        return list(self._rows.items())

    def put(self, key: str, value: bytes) -> None:
        self._rows[key] = value


def no_rules_topic(bootstrap: str, timeout_s: float) -> dict[str, AlarmRule]:
    """`read_rules` where Kafka cannot be read: the rules of the submission count."""
    raise TopicError(f"nobody is at {bootstrap}")
