"""The event time of one device: which of its values are late, too late, or of a clock that was put back.

In: event times in order of arrival, with the time of arrival. Out: verdicts.
Guarantees: a value up to `MAX_LATE_MS` behind the newest is taken; one further behind is not, unless the
device has sent nothing else for `STEP_AFTER_MS`: then its clock was put back, and is believed.
Not here: what lateness means for an alarm (`domain.limits`).
"""

from __future__ import annotations

from typing import Final

MAX_LATE_MS: Final = 60_000
"""As long as an alarm is remembered after its raise: a repeated frame that is older would raise the alarm
again under an id that every consumer has already seen cleared."""
STEP_AFTER_MS: Final = 60_000
_METRICS_REMEMBERED: Final = 10_000


class DeviceClock:
    """Kept in memory only: a device's first frame after a restart sets it anew."""

    __slots__ = ("_behind_since_ms", "_newest_of", "_passed", "newest_ms", "steps", "too_late")

    def __init__(self) -> None:
        self.newest_ms = 0
        """Event time of the newest frame."""
        self.too_late = 0
        """Frames and values that came too late, for a counter."""
        self.steps = 0
        """How often the clock was believed to have been put back."""
        self._behind_since_ms = 0
        self._newest_of: dict[str, int] = {}
        # What passed by without a look at its metrics; folded into `_newest_of` when one is asked for.
        self._passed: dict[tuple[str, ...], int] = {}

    def pass_by(self, names: tuple[str, ...], event_ms: int) -> bool:
        """Note a frame that changes nothing; False when it is not current enough for that."""
        if event_ms < self.newest_ms:
            return False
        self.newest_ms = event_ms
        self._behind_since_ms = 0
        self._passed[names] = event_ms
        return True

    def admit(self, event_ms: int, now_ms: int) -> int | None:
        """Take a frame's time, which arrived at `now_ms`. None: it is too late. Else how far the clock
        was put back before it, 0 or negative ms.
        """
        if not self.is_too_late(event_ms):
            self._behind_since_ms = 0
            self.newest_ms = max(self.newest_ms, event_ms)
            return 0
        self._behind_since_ms = self._behind_since_ms or now_ms
        if now_ms - self._behind_since_ms < STEP_AFTER_MS:
            self.too_late += 1
            return None
        step_ms = event_ms - self.newest_ms
        self.newest_ms, self._behind_since_ms = event_ms, 0
        self.steps += 1
        self._newest_of.clear()
        self._passed.clear()
        return step_ms

    def is_too_late(self, event_ms: int) -> bool:
        """Whether a value is too far behind the newest frame."""
        return event_ms <= self.newest_ms - MAX_LATE_MS

    def newest_of(self, metric: str) -> int:
        """Event time of the newest value of a metric, as far as remembered; 0 when it is not."""
        if self._passed:
            for names, passed_ms in self._passed.items():
                for name in names:
                    self.note(name, passed_ms)
            self._passed.clear()
        return self._newest_of.get(metric, 0)

    def note(self, metric: str, event_ms: int) -> None:
        """Remember the event time of a value."""
        if event_ms > self._newest_of.get(metric, 0):
            if len(self._newest_of) >= _METRICS_REMEMBERED:
                self._newest_of.clear()
            self._newest_of[metric] = event_ms
