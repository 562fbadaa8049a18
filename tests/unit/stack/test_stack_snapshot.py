"""The state file: what is written is read, and a process is never mistaken for another."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from plantwire.stack.snapshot import (
    PartState,
    ProcessId,
    Snapshot,
    end_leftovers,
    process_id,
    read_snapshot,
    state_file,
    write_snapshot,
)


def _snapshot(*parts: PartState) -> Snapshot:
    me = process_id(os.getpid())
    assert me is not None
    return Snapshot(me, "ready", {"kafka_port": 19092}, simulator=False, parts=list(parts))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    snapshot = _snapshot(PartState("kafka", "ready", True, 2, ProcessId(7, 1.5), 19092, None, 3.25, "/x.log"))
    write_snapshot(tmp_path, snapshot)
    assert read_snapshot(tmp_path) == snapshot
    assert stat.S_IMODE(state_file(tmp_path).stat().st_mode) == 0o600
    assert list(state_file(tmp_path).parent.iterdir()) == [state_file(tmp_path)]


def test_no_file_and_a_foreign_file_are_no_snapshot(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    state_file(tmp_path).parent.mkdir()
    state_file(tmp_path).write_text('{"phase": 7}')
    assert read_snapshot(tmp_path) is None


def test_a_pid_used_again_is_someone_else() -> None:
    me = process_id(os.getpid())
    assert me is not None
    assert me.is_alive()
    assert not ProcessId(me.pid, me.born_s - 60).is_alive()


def test_leftovers_are_ended_and_strangers_left_alone() -> None:
    def sleeper() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
        )

    left, stranger = sleeper(), sleeper()
    try:
        identity = process_id(left.pid)
        parts = [
            PartState("redis", "ready", True, 0, identity),
            PartState("mqtt", "ready", True, 0, ProcessId(stranger.pid, 1.0)),
            PartState("topics", "ready", True, 0),
        ]
        assert end_leftovers(_snapshot(*parts)) == ["redis"]
        assert identity is not None
        assert not identity.is_alive()
        assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
