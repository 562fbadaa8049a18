"""Alarm detection for every device of a stream of frames, on whichever engine.

In: TelemetryFrame bodies with their keys, AlarmRule bodies, timers; what the alarm log last said; where
states are kept (`keeping`). Out: AlarmEvents with the hops known so far, or why a frame cannot be judged.
Guarantees: every change of state is saved before its events are handed out, the cache only saves reads; the
same frames from the same states give the same events. Memory is bounded by `CACHED_DEVICES`.
Not here: what an alarm is (`domain.detection`), where events and rejected frames go (the engines).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple, cast

import msgspec

from plantwire.domain.admission import MAX_AHEAD_MS, is_too_far_ahead
from plantwire.domain.adoption import go_on_from
from plantwire.domain.attention import next_look_ms
from plantwire.domain.cached_device import CachedDevice
from plantwire.domain.detection import DeviceDetector, FrameFields
from plantwire.domain.keeping import Counters, DeviceKeeper
from plantwire.domain.listening import Ear, Heard, lag_ms, look_in_ms
from plantwire.domain.packed_state import UnknownLayoutError, pack, unpack, unpack_with_clock
from plantwire.domain.reconciliation import reconcile
from plantwire.domain.rule_book import RuleBook, is_sound
from plantwire.schemas.codec import FRAME_CODEC, RULE_CODEC, UndecodableError
from plantwire.schemas.frame_layout import FrameReader
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmRule

CACHED_DEVICES: Final = 100_000


class Judged(NamedTuple):
    """What became of a frame: what it has to tell, or why it cannot be judged."""

    events: list[AlarmEvent]
    rejected: str | None = None


_NOTHING: Final = Judged([])


class PlantDetection:
    """`rules` are in force at once; `logged` is the last event of each recent alarm, `opened_ms` the time of
    the start, `counters` makes the counters.
    """

    def __init__(
        self, rules: Iterable[AlarmRule], logged: Iterable[AlarmEvent], opened_ms: int, counters: Counters
    ) -> None:
        self.book = RuleBook(rules)
        self._opened_ms = opened_ms
        self._reader = FrameReader()
        self._detectors: OrderedDict[str, CachedDevice] = OrderedDict()
        # The device of the frame that was read last.
        self._newest: CachedDevice | None = None
        self._has_layout = False
        # By device: a replay may come out differently. Cleared as devices are loaded.
        self._logged: dict[str, list[AlarmEvent]] = {}
        for event in logged:
            self._logged.setdefault(event.device_id, []).append(event)
        self._count_historical = counters("frames_historical")
        self._count_rejected = counters("frames_rejected")
        self._count_rules_rejected = counters("rules_rejected")
        self._count_too_late = counters("frames_too_late")
        self._count_clock_steps = counters("device_clock_steps")
        self._count_adopted = counters("edge_states_adopted")
        self._count_not_adopted = counters("edge_states_unreadable")
        self._count_corrected = counters("alarms_corrected")
        self._count_unwatched = counters("silences_unwatched")

    def take_rule(self, rule_id: str, body: bytes | None) -> bool:
        """Take a rule record in; a null body deletes. Whether it changed what is in force."""
        if body is None:
            return self.book.remove(rule_id)
        try:
            rule = RULE_CODEC.decode(body)
        except UndecodableError:
            self._count_rules_rejected.inc()
            return False
        if not is_sound(rule):
            self._count_rules_rejected.inc()
            return False
        return self.book.put(rule)

    def passes(self, body: bytes | None, detect_in_us: int) -> bool:
        """Whether a frame changes nothing, as most do; of any other `judge` is to be asked next."""
        reading = self._reader.read(body) if body else None
        self._has_layout = reading is not None
        if reading is not None and not reading.layout.historical:
            cached = self._detectors.get(reading.layout.device_id)
            if (
                cached is not None
                and cached.generation == self.book.generation
                and reading.event_time_ms <= min(detect_in_us // 1000 + MAX_AHEAD_MS, cached.settle_after_ms)
                and cached.detector.passes(reading.layout.names, reading.numbers, reading.event_time_ms)
            ):
                cached.passed, cached.passed_us = reading, detect_in_us
                self._newest = cached
                return True
        return False

    def judge(self, body: bytes, key: str | None, keeper: DeviceKeeper, detect_in_us: int) -> Judged:
        """The long way: for the first frame of a layout, and whenever there is something to tell.

        `key` is the record's, and `keeper` keeps what belongs to it.
        """
        try:
            frame = FRAME_CODEC.decode_fields(body)
        except UndecodableError as error:
            return self._reject(f"undecodable: {error}")
        if frame["historical"]:
            self._count_historical.inc()
            return _NOTHING
        now_ms = detect_in_us // 1000
        event_time_ms = frame["event_time_ms"]
        if is_too_far_ahead(event_time_ms, now_ms):
            return self._reject("timestamp-ahead")
        device_id = frame["device_id"]
        if key != device_id:
            return self._reject("key-mismatch")
        if not self._has_layout:
            self._reader.learn(body, frame)
        cached = self._detectors.get(device_id) or self._load(device_id, keeper)
        detector = cached.detector
        before = detector.state
        heard = Heard(event_time_ms, frame["received_time_ms"], now_ms)
        # One that only marks values stale or bad has the gateway's time, not the device's.
        has_readings = any(m["number"] is not None and m["quality"] == QUALITY_GOOD for m in frame["metrics"])
        if has_readings:
            cached.clock_ahead_ms = event_time_ms - now_ms
        events: list[AlarmEvent] = []
        if cached.generation != self.book.generation:
            events = self._refresh_rules(cached, event_time_ms)
        if frame["edge_state"]:
            events.extend(self._adopt(cached, frame["edge_state"], event_time_ms))
        too_late, steps, refused = detector.clock.too_late, detector.clock.steps, detector.silences.refused
        forward_ms = cached.ear.put_forward_ms(heard) if detector.watches_silence else 0
        events.extend(detector.take_frame(cast(FrameFields, frame), now_ms, forward_ms))
        self._count_too_late.inc(detector.clock.too_late - too_late)
        self._count_clock_steps.inc(detector.clock.steps - steps)
        self._count_unwatched.inc(detector.silences.refused - refused)
        if detector.clock.newest_ms == event_time_ms:
            cached.ear.hear(heard, is_put_back=detector.clock.steps != steps)
            self._newest = cached
        if has_readings and event_time_ms > cached.settle_after_ms:
            events.extend(self._settle(cached, event_time_ms))
        if detector.state is not before:
            self._save(cached, keeper, now_ms)
        return Judged(
            [
                msgspec.structs.replace(
                    event,
                    device_us=event_time_ms * 1000,
                    gateway_in_us=frame["gateway_in_us"],
                    gateway_out_us=frame["gateway_out_us"],
                    detect_in_us=detect_in_us,
                )
                for event in events
            ]
        )

    def wake(
        self, device_id: str, timer_ms: int, keeper: DeviceKeeper, detect_in_us: int
    ) -> list[AlarmEvent]:
        """A device's timer of `timer_ms` has come."""
        # A timer that is overdue after a restore is told its own time, long past.
        now_ms = max(timer_ms, detect_in_us // 1000)
        cached = self._detectors.get(device_id) or self._load(device_id, keeper)
        if cached.timer_ms not in (0, timer_ms):
            return []  # of before a restart; the one that is known does the work
        cached.timer_ms = 0
        event_now_ms = timer_ms + cached.clock_ahead_ms
        until_ms = self._silent_until_ms(cached, now_ms)
        before = cached.detector.state
        if cached.generation != self.book.generation:
            events = self._refresh_rules(cached, event_now_ms, until_ms)
        else:
            events = cached.detector.run_timers(event_now_ms, until_ms)
        if cached.detector.watches_silence:
            # What the log has of a silence cannot be told from this state before it is known to have lasted.
            event_now_ms = min(event_now_ms, until_ms)
        if event_now_ms > cached.settle_after_ms:
            events.extend(self._settle(cached, event_now_ms))
        if cached.detector.state is not before:
            self._save(cached, keeper, now_ms)
        else:
            self._set_timer(cached, keeper, now_ms)
        return [msgspec.structs.replace(event, detect_in_us=detect_in_us) for event in events]

    def _load(self, device_id: str, keeper: DeviceKeeper) -> CachedDevice:
        packed = keeper.load()
        site, state, ahead_ms = unpack_with_clock(packed) if packed is not None else ("", {}, None)
        detector = DeviceDetector(device_id, self.book.for_device(device_id), state)
        detector.site = site
        logged = self._logged.pop(device_id, [])
        # One that is loaded later has sent nothing since it was put out of the cache.
        ear = Ear(self._opened_ms, ahead_ms)
        cached = CachedDevice(detector, self.book.generation, logged, ear)
        self._detectors[device_id] = cached
        if len(self._detectors) > CACHED_DEVICES:
            self._detectors.popitem(last=False)
        return cached

    def _refresh_rules(
        self, cached: CachedDevice, now_ms: int, silent_until_ms: int | None = None
    ) -> list[AlarmEvent]:
        cached.generation = self.book.generation
        detector = cached.detector
        return detector.take_rules(self.book.for_device(detector.device_id), now_ms, silent_until_ms)

    def _silent_until_ms(self, cached: CachedDevice, now_ms: int) -> int:
        newest = self._newest.ear.heard if self._newest is not None else None
        return cached.ear.silent_until_ms(lag_ms(newest, now_ms), now_ms)

    def _save(self, cached: CachedDevice, keeper: DeviceKeeper, now_ms: int) -> None:
        detector = cached.detector
        if detector.state:
            keeper.save(pack(detector.site, detector.state, cached.ear.clock_ahead_ms or 0))
        else:
            # The clearing rule: no alarm, no delay, no dedup window, no data that are waited for (those are,
            # as long as their rule applies).
            keeper.clear()
        self._set_timer(cached, keeper, now_ms)

    def _set_timer(self, cached: CachedDevice, keeper: DeviceKeeper, now_ms: int) -> None:
        detector = cached.detector
        silence_in_ms = look_in_ms(detector.silences.look_ms, self._silent_until_ms(cached, now_ms))
        timer_ms = next_look_ms(detector.state, cached.clock_ahead_ms, now_ms, silence_in_ms)
        if timer_ms is None or 0 < cached.timer_ms <= timer_ms:
            return
        if cached.timer_ms:
            keeper.drop_timer(cached.timer_ms)
        keeper.set_timer(timer_ms)
        cached.timer_ms = timer_ms

    def _settle(self, cached: CachedDevice, event_now_ms: int) -> list[AlarmEvent]:
        """Hold the state against what the log said up to now, and tell what sets it right."""
        detector = cached.detector
        corrections = []
        for logged in cached.passed_of_log(event_now_ms):
            detector.state, correction = reconcile(detector.state, logged, event_now_ms)
            if correction is not None:
                self._count_corrected.inc()
                corrections.append(correction)
        return corrections

    def _adopt(self, cached: CachedDevice, edge_state: bytes, event_time_ms: int) -> list[AlarmEvent]:
        """Kafka lacks frames that the gateway's own detection has seen: go on from what it knows."""
        try:
            site, edge = unpack(edge_state)
        except UnknownLayoutError:
            # Of a newer gateway. Without it alarms may get ids of their own; the frame counts all the same.
            self._count_not_adopted.inc()
            return []
        detector = cached.detector
        detector.site = detector.site or site
        self._count_adopted.inc()
        return go_on_from(detector, edge, event_time_ms)

    def _reject(self, reason: str) -> Judged:
        self._count_rejected.inc()
        return Judged([], reason)
