"""Alarm detection for every device of this gateway.

In: live frames in order of arrival; the rules in force; what becomes of frames (`on_spilled`,
`on_delivered_with_state`). Out: AlarmEvents, to local clients at once and to the caller; frames with
`edge_state` while their device has diverged; device states to the edge buffer.
Guarantees: nothing here waits. A state is handed to the buffer before the frame that changed it, so no frame
is kept without it. An event of a delay that ended is stored if its device diverges soon after: the cloud,
which did not see the frames, cannot tell it. Memory is bounded by `gateway_edge_devices_max`; only
devices at rest are forgotten for others.
Not here: evaluation (`watch`), clients (`local_socket`), rules (`rule_follower`), durability (`buffer`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from plantwire.domain.admission import is_too_far_ahead
from plantwire.domain.attention import next_look_ms
from plantwire.domain.limits import NORMAL
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.buffer.entry import BufferRefusedError, EdgeBuffer
from plantwire.gateway.edge_alarms import saved_state
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.watch import DeviceWatch, is_same_but_for_times, lasting
from plantwire.gateway.intake import Observed
from plantwire.schemas.records import AlarmEvent, AlarmKind, TelemetryFrame

TICK_S: Final = 1.0
SAVE_EVERY_TICKS: Final = 5
"""How long a state may be stored with times of values that are older than those judged."""
HELD_MARGIN_S: Final = 14.0
"""Beyond the time after which what Kafka did not acknowledge goes to the buffer; seconds are enough."""
HELD_MAX: Final = 10_000
_LOOKED_AT_FOR_ROOM: Final = 64

log = structlog.get_logger(__name__)


class Rules(Protocol):
    """Where the rules in force come from; `rule_follower.RuleFollower` is one."""

    @property
    def book(self) -> RuleBook | None:
        """The rules; None while none were ever received."""


class _Held(NamedTuple):
    until_s: float
    event: AlarmEvent


class EdgeAlarms:
    """The `EdgeDetection` of the intake; used from the event loop's thread only.

    `spill_after_s` is how long Kafka may be silent before frames go to the buffer. `tell` shows an event to
    the local clients. `clock_us` is the wall clock.
    """

    def __init__(
        self,
        devices_max: int,
        spill_after_s: float,
        rules: Rules,
        buffer: EdgeBuffer,
        metrics: EdgeAlarmMetrics,
        tell: Callable[[AlarmEvent], None],
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._devices_max = devices_max
        self._held_s = spill_after_s + HELD_MARGIN_S
        self._rules = rules
        self._buffer = buffer
        self._metrics = metrics
        self._tell = tell
        self._clock_us = clock_us
        # Least recently seen first. Cleared by `_make_room`, at the bound, of devices at rest.
        self._watches: OrderedDict[str, DeviceWatch] = OrderedDict()
        # Cleared by the alarm's own clear.
        self._active: dict[str, AlarmEvent] = {}
        # By device; cleared by age, see `_tick`, or when they are stored.
        self._held: dict[str, list[_Held]] = {}
        self._held_size = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ticks = 0
        self._timers_restored = False
        self._closed = False

    def start(
        self, loop: asyncio.AbstractEventLoop, put_alarms: Callable[[Sequence[AlarmEvent]], None]
    ) -> None:
        """Take up what was saved; the buffer is open, the rules are there if they are on disk. `put_alarms`
        stores events for Kafka that no frame carries.
        """
        self._loop = loop
        self._put_alarms = put_alarms
        for key, stored in self._buffer.saved(saved_state.KEY_PREFIX).items():
            self._restore(key.removeprefix(saved_state.KEY_PREFIX), stored)
        self._metrics.devices.set(len(self._watches))
        self._restore_timers()
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    async def close(self) -> None:
        """End timers, and keep what is not kept yet."""
        self._closed = True
        self._ticking.cancel()
        for timer in self._timers.values():
            timer.cancel()
        saves = [self._save(device_id, watch) for device_id, watch in self._watches.items() if watch.dirty]
        await asyncio.gather(*(save for save in saves if save is not None), return_exceptions=True)

    @property
    def active(self) -> Sequence[AlarmEvent]:
        """The last event of each active alarm."""
        return tuple(self._active.values())

    def observe(self, frame: TelemetryFrame) -> Observed:
        """See `intake.EdgeDetection.observe`."""
        book = self._rules.book
        detect_in_us = self._clock_us()
        now_ms = detect_in_us // 1000
        if book is None or frame.historical or is_too_far_ahead(frame.event_time_ms, now_ms):
            return Observed(frame)
        device_id = frame.device_id
        watch = self._watches.get(device_id)
        if watch is None:
            watch = self._watch_new(device_id, book)
            if watch is None:
                return Observed(frame)
        else:
            self._watches.move_to_end(device_id)
        before, refused = watch.detector.state, watch.detector.silences.refused
        found = watch.take_rules(book, frame.event_time_ms)
        if watch.diverged_order is not None:
            frame = msgspec.structs.replace(frame, edge_state=watch.packed(frame))
        found += watch.take(frame, now_ms)
        if watch.detector.silences.refused != refused:
            self._metrics.silences_unwatched.inc(watch.detector.silences.refused - refused)
        if not found and watch.detector.state is before:
            return Observed(frame)
        events = [
            self._stamped(
                event,
                detect_in_us,
                device_us=frame.event_time_ms * 1000,
                gateway_in_us=frame.gateway_in_us,
                gateway_out_us=detect_in_us,
            )
            for event in found
        ]
        for event in events:
            self._announce(event)
            self._metrics.latency.observe((self._clock_us() - frame.gateway_in_us) / 1e6)
        # The clients have it before the disk is asked for anything.
        kept_before, kept = lasting(before), lasting(watch.detector.state)
        if events or not is_same_but_for_times(kept_before, kept):
            self._save(device_id, watch)
        elif kept != kept_before:
            watch.dirty = True
        self._set_timer(device_id, watch, now_ms)
        return Observed(frame, events)

    def on_spilled(self, device_id: str, order: int) -> None:
        """See `intake.EdgeDetection.on_spilled`."""
        watch = self._watches.get(device_id)
        if watch is None:
            return
        if watch.diverged_order is not None:
            watch.diverged_order = max(watch.diverged_order, order)
            return
        watch.diverged_order = order
        self._metrics.diverged.inc()
        self._save(device_id, watch)
        if device_id in self._held:
            # Not from within the forwarder's own hand-over.
            self._loop.call_soon(self._store_held, device_id)

    def on_delivered_with_state(self, device_id: str, order: int) -> None:
        """See `intake.EdgeDetection.on_delivered_with_state`."""
        watch = self._watches.get(device_id)
        if watch is None or watch.diverged_order is None or order < watch.diverged_order:
            return
        watch.diverged_order = None
        self._metrics.diverged.dec()
        self._save(device_id, watch)

    def _watch_new(self, device_id: str, book: RuleBook) -> DeviceWatch | None:
        if len(self._watches) >= self._devices_max and not self._make_room():
            self._metrics.unwatched.inc()
            return None
        watch = self._watches[device_id] = DeviceWatch(device_id, book, self._clock_us() // 1000)
        self._metrics.devices.set(len(self._watches))
        return watch

    def _make_room(self) -> bool:
        """Forget a device at rest, among those seen least recently."""
        for device_id, watch in islice(self._watches.items(), _LOOKED_AT_FOR_ROOM):
            if watch.at_rest:
                del self._watches[device_id]
                return True
        return False

    def _restore(self, device_id: str, stored: bytes) -> None:
        if len(self._watches) >= self._devices_max:
            log.warning("edge-state-not-taken", device_id=device_id, reason="more devices than are watched")
            return
        try:
            saved, site, state = saved_state.decode(stored)
        except saved_state.UnreadableStateError as error:
            log.warning("edge-state-not-taken", device_id=device_id, reason=str(error))
            return
        book = self._rules.book or RuleBook()
        since_ms = self._clock_us() // 1000
        watch = self._watches[device_id] = DeviceWatch(device_id, book, since_ms, site, state)
        if saved.diverged:
            watch.diverged_order = 0
            self._metrics.diverged.inc()
        self._active.update((event.alarm_id, event) for event in saved.alarms)

    def _restore_timers(self) -> None:
        """A timer finds rules: without any, it would withdraw every alarm."""
        if not self._timers_restored and self._rules.book is not None:
            self._timers_restored = True
            for device_id, watch in self._watches.items():
                self._set_timer(device_id, watch, self._clock_us() // 1000)

    def _set_timer(self, device_id: str, watch: DeviceWatch, now_ms: int) -> None:
        silence_in_ms = watch.silence_in_ms(now_ms)
        look_ms = next_look_ms(watch.detector.state, watch.clock_ahead_ms, now_ms, silence_in_ms)
        if look_ms is None or (watch.look_at_ms and watch.look_at_ms <= look_ms) or self._closed:
            return
        if watch.look_at_ms:
            self._timers[device_id].cancel()
        watch.look_at_ms = look_ms
        self._timers[device_id] = self._loop.call_later(
            max(0, look_ms - now_ms) / 1000, self._look, device_id, look_ms
        )

    def _look(self, device_id: str, at_ms: int) -> None:
        detect_in_us = self._clock_us()
        del self._timers[device_id]
        watch = self._watches[device_id]  # a device whose timer runs is not at rest
        watch.look_at_ms = 0
        book = self._rules.book
        assert book is not None, "timers run once there are rules"  # noqa: S101 - for the type checker
        before = watch.detector.state
        found = watch.look(at_ms, book, max(at_ms, detect_in_us // 1000))
        events = [self._stamped(event, detect_in_us) for event in found]
        for event in events:
            self._announce(event)
        if events and watch.diverged_order is not None:
            self._put_alarms(events)
        elif events:
            self._hold(device_id, events)
        if events or lasting(watch.detector.state) != lasting(before):
            self._save(device_id, watch)
        self._set_timer(device_id, watch, max(at_ms, detect_in_us // 1000))

    def _stamped(self, event: AlarmEvent, detect_in_us: int, **hops: int) -> AlarmEvent:
        return msgspec.structs.replace(
            event, detect_in_us=detect_in_us, detect_out_us=self._clock_us(), **hops
        )

    def _announce(self, event: AlarmEvent) -> None:
        if event.kind == AlarmKind.CLEARED:
            self._active.pop(event.alarm_id, None)
        else:
            self._active[event.alarm_id] = event
        self._metrics.events.labels(event.kind).inc()
        self._tell(event)

    def _hold(self, device_id: str, events: Sequence[AlarmEvent]) -> None:
        if self._held_size + len(events) > HELD_MAX:
            # Stored for nothing, most likely: the cloud tells them too. But none is lost.
            self._put_alarms(events)
            return
        until_s = self._loop.time() + self._held_s
        self._held.setdefault(device_id, []).extend(_Held(until_s, event) for event in events)
        self._held_size += len(events)

    def _store_held(self, device_id: str) -> None:
        held = self._held.pop(device_id, ())
        self._held_size -= len(held)
        if held:
            self._put_alarms([event for _, event in held])

    def _let_go(self, now_s: float) -> None:
        """Of what is held, what is older than it takes until a frame is known not to arrive live."""
        for device_id, held in list(self._held.items()):
            kept = [each for each in held if each.until_s > now_s]
            self._held_size -= len(held) - len(kept)
            if kept:
                self._held[device_id] = kept
            else:
                del self._held[device_id]

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self._restore_timers()
        self._let_go(self._loop.time())
        self._ticks += 1
        if self._ticks % SAVE_EVERY_TICKS == 0:
            for device_id, watch in self._watches.items():
                if watch.dirty:
                    self._save(device_id, watch)

    def _save(self, device_id: str, watch: DeviceWatch) -> asyncio.Future[None] | None:
        state = watch.detector.state
        alarms = tuple(
            self._active[tracked.alarm.alarm_id]
            for tracked in state.values()
            if tracked.alarm is not None
            and tracked.limit.level != NORMAL
            and tracked.alarm.alarm_id in self._active
        )
        stored = saved_state.encode(
            watch.detector.site, lasting(state), watch.diverged_order is not None, alarms
        )
        watch.dirty = False
        try:
            saving = self._buffer.save(saved_state.KEY_PREFIX + device_id, stored)
        except (BufferRefusedError, ValueError):  # no room, or more than the buffer takes as one value
            self._note_not_saved(watch)
            return None
        saving.add_done_callback(partial(self._handle_saved, watch))
        return saving

    def _handle_saved(self, watch: DeviceWatch, saving: asyncio.Future[None]) -> None:
        if saving.cancelled() or saving.exception() is not None:
            self._note_not_saved(watch)

    def _note_not_saved(self, watch: DeviceWatch) -> None:
        watch.dirty = True
        self._metrics.saves_failed.inc()
