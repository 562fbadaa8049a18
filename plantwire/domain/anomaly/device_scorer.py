"""One device's metrics, scored: which of its values count, and what is kept of them.

In: live frames in order of arrival, with the time of arrival. Out: scores as metrics of the same device, with
the event times of the values that they are about.
Guarantees: a value counts once and in the order of event time: what is not newer than the newest of its
metric is left out and counted. At most `METRICS_MAX` metrics of a device are kept; of more, those that were
silent for `FORGET_AFTER_MS` make room, and others are counted and not scored.
Not here: one metric's mathematics (`metric_scorer`), Flink (`udfs.anomaly_scoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypedDict

import msgspec

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.anomaly.metric_scorer import MODEL, MetricScorer, ScorerState
from plantwire.domain.anomaly.plan import PREFIX, MemoryOf
from plantwire.domain.device_clock import DeviceClock
from plantwire.schemas.identifiers import METRIC_NAME_MAX_CHARACTERS
from plantwire.schemas.records import QUALITY_GOOD, Metric

LEVEL: Final = PREFIX + "level/"
MOVEMENT: Final = PREFIX + "movement/"
MODEL_METRIC: Final = PREFIX + "model"
PROTOCOL: Final = "plantwire-scoring"
"""Of frames that carry scores."""
NOT_SCORED: Final = frozenset({PROTOCOL, "sparkplug-b-transient"})
"""Protocols of frames that are passed by: scores, and values that are not to be stored."""

METRICS_MAX: Final = 200
FORGET_AFTER_MS: Final = 7 * 24 * 3600 * 1000
VALUE_MAX: Final = 1e100
"""Of a larger one the square would be no number."""
_NAME_MAX: Final = METRIC_NAME_MAX_CHARACTERS - max(len(LEVEL), len(MOVEMENT))

_LAYOUT: Final = b"\x02"


class ValueFields(TypedDict):
    """What scoring reads of a decoded Metric."""

    name: str
    number: float | None
    quality: int
    event_time_ms: int | None


class Taken(NamedTuple):
    """What came of a frame; the numbers count values."""

    scores: tuple[Metric, ...]
    """Empty where there is nothing to tell."""
    learned: int = 0
    late: int = 0
    left_out: int = 0
    """Of too many metrics, too large, of too long a name, or of a time to come."""


class UnknownScorerError(ValueError):
    """The bytes are no scorer state of the layout and the model of this version."""


class _Row(NamedTuple):
    metric: str
    newest_ms: int
    state: ScorerState


class _Packed(NamedTuple):
    model: str
    seen_ms: int
    rows: list[_Row]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Packed)


class DeviceScorer:
    """One device. `seen_ms` is when a value of it was last learned from, time of arrival."""

    def __init__(self, memory_of: MemoryOf) -> None:
        self._memory_of = memory_of
        self._scorers: dict[str, MetricScorer] = {}
        self._newest_ms: dict[str, int] = {}
        self._clock = DeviceClock()
        self.seen_ms = 0

    def take(self, metrics: Sequence[ValueFields], event_time_ms: int, now_ms: int) -> Taken:
        """Take the values of a live frame."""
        wanted = [
            metric
            for metric in metrics
            if metric["number"] is not None
            and metric["quality"] == QUALITY_GOOD
            and self._memory_of(metric["name"]) is not None
        ]
        if not wanted:
            return Taken(())
        step_ms = self._clock.admit(event_time_ms, now_ms)
        if step_ms is None:
            return Taken((), late=len(wanted))
        if step_ms:
            # The clock was put back; this frame and those to come are newer than what was, all the same.
            self._newest_ms = {name: newest + step_ms - 1 for name, newest in self._newest_ms.items()}
        scores: list[Metric] = []
        learned = late = left_out = 0
        for metric in wanted:
            name, number = metric["name"], metric["number"]
            at_ms = metric["event_time_ms"] if metric["event_time_ms"] is not None else event_time_ms
            if number is None or not abs(number) <= VALUE_MAX or is_too_far_ahead(at_ms, now_ms):
                left_out += 1
                continue
            if at_ms <= self._newest_ms.get(name, -1):
                late += 1
                continue
            scorer = self._scorers.get(name) or self._begin(name, event_time_ms)
            if scorer is None:
                left_out += 1
                continue
            self._newest_ms[name] = at_ms
            learned += 1
            found = scorer.take(number)
            if found is not None:
                own_ms = at_ms if at_ms != event_time_ms else None
                scores.append(Metric(LEVEL + name, found.level, event_time_ms=own_ms))
                scores.append(Metric(MOVEMENT + name, found.movement, event_time_ms=own_ms))
        if learned:
            self.seen_ms = now_ms
        if scores:
            scores.append(Metric(MODEL_METRIC, text=MODEL))
        return Taken(tuple(scores), learned, late, left_out)

    def pack(self) -> bytes:
        """All that is to survive, as bytes."""
        rows = [_Row(name, self._newest_ms[name], scorer.state) for name, scorer in self._scorers.items()]
        return _LAYOUT + _encoder.encode(_Packed(MODEL, self.seen_ms, rows))

    @classmethod
    def unpack(cls, packed: bytes, memory_of: MemoryOf) -> DeviceScorer:
        """The inverse of `pack`, less the metrics that are no longer scored; raises `UnknownScorerError`."""
        if packed[:1] != _LAYOUT:
            raise UnknownScorerError(f"scorer state of layout {packed[:1].hex() or 'none'}")
        try:
            model, seen_ms, rows = _decoder.decode(packed[1:])
        except msgspec.DecodeError as error:
            raise UnknownScorerError(f"scorer state: {error}") from None
        if model != MODEL:
            # What one mathematics has learned means nothing to another, though the numbers may fit.
            raise UnknownScorerError(f"scorer state of the model {model}, this is {MODEL}")
        scorer = cls(memory_of)
        scorer.seen_ms = seen_ms
        for name, newest_ms, state in rows:
            memory = memory_of(name)
            if memory is not None:
                scorer._scorers[name] = MetricScorer(memory, state)
                scorer._newest_ms[name] = newest_ms
        # Else a clock that was put back while nobody looked would be waited for.
        scorer._clock.newest_ms = max(scorer._newest_ms.values(), default=0)
        return scorer

    def _begin(self, name: str, event_time_ms: int) -> MetricScorer | None:
        memory = self._memory_of(name)
        if memory is None or len(name) > _NAME_MAX:
            return None
        if len(self._scorers) >= METRICS_MAX:
            self._forget_before(event_time_ms - FORGET_AFTER_MS)
        if len(self._scorers) >= METRICS_MAX:
            return None
        scorer = self._scorers[name] = MetricScorer(memory)
        return scorer

    def _forget_before(self, time_ms: int) -> None:
        for name in [name for name, newest_ms in self._newest_ms.items() if newest_ms < time_ms]:
            del self._scorers[name], self._newest_ms[name]
