"""The life of one part under supervision: waiting, preparing, starting, ready, and again after a death.

In: a part, the names that must be ready before it, a clock, and a way to run something in the background.
Out: its state, counted restarts, the last reason. `step` is called again and again and never blocks.
Guarantees: a part that ended is started again, at once the first time and then after a pause that doubles up
to a bound; having been ready for a while starts the pauses anew. Probes of one part never overlap.
Not here: what happens to the stack as a whole (supervisor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

from plantwire.stack.errors import StackError
from plantwire.stack.parts import Part

STARTING_PROBE_INTERVAL_S = 0.1
UNWELL_PROBE_INTERVAL_S = 1.0

Run = Callable[[Callable[[], Any]], "Future[Any]"]


class State(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    PAUSING = "pausing"
    STOPPED = "stopped"


class Backoff:
    """How long to pause before a restart: 0, then doubling from `first_s` to `longest_s`."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 10.0, forget_after_s: float = 60.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._forget_after_s = forget_after_s
        self._failures = 0

    def next_s(self, ready_for_s: float) -> float:
        """The pause after a failure of a part that had been ready for that long (0 when it never was)."""
        if ready_for_s >= self._forget_after_s:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        doublings = min(self._failures - 2, 30)
        return float(min(self._first_s * 2**doublings, self._longest_s))


class Child:
    """One part, supervised."""

    def __init__(
        self,
        part: Part,
        needs: frozenset[str],
        *,
        clock: Callable[[], float],
        run: Run,
        start_timeout_s: float,
        backoff: Backoff | None = None,
    ) -> None:
        self.part = part
        self.needs = needs
        self.state = State.WAITING
        self.restarts = 0
        self.failures_before_ready = 0
        self.fatal: str | None = None
        """What no restart can mend (a missing JDK), from the part's own `prepare`."""
        self.last_end: str | None = None
        """Why it was last started again."""
        self.unwell: str | None = None
        """What the latest probe had to say against it."""
        self.ready_once = False
        self.started_after_s: float | None = None
        """How long its first start took, from the moment that it had what it needs."""
        self._clock = clock
        self._run = run
        self._start_timeout_s = start_timeout_s
        self._backoff = backoff or Backoff()
        self._work: Future[Any] | None = None
        self._probe: Future[str | None] | None = None
        self._began_s = clock()
        self._ready_since_s: float | None = None
        self._probe_again_s = 0.0
        self._again_s = 0.0

    @property
    def well(self) -> bool:
        """Ready, and nothing said against it."""
        return self.state is State.READY and self.unwell is None

    def stop(self) -> None:
        """End the part for good; returns when it is gone, and may take its time."""
        self.part.stop()
        self.unwell = None
        self.state = State.STOPPED

    def step(self, well: frozenset[str]) -> None:
        """Look at the part and do what is due; `well` names the parts that are."""
        now_s = self._clock()
        if self.state is State.WAITING:
            if self.needs <= well:
                self._began_s = now_s
                self._work = self._run(self.part.prepare)
                self.state = State.PREPARING
        elif self.state is State.PREPARING:
            self._after_prepare(now_s)
        elif self.state is State.PAUSING:
            if now_s >= self._again_s and (self._work is None or self._work.done()):
                self.state = State.WAITING
        else:
            self._watch(now_s)

    def _after_prepare(self, now_s: float) -> None:
        if self._work is None or not self._work.done():
            return
        error = self._work.exception()
        if isinstance(error, StackError):
            self.fatal = str(error)
        if error is not None:
            self._fail(str(error) or type(error).__name__, now_s)
            return
        self.fatal = None
        self.part.start()
        self._probe_again_s = now_s
        self.state = State.STARTING

    def _watch(self, now_s: float) -> None:
        if (end := self.part.ended()) is not None:
            self._fail(end, now_s)
            return
        if self._probe is not None and self._probe.done():
            self._take_probe(self._probe, now_s)
            self._probe = None
        if self._probe is None and now_s >= self._probe_again_s:
            self._probe = self._run(self.part.probe)
        if self.state is State.STARTING and now_s - self._began_s > self._start_timeout_s:
            self._fail(f"it is not ready after {self._start_timeout_s:.0f} s: {self.unwell}", now_s)

    def _take_probe(self, probe: Future[str | None], now_s: float) -> None:
        error = probe.exception()
        self.unwell = probe.result() if error is None else f"the probe failed: {error}"
        if self.unwell is None and self.state is State.STARTING:
            self.state = State.READY
            self._ready_since_s = now_s
            self.ready_once = True
            if self.started_after_s is None:
                self.started_after_s = now_s - self._began_s
        if self.state is State.STARTING:
            self._probe_again_s = now_s + STARTING_PROBE_INTERVAL_S
        else:
            well = self.unwell is None
            self._probe_again_s = now_s + (self.part.probe_interval_s if well else UNWELL_PROBE_INTERVAL_S)

    def _fail(self, reason: str, now_s: float) -> None:
        ready_for_s = 0.0 if self._ready_since_s is None else now_s - self._ready_since_s
        self._ready_since_s = None
        self.restarts += 1
        if not self.ready_once:
            self.failures_before_ready += 1
        self.last_end = reason
        self.unwell = reason
        self._again_s = now_s + self._backoff.next_s(ready_for_s)
        self._probe = None  # whatever it still finds is about the one that is gone
        was_started = self.state is not State.PREPARING
        self.state = State.PAUSING
        self._work = self._run(self.part.clear_away) if was_started else None
