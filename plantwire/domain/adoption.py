"""Taking over what a gateway's own detection knows, where the cloud's missed the frames that led to it.

In: a device's state as the cloud has it, and as the gateway had it just before a frame.
Out: the state to judge that frame from, and what the alarm log has to hear.
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

from plantwire.domain.alarm_events import Alarm, restate, subject
from plantwire.domain.detection import DeviceDetector
from plantwire.domain.device_state import DeviceState, Key, Tracked
from plantwire.domain.limits import NORMAL
from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity


class Correction(NamedTuple):
    """What the log has to hear of an alarm; `alarm` bears the revision of the event to tell."""

    key: Key
    alarm: Alarm
    kind: str


class Adopted(NamedTuple):
    """The state to go on from, and what to tell."""

    state: DeviceState
    corrections: tuple[Correction, ...]


def go_on_from(detector: DeviceDetector, edge: DeviceState, event_ms: int) -> list[AlarmEvent]:
    """Give `detector` the state that the gateway's detection had just before a frame of `event_ms`; to be
    called before it judges that frame. Answers the events that set the log right.

    Frames come in the order in which the gateway took them, so the newest state is the last to come,
    whatever the frame's own time.
    """
    adopted = adopt(detector.exact_state(), edge)
    if adopted.state != detector.state:
        detector.adopt(adopted.state, event_ms)
    return [
        restate(
            alarm,
            kind,
            rule_id,
            detector.device_id,
            detector.site,
            metric,
            event_ms,
            _message(detector.device_id, rule_id, metric, alarm, kind),
        )
        for (rule_id, metric), alarm, kind in adopted.corrections
    ]


def adopt(own: DeviceState, edge: DeviceState) -> Adopted:
    """Take `edge` over `own`; of the very same alarm the higher revision counts.

    A gateway that lost its state, or has detected for less long, ends the cloud's alarm and starts one of
    its own: one id too many, yet both sides agree and none stays active for ever. Of data that the gateway
    has not seen since it was started only the cloud knows that they are waited for, and goes on doing so.
    """
    if own == edge:
        return Adopted(own, ())
    state = dict(edge)
    corrections: list[Correction] = []
    for key, tracked in own.items():
        theirs = edge.get(key)
        alarm = tracked.alarm
        if tracked.silence and theirs is None:
            state[key] = tracked
            continue
        if alarm is None:
            continue
        if theirs is None or theirs.alarm is None or theirs.alarm.alarm_id != alarm.alarm_id:
            if tracked.limit.level != NORMAL:
                ended = alarm._replace(revision=alarm.revision + 1)
                corrections.append(Correction(key, ended, AlarmKind.CLEARED))
        elif alarm.revision > theirs.alarm.revision and tracked.newest_ms > theirs.newest_ms:
            # The gateway's is of before its end: it was killed before it could store its last change.
            state[key] = tracked
        elif alarm.revision < theirs.alarm.revision:
            if tracked.limit.level != NORMAL or theirs.limit.level != NORMAL:
                told = _kind(tracked.limit.level, theirs.limit.level) or AlarmKind.RAISED
                corrections.append(Correction(key, theirs.alarm, told))
        elif alarm.revision > theirs.alarm.revision or _is_guess(tracked, theirs):
            # The cloud guessed: a delay ended that a frame which it did not see had interrupted.
            kind = _kind(tracked.limit.level, theirs.limit.level)
            revision = alarm.revision + (kind is not None)
            known = theirs.alarm._replace(revision=revision)
            state[key] = theirs._replace(alarm=known)
            if kind is not None:
                corrections.append(Correction(key, known, kind))
    for key, theirs in edge.items():
        # The gateway has stored its event for the log; should that be lost, the alarm must not be.
        known_id = _alarm_id(own.get(key))
        if theirs.alarm is not None and theirs.limit.level != NORMAL and known_id != theirs.alarm.alarm_id:
            corrections.append(Correction(key, theirs.alarm, AlarmKind.RAISED))
    return Adopted(state, tuple(corrections))


def _alarm_id(tracked: Tracked | None) -> str | None:
    return tracked.alarm.alarm_id if tracked is not None and tracked.alarm is not None else None


def _is_guess(own: Tracked, edge: Tracked) -> bool:
    """While cut off, the cloud's timers went on to a severity that data which it did not see prevented."""
    return (
        own.silence
        and own.alarm is not None
        and edge.alarm is not None
        and (own.alarm.revision == edge.alarm.revision and own.limit.level != edge.limit.level)
    )


def _kind(told_level: int, true_level: int) -> str | None:
    if told_level == true_level:
        return None
    if true_level == NORMAL:
        return AlarmKind.CLEARED
    return AlarmKind.RAISED if told_level == NORMAL else AlarmKind.SEVERITY_CHANGED


def _message(device_id: str, rule_id: str, metric: str, alarm: Alarm, kind: str) -> str:
    what = "back to normal"
    if kind != AlarmKind.CLEARED:
        what = f"{Severity(alarm.severity).name} by rule {rule_id}"
    return f"{subject(device_id, metric)}: {what}, since the gateway was cut off"
