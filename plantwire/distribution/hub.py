"""From what Redis says to what clients receive.

In: publications and snapshots, as bytes (`redis_feed`). Out: events to the fan-out.
Guarantees: an alarm event reaches clients once, as soon as the first of its channels brings it; what was
raised or cleared while Redis was away is told after it is back; whenever the picture gets to hold every
active alarm, clients get it anew; malformed input is counted and dropped.
Not here: connections to Redis (`redis_feed`), connections to clients (`fanout`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import orjson
import structlog

from plantwire.distribution.fanout import Fanout
from plantwire.distribution.messages import (
    Alarm,
    MalformedError,
    TelemetryUpdate,
    parse_alarm,
    parse_telemetry,
    published_ms,
)
from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import (
    EVENT_ALARM,
    EVENT_ALARM_CLEARED,
    EVENT_ALARM_UPDATED,
    EVENT_SOURCE_STATUS,
    Packet,
    telemetry_packet,
    with_emitted,
)
from plantwire.distribution.picture import LivePicture, Snapshot
from plantwire.schemas.records import AlarmKind

HELD_MAX: Final = 20_000

_EVENT_OF_KIND: Final = {
    AlarmKind.RAISED: EVENT_ALARM,
    AlarmKind.SEVERITY_CHANGED: EVENT_ALARM_UPDATED,
    AlarmKind.CLEARED: EVENT_ALARM_CLEARED,
}

log = structlog.get_logger(__name__)


class Hub:
    """See the module; used from the event loop's thread only."""

    def __init__(
        self,
        picture: LivePicture,
        fanout: Fanout,
        metrics: DistributionMetrics,
        now_ms: Callable[[], float],
    ) -> None:
        """`now_ms` is the wall clock in ms with fractions."""
        self._picture = picture
        self._fanout = fanout
        self._metrics = metrics
        self._now_ms = now_ms
        self._live = False
        self._complete = False
        # Telemetry that comes while a snapshot is awaited; None while none is.
        self._held: deque[TelemetryUpdate] | None = deque(maxlen=HELD_MAX)

    @property
    def live(self) -> bool:
        """Whether the picture follows Redis at this moment."""
        return self._live

    @property
    def alarms_complete(self) -> bool:
        """Whether the picture holds every alarm that is active at this moment."""
        return self._live and self._picture.alarms_complete

    def receive_alarm(self, body: bytes) -> None:
        """Tell an alarm publication to clients, unless it came before."""
        try:
            alarm = parse_alarm(body)
        except MalformedError as error:
            self._drop_malformed(error)
            return
        known = self._picture.knows_active(alarm.header.alarm_id)
        if not self._picture.apply_alarm(alarm):
            self._metrics.dropped.labels("alarm-known").inc()
            return
        self._emit_alarm(alarm, known)

    def receive_telemetry(self, body: bytes) -> bool:
        """Take in a telemetry publication; False when it shows that a snapshot is needed."""
        try:
            updates = parse_telemetry(body)
        except MalformedError as error:
            self._drop_malformed(error)
            return True
        in_step = True
        for update in updates:
            if self._held is None and self._picture.is_behind(update):
                # A sequence that goes back: Redis lost its data and starts anew.
                in_step = False
                self.expect_snapshot()
            self._take(update)
        return in_step

    def expect_snapshot(self) -> None:
        """Hold telemetry back until the next snapshot has been taken in."""
        if self._held is None:
            self._held = deque(maxlen=HELD_MAX)

    def begin_snapshot(self) -> None:
        """Say that a snapshot is being read from now on."""
        self.expect_snapshot()
        self._picture.begin_snapshot()

    def finish_snapshot(self, snapshot: Snapshot) -> None:
        """Take in what Redis holds and tell clients the difference."""
        first = not self._picture.loaded
        before = {
            alarm.header.alarm_id
            for alarm in snapshot.alarms
            if self._picture.knows_active(alarm.header.alarm_id)
        }
        difference = self._picture.apply_snapshot(snapshot)
        for alarm in difference.alarms:
            self._emit_alarm(alarm, alarm.header.alarm_id in before)
        held, self._held = self._held or deque(), None
        if len(held) == HELD_MAX:
            log.warning("telemetry.held_full", held=HELD_MAX)
        if difference.state_changed:
            self._fanout.renew_all()
        for update in held:
            if self._picture.is_behind(update):
                self._metrics.dropped.labels("telemetry-in-snapshot").inc()
            else:
                self._take(update)
        if first:
            self._fanout.admit_waiting()
        self._renew_once_complete()

    def set_live(self, live: bool) -> None:
        """Say whether Redis is followed; clients are told when it changes."""
        if live == self._live:
            return
        self._live = live
        self._metrics.live.set(live)
        log.info("source.live" if live else "source.lost")
        body = orjson.dumps({"live": live, "since": int(self._now_ms())})
        self._fanout.send_to_all(Packet(EVENT_SOURCE_STATUS, body))
        self._renew_once_complete()

    def _renew_once_complete(self) -> None:
        """Give every client the state by which it can tell what cleared unheard, here and at the client."""
        complete = self.alarms_complete
        if complete and not self._complete:
            self._fanout.renew_all()
        self._complete = complete

    def _take(self, update: TelemetryUpdate) -> None:
        if self._held is not None:
            if len(self._held) == HELD_MAX:
                # The oldest falls out; the snapshot that is being read is later than it.
                self._metrics.dropped.labels("telemetry-held-full").inc()
            self._held.append(update)
            return
        try:
            self._picture.apply_telemetry(update)
        except MalformedError as error:
            self._drop_malformed(error)
            return
        self._fanout.queue_telemetry(update.device_id, telemetry_packet(update))

    def _emit_alarm(self, alarm: Alarm, known: bool) -> None:
        header = alarm.header
        event = _EVENT_OF_KIND.get(header.kind, EVENT_ALARM_UPDATED)
        if event == EVENT_ALARM_UPDATED and not known:
            # To who has not seen it raised, it is a new alarm.
            event = EVENT_ALARM
        emitted_ms = self._now_ms()
        packet = Packet(event, with_emitted(header, alarm.body, emitted_ms))
        self._fanout.send_to_device(header.device_id, packet)
        published = published_ms(header)
        if published > 0:
            self._metrics.alarm_stage.observe(max(0.0, (emitted_ms - published) / 1000))

    def _drop_malformed(self, error: MalformedError) -> None:
        self._metrics.dropped.labels("malformed-source").inc()
        log.warning("source.malformed", reason=str(error))
