"""Where a job goes on from, and the line of a client's output that says what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plantwire.stack.flink_jobs import FlinkJobs, newest_checkpoint, reason
from plantwire.stack.parts import Job
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


def _flink_says(monkeypatch: pytest.MonkeyPatch, *jobs: dict[str, Any] | str) -> None:
    answer = jobs[0] if jobs and isinstance(jobs[0], str) else list(jobs)
    monkeypatch.setattr("plantwire.stack.flink_jobs.flink_jobs", lambda _rest: answer)


def _living(job_id: str) -> dict[str, Any]:
    # One reads something once, when the job starts.
    tasks = {"running": 1, "finished": 1, "total": 2}
    return {"jid": job_id, "name": "alarm-detection", "state": "RUNNING", "start-time": 1, "tasks": tasks}


def _part(jobs: FlinkJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    def submit(*_: object) -> str:
        raise AssertionError("a job that lives is not submitted again")

    monkeypatch.setattr(jobs, "submit", submit)
    return Job("alarm-detection", jobs, tmp_path / "main.py", {}, 1.0, tmp_path / "log")


def _entry(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "jobs.json").read_text())["alarm-detection"]


def test_a_living_job_that_nobody_remembers_is_resumed_from_its_newest_checkpoint(
    jobs: FlinkJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    savepoint = _complete(tmp_path / "savepoints" / "savepoint-1")
    _remember(tmp_path, job_id="older", savepoint=savepoint)
    _flink_says(monkeypatch, _living("accepted"))
    _part(jobs, tmp_path, monkeypatch).prepare()
    assert _entry(tmp_path) == {"job_id": "accepted", "resumed_from": savepoint}
    # Without a checkpoint of its own it goes back to where it came from …
    jobs.prune()
    assert jobs.resume_point("alarm-detection") == savepoint
    newest = _complete(tmp_path / "checkpoints" / "accepted" / "chk-4")
    # … and with one, to that.
    jobs.prune()
    assert jobs.resume_point("alarm-detection") == newest
    assert Path(newest.removeprefix("file:")).exists()


def test_a_job_that_was_not_known_at_first_is_remembered_when_it_is_found(
    jobs: FlinkJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flink_says(monkeypatch, "JobManager does not answer")
    part = _part(jobs, tmp_path, monkeypatch)
    part.prepare()
    assert not (tmp_path / "jobs.json").exists()
    _flink_says(monkeypatch, _living("accepted"))
    assert part.probe() is None
    assert _entry(tmp_path) == {"job_id": "accepted", "resumed_from": None}


def test_a_job_that_is_remembered_is_left_as_it_is(
    jobs: FlinkJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _remember(tmp_path, job_id="abc", resumed_from="file:///somewhere")
    before = (tmp_path / "jobs.json").stat().st_ino
    _flink_says(monkeypatch, _living("abc"))
    part = _part(jobs, tmp_path, monkeypatch)
    part.prepare()
    assert part.probe() is None
    assert (tmp_path / "jobs.json").stat().st_ino == before


def test_asking_from_outside_of_the_supervisor_remembers_nothing(
    jobs: FlinkJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flink_says(monkeypatch, _living("accepted"))
    assert _part(jobs, tmp_path, monkeypatch).probe() is None
    assert not (tmp_path / "jobs.json").exists()


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
