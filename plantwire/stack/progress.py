"""What a person sees while the stack starts and stops: a live table on a terminal, else plain lines.

In: snapshots, one after the other. Out: text on stderr. Guarantees: nothing is shown twice in plain mode;
the table of a start stays on the screen, that of a stop goes with what it showed.
Not here: where snapshots come from (launcher.py).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from plantwire.stack.child import State
from plantwire.stack.snapshot import PartState, Snapshot

WORDS = {
    State.WAITING: "waits for others",
    State.PREPARING: "prepares",
    State.STARTING: "starts",
    State.READY: "ready",
    State.PAUSING: "ended, tries again",
    State.STOPPED: "stopped",
}


class Progress:
    """Shows how a start or a stop goes on. A context manager."""

    def __init__(self, console: Console, *, live: bool = True, keep: bool = True) -> None:
        self._console = console
        self._keep = keep
        self._restarts: dict[str, int] = {}
        table = live and console.is_terminal
        self._live = Live(console=console, refresh_per_second=8, transient=not keep) if table else None
        self._spinner = Spinner("dots")
        self._said: set[str] = set()
        self._seen_s: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show where the stack is now."""
        if self._live is not None:
            self._live.update(self._table(snapshot))
            return
        for part in snapshot.parts:
            if snapshot.phase == "starting" and part.well and self._keep:
                took = "" if part.started_after_s is None else f" after {part.started_after_s:.1f} s"
                self._say(f"{part.name} ready{took}")
            if part.restarts > self._restarts.get(part.name, 0):
                self._restarts[part.name] = part.restarts
                if self._keep:
                    self._say(f"{part.name}: {part.reason}; start {part.restarts + 1}")
        if snapshot.stopping and snapshot.phase != "starting":
            self._say(f"stopping {', '.join(snapshot.stopping)}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self, snapshot: Snapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        for part in snapshot.parts:
            table.add_row(*self._row(part, snapshot))
        return table

    def _row(self, part: PartState, snapshot: Snapshot) -> tuple[Text | Spinner, Text, Text, Text]:
        now_s = time.monotonic()
        since_s = now_s - self._seen_s.setdefault((part.name, part.state), now_s)
        mark: Text | Spinner
        if part.name in snapshot.stopping:
            return self._spinner, Text(part.name), Text("stops"), Text(f"{since_s:4.0f} s")
        if part.well:
            mark, words = Text("●", "green"), Text("ready", "green")
            seconds = "" if part.started_after_s is None else f"{part.started_after_s:4.1f} s"
            return mark, Text(part.name), words, Text(seconds, "dim")
        if part.state in (State.WAITING, State.STOPPED):
            mark, words, seconds = Text("·", "dim"), Text(WORDS[State(part.state)], "dim"), ""
        else:
            mark, words, seconds = self._spinner, Text(WORDS[State(part.state)]), f"{since_s:4.0f} s"
        if part.restarts and part.reason:
            words.append(f": {part.reason}", "yellow")
        return mark, Text(part.name), words, Text(seconds, "dim")
