"""Saves what changed on a thread of its own: evaluation never waits for a disk.

In: a `Progress` at a time. Out: it is in the state file, and `on_saved` was told its positions.
Guarantees: a progress is saved whole, in the order in which it was handed over; while the disk fails it is
tried again and again, and the health says so. At most one waits.
Not here: the file (`state_file`), when a progress may be saved (`detection`, `live_picture`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import apsw
import structlog

from plantwire.light.state_file import Positions, Progress, StateFile
from plantwire.platform.health import Health

STATE: Final = "state"
RETRY_EVERY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Saver:
    """`start` it, `close` it. `file` is open, and the saver's from `start` to `close`."""

    def __init__(self, file: StateFile, health: Health, on_saved: Callable[[Positions], None]) -> None:
        self._file = file
        self._health = health
        self._on_saved = on_saved
        self._condition = threading.Condition()
        self._waiting: Progress | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="saver", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._health.report(STATE, None)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether a progress may be handed over."""
        return self._waiting is None

    def hand_over(self, progress: Progress) -> None:
        """Save it soon; only while idle."""
        with self._condition:
            if self._waiting is not None:
                raise AssertionError("one progress at a time")
            self._waiting = progress
            self._condition.notify_all()

    def close(self) -> None:
        """End; what waits is saved before, unless the disk fails."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._waiting is None and not self._closing:
                    self._condition.wait()
                progress = self._waiting
            if progress is None:
                return
            if self._save(progress):
                with self._condition:
                    self._waiting = None
                self._on_saved(progress.positions)
                continue
            with self._condition:
                if self._closing:
                    return
                self._condition.wait(RETRY_EVERY_S)

    def _save(self, progress: Progress) -> bool:
        try:
            self._file.save(progress)
        except apsw.Error as error:
            if self._health.report(STATE, f"not saved: {error}"):
                _log.error("state-not-saved", reason=str(error))
            return False
        if self._health.report(STATE, None):
            _log.info("state-saved-again")
        return True
