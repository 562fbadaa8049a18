"""What should have arrived against what did: lost, doubled, and how long each stage took. Pure.

In: the raises that the load contained, the clients' receipts. Out: `Deliveries`.
Guarantees: lost, doubled and second ids are counted over the whole run, warm-up included; latency over the
window alone. The whole path begins at the *intended* time of the frame that crossed the limit.
Not here: gathering (`bench.latency_run`), what Kafka holds (`bench.fire_topic`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from bench.receipts import Receipts
from bench.spread import Distribution, distribution, median, percentile
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity


class ExpectedRaise(msgspec.Struct, frozen=True):
    """A critical alarm that must come out: raised by the frame of `raise_ms`, cleared by `clear_ms`."""

    device_id: str
    metric: str
    raise_ms: int
    clear_ms: int
    measured: bool
    """Whether it belongs to the window."""


class Hops(msgspec.Struct, frozen=True, rename="camel"):
    """The hop timestamps on the wire, ms since the epoch."""

    device: float
    gateway_in: float
    gateway_out: float
    detect_in: float
    detect_out: float
    published: float
    emitted: float


class WireAlarm(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an alarm on the wire."""

    alarm_id: str
    revision: int
    device_id: str
    metric: str
    severity: str
    kind: str
    timestamp: int
    hops: Hops


class Stage(msgspec.Struct, frozen=True):
    """One stage of the path, with the budget (ms) of the contract where it has one."""

    name: str
    begins: str
    ends: str
    budget_p95_ms: float | None = None
    budget_p99_ms: float | None = None


# `device` is the intended time; `received` the client's stamp; the others come with the alarm.
STAGES: Final = (
    Stage("device → gateway", "device", "gateway_in", 10, 20),
    Stage("normalisation", "gateway_in", "gateway_out", 3, 5),
    Stage("broker", "gateway_out", "detect_in", 5, 10),
    Stage("alarm evaluation", "detect_in", "published", 15, 30),
    Stage("WebSocket delivery", "published", "received", 30, 50),
)
"""The stages of the budget table that lie before the screen; they follow each other without a gap."""
PARTS: Final = (
    Stage("evaluation: rules", "detect_in", "detect_out"),
    Stage("evaluation: to Redis", "detect_out", "published"),
    Stage("delivery: Redis → distribution", "published", "emitted"),
    Stage("delivery: distribution → client", "emitted", "received"),
)
WHOLE: Final = Stage("whole path, critical", "device", "received", 73, 100)


class StageTime(msgspec.Struct, frozen=True):
    """How long a stage took, ms, over all (alarm, client) pairs."""

    name: str
    budget_p95_ms: float | None
    budget_p99_ms: float | None
    ms: Distribution | None


class Band(msgspec.Struct, frozen=True):
    """What the path is made of for the pairs between two percentiles of the whole path."""

    name: str
    pairs: int
    whole_mean_ms: float
    stage_mean_ms: dict[str, float]
    stage_share: dict[str, float]


class Deliveries(msgspec.Struct, frozen=True):
    """The outcome of one run at the clients."""

    expected_raises: int
    measured_raises: int
    clients: int
    lost_raises: int
    lost_clears: int
    doubled: int
    second_ids: int
    """Alarm ids beyond the first under which one planned raise reached one client."""
    unexpected: int
    lost_examples: tuple[str, ...]
    doubled_examples: tuple[str, ...]
    second_id_examples: tuple[str, ...]
    stages: tuple[StageTime, ...]
    parts: tuple[StageTime, ...]
    whole: StageTime
    median_client_ms: Distribution | None
    """Per alarm, the client in the middle."""
    last_client_ms: Distribution | None
    """Per alarm, the client that got it last."""
    bands: tuple[Band, ...]


EXAMPLES_KEPT: Final = 10
_MESSAGE: Final = msgspec.json.Decoder(tuple[str, WireAlarm])

Moments = dict[str, float]


class Matcher:
    """Finds the expected raise that an alarm on the wire belongs to."""

    def __init__(self, expected: Sequence[ExpectedRaise]) -> None:
        self._expected = expected
        self._by_pair: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for index in sorted(range(len(expected)), key=lambda i: expected[i].raise_ms):
            self._by_pair[expected[index].device_id, expected[index].metric].append(index)

    def find(self, device_id: str, metric: str, event_ms: int, *, clear: bool) -> int | None:
        """The index of the raise that is in force at `event_ms`, or, for a clear, that it ends.

        An alarm whose first frame was refused is raised by a later one, so any moment until the value
        went back will do; a clear may come as much later.
        """
        indices = self._by_pair.get((device_id, metric), [])
        position = bisect_right(indices, event_ms, key=lambda i: self._expected[i].raise_ms) - 1
        if position < 0:
            return None
        index = indices[position]
        is_before_clear = event_ms < self._expected[index].clear_ms
        return index if is_before_clear != clear else None


def compare(
    expected: Sequence[ExpectedRaise], receipts: Receipts, clients: Iterable[int], *, timed: bool = True
) -> Deliveries:
    """Match every receipt of `clients` with what was expected; `timed=False` leaves the latency out."""
    matcher = Matcher(expected)
    alarms = [_MESSAGE.decode(message)[1] for message in receipts.messages]
    matched = [_match(matcher, alarm) for alarm in alarms]
    seen: Counter[tuple[int, str, int]] = Counter()
    raised: dict[tuple[int, int], tuple[WireAlarm, float]] = {}
    ids: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    cleared: set[tuple[int, int]] = set()
    unexpected = 0
    wanted = set(clients)
    for client, number, received_ns in zip(
        receipts.clients, receipts.numbers, receipts.received_ns, strict=True
    ):
        if client not in wanted:
            continue
        alarm, index = alarms[number], matched[number]
        event = (client, alarm.alarm_id, alarm.revision)
        seen[event] += 1
        if seen[event] > 1:
            continue
        if index is None:
            unexpected += 1
        elif alarm.kind == AlarmKind.CLEARED:
            cleared.add((client, index))
        else:
            ids[client, index].add(alarm.alarm_id)
            raised.setdefault((client, index), (alarm, received_ns / 1e6))
    lost = [(c, i) for i in range(len(expected)) for c in sorted(wanted) if (c, i) not in raised]
    doubled = [event for event, times in seen.items() if times > 1]
    twice = [(c, i, sorted(names)) for (c, i), names in sorted(ids.items()) if len(names) > 1]
    moments = (
        {
            pair: _moments(expected[pair[1]], alarm, received_ms)
            for pair, (alarm, received_ms) in raised.items()
            if expected[pair[1]].measured
        }
        if timed
        else {}
    )
    return Deliveries(
        expected_raises=len(expected),
        measured_raises=sum(raise_.measured for raise_ in expected),
        clients=len(wanted),
        lost_raises=len(lost),
        lost_clears=sum((c, i) not in cleared for i in range(len(expected)) for c in wanted),
        doubled=sum(times - 1 for times in seen.values()),
        second_ids=sum(len(names) - 1 for names in ids.values()),
        unexpected=unexpected,
        lost_examples=tuple(f"client {c}: {_named(expected[i])}" for c, i in lost[:EXAMPLES_KEPT]),
        doubled_examples=tuple(f"client {c}: {a} revision {r}" for c, a, r in doubled[:EXAMPLES_KEPT]),
        second_id_examples=tuple(
            f"client {c}: {_named(expected[i])} as {', '.join(names)}"
            for c, i, names in twice[:EXAMPLES_KEPT]
        ),
        stages=tuple(_stage_time(stage, moments.values()) for stage in STAGES),
        parts=tuple(_stage_time(stage, moments.values()) for stage in PARTS),
        whole=_stage_time(WHOLE, moments.values()),
        median_client_ms=_per_alarm(moments, median),
        last_client_ms=_per_alarm(moments, max),
        bands=_bands(list(moments.values())),
    )


def _match(matcher: Matcher, alarm: WireAlarm) -> int | None:
    if alarm.kind == AlarmKind.CLEARED:
        return matcher.find(alarm.device_id, alarm.metric, alarm.timestamp, clear=True)
    if alarm.kind == AlarmKind.RAISED and alarm.severity == Severity.CRITICAL.name:
        return matcher.find(alarm.device_id, alarm.metric, alarm.timestamp, clear=False)
    return None


def _moments(expected: ExpectedRaise, alarm: WireAlarm, received_ms: float) -> Moments:
    moments: Moments = msgspec.structs.asdict(alarm.hops)
    moments["device"] = float(expected.raise_ms)
    moments["received"] = received_ms
    return moments


def _duration_ms(stage: Stage, moments: Moments) -> float:
    return moments[stage.ends] - moments[stage.begins]


def _stage_time(stage: Stage, pairs: Iterable[Moments]) -> StageTime:
    return StageTime(
        name=stage.name,
        budget_p95_ms=stage.budget_p95_ms,
        budget_p99_ms=stage.budget_p99_ms,
        ms=distribution(_duration_ms(stage, moments) for moments in pairs),
    )


def _per_alarm(
    moments: dict[tuple[int, int], Moments], choose: Callable[[Iterable[float]], float]
) -> Distribution | None:
    by_alarm: defaultdict[int, list[float]] = defaultdict(list)
    for (_, index), pair in moments.items():
        by_alarm[index].append(_duration_ms(WHOLE, pair))
    return distribution(choose(times) for times in by_alarm.values())


def _bands(pairs: list[Moments]) -> tuple[Band, ...]:
    if not pairs:
        return ()
    pairs.sort(key=lambda moments: _duration_ms(WHOLE, moments))
    whole = [_duration_ms(WHOLE, moments) for moments in pairs]
    edges = [percentile(whole, fraction) for fraction in (0.50, 0.95, 0.99)]
    cuts = [0, *(bisect_right(whole, edge) for edge in edges), len(pairs)]
    names = ("up to p50", "p50 to p95", "p95 to p99", "above p99")
    bands = [_band("all", pairs)]
    bands += [
        _band(name, pairs[begin:end])
        for name, begin, end in zip(names, cuts, cuts[1:], strict=False)
        if end > begin
    ]
    return tuple(bands)


def _band(name: str, pairs: list[Moments]) -> Band:
    whole_ms = sum(_duration_ms(WHOLE, moments) for moments in pairs) / len(pairs)
    means = {s.name: sum(_duration_ms(s, m) for m in pairs) / len(pairs) for s in STAGES}
    return Band(
        name=name,
        pairs=len(pairs),
        whole_mean_ms=round(whole_ms, 3),
        stage_mean_ms={stage: round(ms, 3) for stage, ms in means.items()},
        stage_share={stage: round(ms / whole_ms, 3) if whole_ms else 0.0 for stage, ms in means.items()},
    )


def _named(expected: ExpectedRaise) -> str:
    return f"{expected.device_id} {expected.metric} raised at {expected.raise_ms}"
