"""Anomaly scoring as a Flink function: load a device's scorers, ask the domain, save, yield.

In: TelemetryFrame bodies keyed by device. Out: frames of scores as Kafka rows with their event time.
Guarantees: every value learned from is in Flink's keyed state when its score is given; the cache only saves
reads. Values read again after a failure get the scores that they had. A score that comes late is marked
historical, so that it is stored and disturbs no live path.
Not here: what a score is (`domain.anomaly`), the topology (`jobs.anomaly_scoring`), what it raises (rules).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import structlog
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.anomaly.device_scorer import (
    FORGET_AFTER_MS,
    NOT_SCORED,
    PROTOCOL,
    DeviceScorer,
    UnknownScorerError,
)
from plantwire.domain.anomaly.plan import MemoryOf, ScoringPlan
from plantwire.schemas import topics
from plantwire.schemas.codec import FRAME_CODEC, UndecodableError
from plantwire.schemas.records import TelemetryFrame
from plantwire.schemas.scoring_files import ScoringEntry

# State names are stored data: a savepoint is restored by them.
SCORERS_STATE: Final = "anomaly-scorers"

SCORED_ROW: Final = Types.ROW_NAMED(
    ["device_id", "body", "headers", "event_time_ms"],
    [
        Types.STRING(),
        Types.PRIMITIVE_ARRAY(Types.BYTE()),
        Types.MAP(Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())),
        Types.LONG(),
    ],
)
LIVE_FOR_MS: Final = 10_000
"""How long after its frame reached the gateway a score is still news. Timers of alarms follow a device's live
frames: with scores of a backlog among them they would run late.
"""
CACHED_DEVICES: Final = 100_000

_log = structlog.get_logger(__name__)


class AnomalyScoring(KeyedProcessFunction):
    """Scores what `entries` name, and nothing else."""

    def __init__(self, entries: Iterable[ScoringEntry]) -> None:
        self._entries = tuple(entries)

    def open(self, runtime_context: Any) -> None:
        # Cleared by `on_timer` once no value of the device has come for `FORGET_AFTER_MS`. Not by Flink's
        # TTL: in thread mode PyFlink 2.3 fails to set one up.
        self._state = runtime_context.get_state(
            ValueStateDescriptor(SCORERS_STATE, Types.PICKLED_BYTE_ARRAY())
        )
        self._plan = ScoringPlan(self._entries)
        self._devices: OrderedDict[str, tuple[MemoryOf, DeviceScorer] | None] = OrderedDict()
        metrics = runtime_context.get_metrics_group().add_group("plantwire")
        self._count_scored = metrics.counter("frames_scored")
        self._count_learned = metrics.counter("values_learned")
        self._count_late = metrics.counter("values_late")
        self._count_left_out = metrics.counter("values_left_out")
        self._count_told_late = metrics.counter("scores_told_late")
        self._count_historical = metrics.counter("frames_historical")
        self._count_rejected = metrics.counter("frames_rejected")
        self._count_discarded = metrics.counter("states_discarded")

    def process_element(self, body: bytes | None, ctx: Any) -> Iterable[Any]:
        device_id = ctx.get_current_key()
        known = self._known(device_id)
        if known is None:
            return
        try:
            frame = FRAME_CODEC.decode_fields(body or b"")
        except UndecodableError:
            # Detection reads the same frame and sends it to the dead-letter topic.
            self._count_rejected.inc()
            return
        if frame["protocol"] in NOT_SCORED:
            return
        now_ms = time.time_ns() // 1_000_000
        if frame["device_id"] != device_id or is_too_far_ahead(frame["event_time_ms"], now_ms):
            self._count_rejected.inc()
            return
        if frame["historical"]:
            self._count_historical.inc()
            return
        _, scorer = known
        is_new = not scorer.seen_ms
        taken = scorer.take(frame["metrics"], frame["event_time_ms"], now_ms)
        self._count_late.inc(taken.late)
        self._count_left_out.inc(taken.left_out)
        if not taken.learned:
            return
        self._count_learned.inc(taken.learned)
        self._state.update(scorer.pack())
        if is_new:
            ctx.timer_service().register_processing_time_timer(now_ms + FORGET_AFTER_MS)
        if not taken.scores:
            return
        is_late = now_ms - frame["received_time_ms"] > LIVE_FOR_MS
        if is_late:
            self._count_told_late.inc()
        self._count_scored.inc()
        scores = TelemetryFrame(
            device_id=device_id,
            site=frame["site"],
            sequence=None,
            event_time_ms=frame["event_time_ms"],
            received_time_ms=frame["received_time_ms"],
            protocol=PROTOCOL,
            historical=is_late,
            metrics=taken.scores,
            gateway_in_us=frame["gateway_in_us"],
            gateway_out_us=frame["gateway_out_us"],
        )
        headers = {topics.HEADER_FINGERPRINT: FRAME_CODEC.fingerprint.encode()}
        yield Row(device_id, FRAME_CODEC.encode(scores), headers, scores.event_time_ms)

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:
        device_id = ctx.get_current_key()
        known = self._known(device_id)
        forget_ms = 0 if known is None else known[1].seen_ms + FORGET_AFTER_MS
        if timestamp < forget_ms:
            ctx.timer_service().register_processing_time_timer(forget_ms)
        else:
            self._state.clear()
            self._devices.pop(device_id, None)
        yield from ()

    def _known(self, device_id: str) -> tuple[MemoryOf, DeviceScorer] | None:
        """The device's scorers; None where nothing of it is scored."""
        if device_id in self._devices:
            return self._devices[device_id]
        memory_of = self._plan.for_device(device_id)
        known = None if memory_of is None else (memory_of, self._load(device_id, memory_of))
        self._devices[device_id] = known
        if len(self._devices) > CACHED_DEVICES:
            self._devices.popitem(last=False)
        return known

    def _load(self, device_id: str, memory_of: MemoryOf) -> DeviceScorer:
        packed = self._state.value()
        if packed is None:
            return DeviceScorer(memory_of)
        try:
            return DeviceScorer.unpack(packed, memory_of)
        except UnknownScorerError as error:
            # Of another version. What is normal is learned anew; nothing but the warm-up is lost.
            self._count_discarded.inc()
            _log.warning("scorer-state-discarded", device=device_id, reason=str(error))
            return DeviceScorer(memory_of)
