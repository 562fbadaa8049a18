"""The line that a person sees."""

from __future__ import annotations

import time

from plantwire.simulator.outlet import Accepted, Dropped, Rejected, Tally, Unchanged
from plantwire.simulator.progress import Progress


def test_the_line_has_every_count_and_why_most_did_not_get_through() -> None:
    tally = Tally()
    progress = Progress(tally, devices=50)
    now_s = time.monotonic() + 61
    assert progress.line(now_s) == "50 devices · 1:01"
    outcomes = [Accepted(), Accepted(), Unchanged(), Rejected("bad-shape"), Dropped("broker-away")]
    for outcome in [*outcomes, Dropped("host-offline"), Dropped("host-offline")]:
        tally.count("sparkplug", outcome)
    tally.skipped = 4
    assert progress.line(now_s) == (
        "50 devices · 1:01 · sparkplug 2 · unchanged 1 · rejected 1"
        " · not through 3 (sparkplug: host-offline) · skipped 4"
    )
