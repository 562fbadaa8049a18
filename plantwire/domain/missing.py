"""Data that stay away: a metric, or a device as a whole, is silent for longer than its rule allows.

In: when values of good quality came, by the device's clock, and until when it is known that none came.
Out: the rows of a `DeviceState` that say so, and AlarmEvents.
Guarantees: a watch begins with the first value: what was never seen is not missed. An alarm is raised at
the event time of the last value plus what the rule allows, whether the next frame or a timer notices, so its
id is the same on every replay. It clears with the next value that is newer than the last. A value that comes
too late to be newer says nothing.
Not here: until when silence is known (`domain.listening`), values out of their limits (`domain.limits`).

Values are noted lazily: most frames leave only their time behind, for all their metrics (`DeviceClock`). A
row is rewritten once in `margin_ms` of event time, and then says that nothing came after a moment that lies
ahead by as much. So a state that is restored never takes for silence what was only not stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from plantwire.domain.alarm_events import DEDUP_WINDOW_MS, announce
from plantwire.domain.device_clock import DeviceClock
from plantwire.domain.device_state import DeviceState, Key, Tracked
from plantwire.domain.limits import NORMAL, LevelChange, LimitState
from plantwire.domain.rule_book import WHOLE_DEVICE, DeviceRules
from plantwire.schemas.records import AlarmEvent, AlarmRule

KEYS_MAX: Final = 500
"""Rules times metrics that are watched of one device: they travel with its state."""
MARGIN_MAX_MS: Final = 60_000


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
            for rule in self._rules.silences_of(metric):
                tracked = state.get((rule.rule_id, metric))
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
        for rule in self._rules.silences_of(metric):
            key = (rule.rule_id, metric)
            tracked = state.get(key)
            if tracked is None:
                if _is_full(state):
                    self.refused += 1
                    continue
                heard = Tracked(LimitState(), None, event_ms + margin_ms(rule), True)
                self.look_ms = min(self.look_ms, heard.newest_ms + 1)
            else:
                last_ms = seen_ms or tracked.newest_ms
                if event_ms <= last_ms:
                    continue
                heard = self._grow(rule, key, tracked, last_ms, event_ms, site, events)
                if heard.limit.level != NORMAL:
                    at_ms = max(event_ms, heard.limit.changed_ms)
                    heard = self._change(rule, key, heard, NORMAL, at_ms, site, events)
                if heard.newest_ms < event_ms:
                    heard = heard._replace(newest_ms=event_ms + margin_ms(rule))
                    self.look_ms = min(self.look_ms, heard.newest_ms + 1)
                if heard == tracked:
                    continue
            state = {**state, key: heard}
        return state

    def sweep(self, state: DeviceState, until_ms: int, site: str, events: list[AlarmEvent]) -> DeviceState:
        """The state once it is known, by the device's clock, what came until `until_ms`."""
        after = dict(state)
        self.look_ms = inf
        self.has_quiet = False
        for key, tracked in state.items():
            rule = self.rule_of(key) if tracked.silence else None
            if rule is None:
                continue  # one that no longer applies is withdrawn by `DeviceDetector.run_timers`
            seen_ms = self.seen_ms(key[1])
            last_ms = seen_ms or tracked.newest_ms
            swept = self._grow(rule, key, tracked, last_ms, until_ms, site, events)
            alarm = swept.alarm
            level = swept.limit.level
            if alarm is not None and level == NORMAL and until_ms >= alarm.raise_ms + DEDUP_WINDOW_MS:
                alarm = None
            # Of a restored row only the later moment is known: it must not move further ahead.
            goes_on = seen_ms and level == NORMAL and until_ms - last_ms < margin_ms(rule)
            ahead_ms = margin_ms(rule) if goes_on else 0
            self.has_quiet = self.has_quiet or (not ahead_ms and level == NORMAL)
            after[key] = swept._replace(alarm=alarm, newest_ms=last_ms + ahead_ms)
            next_ms = last_ms + ahead_ms if ahead_ms else last_ms + _next_after_ms(rule, level)
            self.look_ms = min(self.look_ms, next_ms + 1)
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

    def rule_of(self, key: Key) -> AlarmRule | None:
        """The rule of a row, while it applies."""
        rule_id, metric = key
        return next((rule for rule in self._rules.silences_of(metric) if rule.rule_id == rule_id), None)

    def _grow(
        self,
        rule: AlarmRule,
        key: Key,
        tracked: Tracked,
        last_ms: int,
        until_ms: int,
        site: str,
        events: list[AlarmEvent],
    ) -> Tracked:
        """Let every severity take effect whose time ended before `until_ms`."""
        for missing in sorted(rule.missing, key=lambda missing: missing.after_ms):
            due_ms = last_ms + missing.after_ms
            if due_ms < until_ms and missing.severity < tracked.limit.level:
                tracked = self._change(rule, key, tracked, missing.severity, due_ms, site, events)
        return tracked

    def _change(
        self,
        rule: AlarmRule,
        key: Key,
        tracked: Tracked,
        level: int,
        at_ms: int,
        site: str,
        events: list[AlarmEvent],
    ) -> Tracked:
        change = LevelChange(tracked.limit.level, level, at_ms, None, None)
        alarm, event = announce(rule, self._device_id, site, key[1], tracked.alarm, change)
        events.append(event)
        return Tracked(LimitState(level, at_ms), alarm, tracked.newest_ms, True)


def margin_ms(rule: AlarmRule) -> int:
    """How far ahead a row may say that nothing came: a quarter of what the rule allows."""
    return min(min(missing.after_ms for missing in rule.missing) // 4, MARGIN_MAX_MS)


def _next_after_ms(rule: AlarmRule, level: int) -> float:
    return min((missing.after_ms for missing in rule.missing if missing.severity < level), default=inf)


def _is_full(state: DeviceState) -> bool:
    return len(state) >= KEYS_MAX and sum(tracked.silence for tracked in state.values()) >= KEYS_MAX
