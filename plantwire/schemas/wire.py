"""Alarms and telemetry as JSON: what Redis channels, Socket.IO and HTTP carry.

Times are ms since the epoch (hops with microseconds as fraction), names are camelCase.
Not here: Avro (`schemas.codec`).
"""

from __future__ import annotations

from typing import Any, Final

from plantwire.schemas.records import AlarmEvent, AlarmKind
from plantwire.schemas.severity import Severity

STATE_UNACKNOWLEDGED: Final = "UNACKNOWLEDGED"
STATE_CLEARED_UNACKNOWLEDGED: Final = "CLEARED_UNACKNOWLEDGED"


def alarm_to_wire(event: AlarmEvent) -> dict[str, Any]:
    """An AlarmEvent as the object that clients see.

    `hops.emitted` is added by the distribution tier; `received` is the client's own.
    """
    return {
        "alarmId": event.alarm_id,
        "revision": event.revision,
        "ruleId": event.rule_id,
        "ruleVersion": event.rule_version,
        "deviceId": event.device_id,
        "site": event.site,
        "metric": event.metric,
        "value": event.value,
        "limit": event.limit,
        "severity": Severity(event.severity).name,
        "kind": event.kind,
        "state": STATE_CLEARED_UNACKNOWLEDGED if event.kind == AlarmKind.CLEARED else STATE_UNACKNOWLEDGED,
        "message": event.message,
        "timestamp": event.event_time_ms,
        "raisedAt": event.raise_time_ms,
        "count": event.count,
        "hops": {
            "device": event.device_us / 1000,
            "gatewayIn": event.gateway_in_us / 1000,
            "gatewayOut": event.gateway_out_us / 1000,
            "detectIn": event.detect_in_us / 1000,
            "detectOut": event.detect_out_us / 1000,
            "published": event.published_us / 1000,
        },
    }
