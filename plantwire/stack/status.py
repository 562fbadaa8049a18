"""Whether the running stack is healthy: every part asked now, by whoever wants to know.

In: the home's state file. Out: one line of facts per part. Guarantees: healthy means that the process lives
and that the server answers its own protocol at this moment; the supervisor's word alone is not enough.
Not here: printing (cli.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from plantwire.stack.assembly import assemble
from plantwire.stack.launcher import running
from plantwire.stack.parts import Part
from plantwire.stack.secret import Secrets, database_password
from plantwire.stack.settings import RecordedSettings, StackSettings
from plantwire.stack.snapshot import PartState, Snapshot


class PartStatus(msgspec.Struct, frozen=True):
    """One part, asked just now."""

    name: str
    healthy: bool
    state: str
    pid: int | None
    port: int | None
    restarts: int
    reason: str | None
    log: str | None


class Status(msgspec.Struct, frozen=True):
    """The whole stack."""

    healthy: bool
    phase: str
    supervisor_pid: int | None
    addresses: dict[str, str]
    parts: list[PartStatus]


def settings_of(snapshot: Snapshot, home: Path) -> StackSettings:
    """The settings that the running stack was started with, whatever this command's environment says."""
    return RecordedSettings.model_validate({**snapshot.settings, "home": home})


def examine(settings: StackSettings) -> Status:
    """Ask every part."""
    snapshot = running(settings)
    if snapshot is None:
        return Status(False, "down", None, {}, [])
    actual = settings_of(snapshot, settings.home)
    secrets = Secrets(token=None, database=database_password(actual, create=False))
    parts = assemble(actual, secrets, simulator=snapshot.simulator)
    known = {part.name: part for part in snapshot.parts}
    with ThreadPoolExecutor(len(parts), thread_name_prefix="probe") as workers:
        statuses = list(workers.map(lambda pair: _ask(pair[0], known.get(pair[0].name)), parts))
    healthy = snapshot.phase == "ready" and all(part.healthy for part in statuses)
    return Status(healthy, snapshot.phase, snapshot.supervisor.pid, actual.addresses().redacted(), statuses)


def _ask(part: Part, state: PartState | None) -> PartStatus:
    if state is None:
        return PartStatus(
            part.name, False, "unknown", None, part.port, 0, "the supervisor does not know it", None
        )
    reason = state.reason if state.state != "ready" else part.probe()
    dead = state.process is not None and not state.process.is_alive()
    if dead:
        reason = "its process is gone"
    return PartStatus(
        name=state.name,
        healthy=state.state == "ready" and not dead and reason is None,
        state=state.state,
        pid=state.process.pid if state.process is not None else None,
        port=state.port,
        restarts=state.restarts,
        reason=reason,
        log=state.log,
    )
