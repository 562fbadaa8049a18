"""Which messages were forwarded lately, so that a repeated one is not forwarded again. No clock, no I/O.

In: keys, and the time as an argument. Out: whether a key was remembered within the window.
Guarantees: at most `keys_max` keys are held; beyond it the one remembered first goes, and its repetition
is forwarded again: at least once.
Not here: what a key is (`mqtt_source`); repetitions across a restart (the storage's own key takes those).
"""

from __future__ import annotations

from collections import OrderedDict


class RecentKeys:
    """Keys of the last `window_s` seconds, `keys_max` at most."""

    def __init__(self, window_s: float, keys_max: int) -> None:
        self._window_s = window_s
        self._keys_max = keys_max
        # Insertion order is age: a key is remembered once and never refreshed. A plain dict would look at all
        # that went from its front before, at each step.
        self._remembered_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._remembered_at_s)

    def remember(self, key: str, now_s: float) -> None:
        """Note that a message is forwarded; `now_s` never goes back."""
        self._forget_old(now_s)
        if key in self._remembered_at_s:
            return
        if len(self._remembered_at_s) >= self._keys_max:
            self._remembered_at_s.popitem(last=False)
        self._remembered_at_s[key] = now_s

    def seen(self, key: str, now_s: float) -> bool:
        """Whether `key` was remembered less than the window ago."""
        at_s = self._remembered_at_s.get(key)
        return at_s is not None and now_s - at_s < self._window_s

    def _forget_old(self, now_s: float) -> None:
        while self._remembered_at_s:
            oldest = next(iter(self._remembered_at_s))
            if now_s - self._remembered_at_s[oldest] < self._window_s:
                return
            del self._remembered_at_s[oldest]
