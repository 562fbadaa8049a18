"""What edge detection stands on, in memory: an event loop's timers, the edge buffer's saved values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.buffer.entry import BufferRefusedError
from plantwire.gateway.edge_alarms.detection import EdgeAlarms
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.schemas.records import AlarmEvent, AlarmRule, Metric, TelemetryFrame

NOW_MS = 1_795_000_000_000
SPILL_AFTER_S = 1.0


class FakeTimer:
    def __init__(self, at_ms: float, call: Callable[[], object]) -> None:
        self.at_ms, self.call, self.cancelled = at_ms, call, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time that passes only in `advance`."""

    def __init__(self) -> None:
        self.now_ms = float(NOW_MS)
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now_ms / 1000

    def call_later(self, delay_s: float, call: Callable[..., object], *args: Any) -> FakeTimer:
        assert delay_s >= 0
        timer = FakeTimer(self.now_ms + delay_s * 1000, lambda: call(*args))
        self._timers.append(timer)
        return timer

    def call_soon(self, call: Callable[..., object], *args: Any) -> FakeTimer:
        return self.call_later(0, call, *args)

    def advance(self, ms: float) -> None:
        until_ms = self.now_ms + ms
        fired = 0
        while due := [t for t in self._timers if not t.cancelled and round(t.at_ms) <= until_ms]:
            fired += 1
            assert fired < 10_000, "timers without end"
            timer = min(due, key=lambda t: t.at_ms)
            self._timers.remove(timer)
            self.now_ms = max(self.now_ms, round(timer.at_ms))
            timer.call()
        self.now_ms = until_ms

    @property
    def running(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)


class FakeBuffer:
    """`EdgeBuffer.save` and `saved`; what is not durable yet can be made to fail."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.full = False
        self.broken = False
        self.saves = 0

    def save(self, key: str, value: bytes | None) -> Any:
        self.saves += 1
        if self.full:
            raise BufferRefusedError("full")
        if self.broken:
            return FakeFuture(BufferRefusedError("disk"))
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
        return FakeFuture(None)

    def saved(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self.values.items() if key.startswith(prefix)}


class FakeFuture:
    """Done from the beginning."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        call(self)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception | None:
        return self._error


class FakeRules:
    def __init__(self, *rules: AlarmRule) -> None:
        self.book: RuleBook | None = RuleBook(rules)


class Edge:
    """EdgeAlarms with all around it. A restart is a new one with the same buffer, loop and rules."""

    def __init__(
        self,
        *rules: AlarmRule,
        loop: FakeLoop | None = None,
        buffer: FakeBuffer | None = None,
        of: FakeRules | None = None,
        devices_max: int = 100,
    ) -> None:
        self.loop = loop or FakeLoop()
        self.buffer = buffer or FakeBuffer()
        self.rules = of or FakeRules(*rules)
        self.registry = CollectorRegistry()
        self.told: list[AlarmEvent] = []
        self.stored: list[AlarmEvent] = []
        self.order = 0
        self.alarms = EdgeAlarms(
            devices_max,
            SPILL_AFTER_S,
            self.rules,
            self.buffer,  # type: ignore[arg-type]
            EdgeAlarmMetrics(self.registry),
            self.told.append,
            lambda: int(self.loop.now_ms * 1000),
        )
        loop_: asyncio.AbstractEventLoop = self.loop  # type: ignore[assignment]
        self.alarms.start(loop_, self._store)

    def _store(self, events: Sequence[AlarmEvent]) -> None:
        self.stored.extend(events)

    def take(self, frame: TelemetryFrame) -> TelemetryFrame:
        """Observe; the events are in `told`."""
        self.order += 1
        return self.alarms.observe(frame).frame

    def restarted(self) -> Edge:
        """As after kill -9: what was saved is there, nothing else."""
        return Edge(loop=self.loop, buffer=self.buffer, of=self.rules)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"plantwire_gateway_edge_{name}", labels) or 0.0


def frame(
    at_ms: float, device_id: str = "press-1", historical: bool = False, **values: float
) -> TelemetryFrame:
    metrics = tuple(Metric(name, value) for name, value in values.items())
    at = int(at_ms)
    return TelemetryFrame(device_id, "hall", None, at, at, "http", historical, metrics, at * 1000)


def named(events: Sequence[AlarmEvent]) -> list[tuple[str, int, str]]:
    return [(event.alarm_id, event.revision, event.kind) for event in events]
