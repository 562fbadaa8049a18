"""Taking over what a gateway's own detection knows, where the cloud's missed the frames that led to it.

In: a device's state as the cloud has it, and as the gateway had it just before a frame.
Out: the state to judge that frame from, and the alarms of the cloud's that the gateway no longer has.
Guarantees: afterwards both judge from the same state, so both give the frame's events the same alarm ids
and revisions. An alarm that only the cloud holds active is cleared with its next revision, which is the one
that the gateway cleared it with if it did: whoever has seen that clear passes over the second.
Not here: which frames carry a state (the gateway's edge detection), the events of the time between, which
the gateway sends to the alarm log itself.

While Kafka is away the gateway's frames are stored and come later marked historical, and raise nothing.
Its own detection has seen them; the first live frame afterwards brings what it knows.
"""

from __future__ import annotations

from typing import NamedTuple

from plantwire.domain.alarm_events import Alarm, withdraw
from plantwire.domain.detection import DeviceDetector, DeviceState, Key, Tracked
from plantwire.domain.limits import NORMAL
from plantwire.schemas.records import AlarmEvent


def go_on_from(detector: DeviceDetector, edge: DeviceState, event_ms: int) -> list[AlarmEvent]:
    """Give `detector` the state that the gateway's detection had just before a frame of `event_ms`; to be
    called before it judges that frame. Answers the clears of alarms that thereby end.

    A frame that is not newer than all before it brings an old state: nothing is done.
    """
    if event_ms <= detector.clock.newest_ms:
        return []
    adopted = adopt(detector.state, edge)
    if adopted.state != detector.state:
        detector.state = adopted.state
    device_id = detector.device_id
    return [
        withdraw(
            alarm,
            rule_id,
            device_id,
            detector.site,
            metric,
            event_ms,
            f"{device_id} {metric}: back to normal while the gateway was cut off",
        )
        for (rule_id, metric), alarm in adopted.ended
    ]


class Adopted(NamedTuple):
    """`state` is the gateway's where it knows as much; `ended` are alarms to clear."""

    state: DeviceState
    ended: tuple[tuple[Key, Alarm], ...]


def adopt(own: DeviceState, edge: DeviceState) -> Adopted:
    """Take `edge` over `own`, but for what `own` knows better of the very same alarm.

    A gateway that lost its state, or has detected for less long, ends the cloud's alarm and starts one of
    its own: one id too many, yet both sides agree and none stays active for ever.
    """
    if own == edge:
        return Adopted(own, ())
    state = dict(edge)
    ended: list[tuple[Key, Alarm]] = []
    for key, tracked in own.items():
        theirs = edge.get(key)
        if _is_same_alarm(tracked, theirs):
            if _is_ahead(tracked, theirs):
                state[key] = tracked
        elif tracked.alarm is not None and tracked.limit.level != NORMAL:
            ended.append((key, tracked.alarm))
    return Adopted(state, tuple(ended))


def _is_same_alarm(own: Tracked, edge: Tracked | None) -> bool:
    return (
        edge is not None
        and own.alarm is not None
        and edge.alarm is not None
        and own.alarm.alarm_id == edge.alarm.alarm_id
    )


def _is_ahead(own: Tracked, edge: Tracked | None) -> bool:
    if edge is None or own.alarm is None or edge.alarm is None:
        return False
    return (own.alarm.revision, own.newest_ms) > (edge.alarm.revision, edge.newest_ms)
