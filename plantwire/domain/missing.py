"""Data that stay away: a metric, or a device as a whole, is silent for longer than its rule allows.

In: when values of good quality came, by the device's clock, and until when it is known that none came.
Out: the rows of a `DeviceState` that say so, and AlarmEvents.
Guarantees: a watch begins with the first value: what was never seen is not missed. An alarm is raised at
the event time of the last value plus what the rule allows, whether the next frame or a timer notices, so its
id is the same on every replay. It clears with the next value that is newer than the last. A value that comes
too late to be newer says nothing.
Not here: until when silence is known (`domain.listening`), values out of their limits (`domain.limits`).

Values are noted lazily: most frames leave only their time behind, for all their metrics (`DeviceClock`). A
row is rewritten once in its rule's `margin_ms` of event time, and then says that nothing came after a moment
that lies ahead by as much. So a state that is restored never takes for silence what was only not stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from plantwire.domain.alarm_events import DEDUP_WINDOW_MS, announce
from plantwire.domain.device_clock import DeviceClock
from plantwire.domain.device_state import DeviceState, Key, Tracked
from plantwire.domain.limits import NORMAL, LevelChange, LimitState
from plantwire.domain.rule_book import WHOLE_DEVICE, CompiledSilence, DeviceRules
from plantwire.schemas.records import AlarmEvent

KEYS_MAX: Final = 500
"""Rules times metrics that are watched of one device: they travel with its state."""


class SilenceWatch:
    """The silences of one device. What it changes is in the state that it is handed."""

    __slots__ = ("_clock", "_device_id", "_rules", "has_quiet", "look_ms", "refused")

    def __init__(self, device_id: str, rules: DeviceRules, clock: DeviceClock) -> None:
        self._device_id = device_id
        self._clock = clock
        self.refused = 0
        """Keys that were not watched for want of room, once for each attempt, for a counter."""
        self.take_rules(rules)

    def take_rules(self, rules: DeviceRules) -> None:
        """Go by other rules from now on."""
        self._rules = rules
        self.look_again()

    def look_again(self) -> None:
        """The rows are others than those that `sweep` saw last."""
        self.look_ms: float = -inf if self._rules.watch_silence else inf
        """The event time from which on `sweep` has something to do."""
        self.has_quiet = False
        """Whether `sweep` found rows that the next value of theirs must change."""

    def must_hear(self, metrics: Iterable[str], state: DeviceState) -> bool:
        """Whether values of `metrics` change rows whatever they are: that are not there, or not ahead."""
        if not self._rules.watch_silence:
            return False
        is_full = _is_full(state)
        for metric in (*metrics, WHOLE_DEVICE):
            for silence in self._rules.silences_of(metric):
                tracked = state.get((silence.rule.rule_id, metric))
                if not is_full if tracked is None else tracked.newest_ms <= self.seen_ms(metric):
                    return True
        return False

    def seen_ms(self, metric: str) -> int:
        """Event time of the last value, as far as it is known exactly; 0 where it is not."""
        return self._clock.newest_ms if metric == WHOLE_DEVICE else self._clock.newest_of(metric)

    def hear(
        self,
        state: DeviceState,
        metric: str,
        seen_ms: int,
        event_ms: int,
        site: str,
        events: list[AlarmEvent],
    ) -> DeviceState:
        """The state after a value of `event_ms`, where the last one was of `seen_ms` (0: unknown)."""
        for silence in self._rules.silences_of(metric):
            key = (silence.rule.rule_id, metric)
            tracked = state.get(key)
            if tracked is None:
                if _is_full(state):
                    self.refused += 1
                    continue
                heard = _NOTHING_MISSED
            else:
                last_ms = seen_ms or tracked.newest_ms
                if event_ms <= last_ms:
                    continue
                heard = self._grow(silence, key, tracked, last_ms, event_ms, site, events)
                if heard.limit.level != NORMAL:
                    at_ms = max(event_ms, heard.limit.changed_ms)
                    heard = self._change(silence, key, heard, NORMAL, at_ms, site, events)
                if heard is tracked and tracked.newest_ms >= event_ms:
                    continue
            newest_ms = max(heard.newest_ms, event_ms + silence.margin_ms)
            self.look_ms = min(self.look_ms, newest_ms + 1)
            state = {**state, key: heard._replace(newest_ms=newest_ms)}
        return state

    def sweep(self, state: DeviceState, until_ms: int, site: str, events: list[AlarmEvent]) -> DeviceState:
        """The state once it is known, by the device's clock, what came until `until_ms`."""
        after = dict(state)
        look_ms = inf
        has_quiet = False
        for key, tracked in state.items():
            silence = self.silence_of(key) if tracked.silence else None
            if silence is None:
                continue  # one that no longer applies is withdrawn by `DeviceDetector.run_timers`
            seen_ms = self.seen_ms(key[1])
            last_ms = seen_ms or tracked.newest_ms
            tracked = self._grow(silence, key, tracked, last_ms, until_ms, site, events)
            newest_ms = last_ms
            if tracked.limit.level != NORMAL:
                look_ms = min(look_ms, _next_ms(silence, tracked.limit.level, last_ms))
            elif seen_ms and until_ms - last_ms < silence.margin_ms:
                newest_ms = last_ms + silence.margin_ms
                look_ms = min(look_ms, newest_ms)
            else:
                # Quiet; or restored, when only the later moment is known, which must not move further ahead.
                has_quiet = True
                look_ms = min(look_ms, last_ms + silence.steps[0][0])
            if tracked.newest_ms != newest_ms or tracked.alarm is not None:
                after[key] = _without_old_alarm(tracked, until_ms)._replace(newest_ms=newest_ms)
        self.look_ms, self.has_quiet = look_ms + 1, has_quiet
        return after if after != state else state

    def put_forward(self, state: DeviceState, step_ms: int) -> DeviceState:
        """The state on a device's clock that was put forward by so much, in which no data were missing."""
        after = dict(state)
        for key, tracked in state.items():
            if not tracked.silence or tracked.limit.level != NORMAL:
                continue
            last_ms = (self.seen_ms(key[1]) or tracked.newest_ms) + step_ms
            after[key] = tracked._replace(newest_ms=last_ms)
            if key[1] != WHOLE_DEVICE:
                self._clock.note(key[1], last_ms)
        self.look_again()
        return after

    def exact(self, state: DeviceState) -> DeviceState:
        """The state with the times of the last values in place of later ones."""
        return {
            key: tracked._replace(newest_ms=self.seen_ms(key[1]) or tracked.newest_ms)
            if tracked.silence
            else tracked
            for key, tracked in state.items()
        }

    def silence_of(self, key: Key) -> CompiledSilence | None:
        """The rule of a row, while it applies."""
        rule_id, metric = key
        for silence in self._rules.silences_of(metric):
            if silence.rule.rule_id == rule_id:
                return silence
        return None

    def _grow(
        self,
        silence: CompiledSilence,
        key: Key,
        tracked: Tracked,
        last_ms: int,
        until_ms: int,
        site: str,
        events: list[AlarmEvent],
    ) -> Tracked:
        """Let every severity take effect whose time ended before `until_ms`."""
        for after_ms, severity in silence.steps:
            if last_ms + after_ms >= until_ms:
                break
            if severity < tracked.limit.level:
                tracked = self._change(silence, key, tracked, severity, last_ms + after_ms, site, events)
        return tracked

    def _change(
        self,
        silence: CompiledSilence,
        key: Key,
        tracked: Tracked,
        level: int,
        at_ms: int,
        site: str,
        events: list[AlarmEvent],
    ) -> Tracked:
        change = LevelChange(tracked.limit.level, level, at_ms, None, None)
        alarm, event = announce(silence.rule, self._device_id, site, key[1], tracked.alarm, change)
        events.append(event)
        return Tracked(LimitState(level, at_ms), alarm, tracked.newest_ms, True)


_NOTHING_MISSED: Final = Tracked(LimitState(), None, 0, True)


def _next_ms(silence: CompiledSilence, level: int, last_ms: int) -> float:
    """When a more severe level is due; never, where there is none."""
    return next((last_ms + after_ms for after_ms, severity in silence.steps if severity < level), inf)


def _without_old_alarm(tracked: Tracked, until_ms: int) -> Tracked:
    """An alarm that is over is kept as long as a further raise would be counted into it."""
    alarm = tracked.alarm
    if alarm is None or tracked.limit.level != NORMAL or until_ms < alarm.raise_ms + DEDUP_WINDOW_MS:
        return tracked
    return tracked._replace(alarm=None)


def _is_full(state: DeviceState) -> bool:
    return len(state) >= KEYS_MAX and sum(tracked.silence for tracked in state.values()) >= KEYS_MAX
