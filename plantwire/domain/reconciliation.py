"""What was announced before a failure, held against what is true after it.

In: a device's state after a restore and replay, and the last event of an alarm in the alarm log.
Out: the state after, and the event that sets the log right, if one is needed.
Guarantees: an alarm that the log shows active and the state does not know is cleared, and the other way
round; where both agree, nothing is told. Revisions go on from the log's.

A replay can differ from the first run: a delay that a timer ended then may be interrupted now by a frame
that had been held up, and rules may have changed in between. Without this, such an alarm would stay active
for ever, since nothing would come to clear it.
"""

from __future__ import annotations

import msgspec

from plantwire.domain.device_state import DeviceState
from plantwire.domain.limits import NORMAL
from plantwire.schemas.records import AlarmEvent, AlarmKind


def reconcile(state: DeviceState, logged: AlarmEvent, at_ms: int) -> tuple[DeviceState, AlarmEvent | None]:
    """Compare, once the device's event time `at_ms` has passed the logged event's."""
    key = (logged.rule_id, logged.metric)
    tracked = state.get(key)
    alarm = tracked.alarm if tracked is not None else None
    logged_active = logged.kind != AlarmKind.CLEARED
    if tracked is None or alarm is None or alarm.alarm_id != logged.alarm_id:
        return state, _told(logged, AlarmKind.CLEARED, logged.severity, at_ms) if logged_active else None
    active = tracked.limit.level != NORMAL
    if alarm.revision > logged.revision:
        return state, None
    kind = None
    if active and not logged_active:
        kind = AlarmKind.RAISED
    elif not active and logged_active:
        kind = AlarmKind.CLEARED
    elif active and alarm.severity != logged.severity:
        kind = AlarmKind.SEVERITY_CHANGED
    revision = logged.revision + (kind is not None)
    if revision != alarm.revision:
        state = {**state, key: tracked._replace(alarm=alarm._replace(revision=revision))}
    return state, _told(logged, kind, alarm.severity, at_ms) if kind is not None else None


def _told(logged: AlarmEvent, kind: str, severity: int, at_ms: int) -> AlarmEvent:
    return msgspec.structs.replace(
        logged,
        revision=logged.revision + 1,
        kind=kind,
        severity=severity,
        value=None,
        event_time_ms=at_ms,
        message=f"{logged.message} (corrected after a restart)",
        device_us=0,
        gateway_in_us=0,
        gateway_out_us=0,
        detect_in_us=0,
        detect_out_us=0,
        published_us=0,
    )
