"""Where a job goes on from, and the line of a client's output that says what went wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plantwire.stack.flink_jobs import FlinkJobs, newest_checkpoint, reason
from plantwire.stack.servers.flink_installation import FlinkInstallation, flatten


@pytest.fixture
def jobs(tmp_path: Path) -> FlinkJobs:
    installation = FlinkInstallation(tmp_path, tmp_path / "logs", 1, 2)
    return FlinkJobs(installation, "http://127.0.0.1:1", tmp_path / "jobs.json")


def _complete(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "_metadata").write_bytes(b"x")
    return folder.as_uri()


def _remember(tmp_path: Path, **entry: str) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps({"alarm-detection": entry}))


def test_a_first_run_starts_fresh(jobs: FlinkJobs) -> None:
    assert jobs.resume_point("alarm-detection") is None


def test_a_savepoint_goes_before_checkpoints(jobs: FlinkJobs, tmp_path: Path) -> None:
    savepoint = _complete(tmp_path / "savepoints" / "savepoint-1")
    _complete(tmp_path / "checkpoints" / "abc" / "chk-3")
    _remember(tmp_path, job_id="abc", savepoint=savepoint)
    assert jobs.resume_point("alarm-detection") == savepoint


def test_the_newest_complete_checkpoint_of_the_last_run_counts(jobs: FlinkJobs, tmp_path: Path) -> None:
    _complete(tmp_path / "checkpoints" / "abc" / "chk-9")
    newest = _complete(tmp_path / "checkpoints" / "abc" / "chk-10")
    (tmp_path / "checkpoints" / "abc" / "chk-11").mkdir()
    _complete(tmp_path / "checkpoints" / "other" / "chk-99")
    _remember(tmp_path, job_id="abc", resumed_from="file:///gone")
    assert jobs.resume_point("alarm-detection") == newest
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_a_run_without_a_checkpoint_goes_back_to_where_it_began(jobs: FlinkJobs, tmp_path: Path) -> None:
    savepoint = _complete(tmp_path / "savepoints" / "savepoint-1")
    _remember(tmp_path, job_id="abc", resumed_from=savepoint)
    assert jobs.resume_point("alarm-detection") == savepoint


def test_pruning_keeps_what_is_resumed_from(jobs: FlinkJobs, tmp_path: Path) -> None:
    kept = _complete(tmp_path / "savepoints" / "savepoint-2")
    _complete(tmp_path / "savepoints" / "savepoint-1")
    _complete(tmp_path / "checkpoints" / "older" / "chk-1")
    _remember(tmp_path, job_id="abc", savepoint=kept)
    jobs.prune()
    assert [path.name for path in (tmp_path / "savepoints").iterdir()] == ["savepoint-2"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert jobs.resume_point("alarm-detection") == kept


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "Traceback (most recent call last):\n  File ...\n"
            "py4j.protocol.Py4JJavaError: An error occurred while calling o0.execute.\n"
            "Caused by: java.lang.IllegalArgumentException: Could not parse value 'infinite'\n\tat a.b\n"
            "org.apache.flink.client.program.ProgramAbortException: java.lang.RuntimeException: Python\n"
            "Caused by: java.lang.RuntimeException: Python process exits with code: 1\n\t... 15 more\n",
            "Caused by: java.lang.IllegalArgumentException: Could not parse value 'infinite'",
        ),
        (
            "no such plant\norg.apache.flink.client.program.ProgramAbortException: java.lang\n\tat x\n",
            "no such plant",
        ),
        (
            "\n-----\n The program finished with the following exception:\n\n"
            "java.lang.RuntimeException: Found 0 flink-python jar.\n\tat org.apache\n",
            "java.lang.RuntimeException: Found 0 flink-python jar.",
        ),
        ("", "it said nothing"),
    ],
)
def test_the_reason_is_the_line_that_tells(output: str, line: str) -> None:
    assert reason(output) == line


def test_nested_settings_become_flat() -> None:
    assert flatten({"rest": {"port": 1, "a": {"b": "c"}}, "x": 2}) == {
        "rest.port": 1,
        "rest.a.b": "c",
        "x": 2,
    }
