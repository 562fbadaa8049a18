"""The live picture in memory: latest values and active alarms, a mirror of what Redis holds.

In: alarms and telemetry as they are published, and snapshots read from Redis.
Out: whether a message is news, the differences that a snapshot shows, and the state for a new client.
Guarantees: of one alarm, revisions only go up, so what comes on two channels is news once; a message
is either in the state or news afterwards, never neither. Memory: one entry per device and per active
alarm, and the last revision of `REVISIONS_MAX` alarms.
Not here: Redis (`redis_feed`), clients (`fanout`). It is a cache: a new process fills it from Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from plantwire.distribution.messages import (
    Alarm,
    Qualities,
    TelemetryUpdate,
    Values,
    qualities_of,
    values_of,
)
from plantwire.platform.tokens import Claims
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.wire import STATE_CLEARED_UNACKNOWLEDGED

REVISIONS_MAX: Final = 50_000


class DeviceState(NamedTuple):
    """The latest of one device, as of message `seq`."""

    seq: int
    timestamp: int
    values: Values
    qualities: Qualities
    """Those that are not good."""


class Snapshot(NamedTuple):
    """What Redis holds at one moment."""

    epoch: str | None
    alarms_complete: bool
    alarms: list[Alarm]
    devices: dict[str, DeviceState]


class Difference(NamedTuple):
    """What a snapshot showed that had not been delivered."""

    alarms: list[Alarm]
    state_changed: bool
    """Telemetry was missed, or Redis has a new epoch: clients need the state anew."""


class LivePicture:
    """See the module; used from one thread only."""

    def __init__(self, revisions_max: int = REVISIONS_MAX) -> None:
        self.epoch: str | None = None
        self.loaded = False
        # Whether Redis held every active alarm when the last snapshot was read.
        self.alarms_complete = False
        self._alarms: dict[str, Alarm] = {}
        self._devices: dict[str, DeviceState] = {}
        # Cleared by age of last use, see `_remember`; an active alarm's revision is in `_alarms` too.
        self._revisions: OrderedDict[str, int] = OrderedDict()
        self._revisions_max = revisions_max
        self._touched: set[str] | None = None

    def apply_alarm(self, alarm: Alarm) -> bool:
        """Take in an alarm event; False when it, or a later one of this alarm, is known."""
        header = alarm.header
        if header.revision <= self._revision(header.alarm_id):
            return False
        if self._touched is not None:
            self._touched.add(header.alarm_id)
        self._remember(header.alarm_id, header.revision)
        if header.kind == AlarmKind.CLEARED:
            self._alarms.pop(header.alarm_id, None)
        else:
            self._alarms[header.alarm_id] = alarm
        return True

    def knows_active(self, alarm_id: str) -> bool:
        """Whether the alarm is active as far as clients were told."""
        return alarm_id in self._alarms

    def is_behind(self, update: TelemetryUpdate) -> bool:
        """Whether `update` is not later than the state; known already, or of a Redis that starts anew."""
        known = self._devices.get(update.device_id)
        return known is not None and update.seq <= known.seq

    def apply_telemetry(self, update: TelemetryUpdate) -> None:
        """Take in a message; raises `MalformedError` and then changes nothing."""
        values, qualities = values_of(update.metrics), qualities_of(update.quality)
        known = self._devices.get(update.device_id)
        if known is not None:
            if known.qualities:
                still = {name: code for name, code in known.qualities.items() if name not in values}
                qualities = still | qualities
            known.values.update(values)
            values = known.values
        self._devices[update.device_id] = DeviceState(update.seq, update.timestamp, values, qualities)

    def begin_snapshot(self) -> None:
        """Say that a snapshot is being read: alarms that come meanwhile are later than it."""
        self._touched = set()

    def apply_snapshot(self, snapshot: Snapshot) -> Difference:
        """Take in what Redis holds; the difference is what clients have not been told."""
        touched = self._touched or set()
        self._touched = None
        alarms = [alarm for alarm in snapshot.alarms if self.apply_alarm(alarm)]
        if snapshot.alarms_complete:
            present = {alarm.header.alarm_id for alarm in snapshot.alarms} | touched
            gone = [alarm for alarm_id, alarm in self._alarms.items() if alarm_id not in present]
            for alarm in gone:
                cleared = _cleared(alarm)
                self.apply_alarm(cleared)
                alarms.append(cleared)
        changed = self.loaded and (
            snapshot.epoch != self.epoch
            or any(self._missed(device_id, state) for device_id, state in snapshot.devices.items())
        )
        self._devices = snapshot.devices
        self.epoch = snapshot.epoch
        self.alarms_complete = snapshot.alarms_complete
        self.loaded = True
        return Difference(alarms, changed)

    def latest(self, claims: Claims) -> list[dict[str, Any]]:
        """`[{deviceId, seq, timestamp, data, quality?}]` of the devices that `claims` may see, by id."""
        visible: Iterable[str] = self._devices if claims.every_device else claims.devices
        return [
            {
                "deviceId": device_id,
                "seq": state.seq,
                "timestamp": state.timestamp,
                "data": state.values,
                **({"quality": state.qualities} if state.qualities else {}),
            }
            for device_id in sorted(visible)
            if (state := self._devices.get(device_id)) is not None
        ]

    def active_alarms(self, claims: Claims) -> list[Alarm]:
        """The active alarms that `claims` may see: most severe first, then newest."""
        visible = [alarm for alarm in self._alarms.values() if claims.may_access(alarm.header.device_id)]
        visible.sort(key=lambda alarm: (alarm.header.rank, -alarm.header.timestamp))
        return visible

    def initial_state(self, claims: Claims, server_time_ms: int, live: bool) -> bytes:
        """The body of `initial-state`: {epoch, serverTime, live, alarmsComplete, devices, alarms} as JSON.

        A client may take an alarm that is not listed for cleared only where `alarmsComplete` says so: a
        process that started while Redis was being refilled has not heard of all of them.
        """
        head = orjson.dumps(
            {
                "epoch": self.epoch,
                "serverTime": server_time_ms,
                "live": live,
                "alarmsComplete": live and self.alarms_complete,
                "devices": self.latest(claims),
            }
        )
        return b"".join((head[:-1], b',"alarms":', alarm_array(self.active_alarms(claims)), b"}"))

    @property
    def device_count(self) -> int:
        """Devices in the picture."""
        return len(self._devices)

    @property
    def alarm_count(self) -> int:
        """Active alarms in the picture."""
        return len(self._alarms)

    def _missed(self, device_id: str, state: DeviceState) -> bool:
        known = self._devices.get(device_id)
        return known is None or state.seq != known.seq

    def _revision(self, alarm_id: str) -> int:
        revision = self._revisions.get(alarm_id)
        if revision is not None:
            return revision
        active = self._alarms.get(alarm_id)
        return active.header.revision if active is not None else -1

    def _remember(self, alarm_id: str, revision: int) -> None:
        self._revisions[alarm_id] = revision
        self._revisions.move_to_end(alarm_id)
        if len(self._revisions) > self._revisions_max:
            self._revisions.popitem(last=False)


def alarm_array(alarms: Iterable[Alarm]) -> bytes:
    """A JSON array of alarms, each as it came."""
    return b"[" + b",".join(alarm.body for alarm in alarms) + b"]"


def _cleared(alarm: Alarm) -> Alarm:
    """`alarm` as cleared, for a clear that was announced while nobody listened.

    A clear is the revision after the last one that was seen; should the announcement still come, it
    bears the same number and is recognised.
    """
    header = msgspec.structs.replace(alarm.header, kind=AlarmKind.CLEARED, revision=alarm.header.revision + 1)
    body = orjson.loads(alarm.body)
    body.update(kind=header.kind, revision=header.revision, state=STATE_CLEARED_UNACKNOWLEDGED)
    return Alarm(header, orjson.dumps(body))
