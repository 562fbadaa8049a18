"""Jobs on a real cluster: submitted, stopped with a savepoint, resumed, and where they resume from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from plantwire.stack.errors import StackError
from plantwire.stack.flink_jobs import FlinkJobs
from tests.conftest import FlinkCluster

SCRIPT = Path(__file__).parent / "counting_job.py"
NAME = "counting"


def _await(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _running(jobs: FlinkJobs) -> bool:
    job = jobs.find(NAME)
    return isinstance(job, dict) and job["tasks"]["running"] == job["tasks"]["total"]


def _restored(rest: str, job_id: str) -> str | None:
    latest = httpx.get(f"{rest}/jobs/{job_id}/checkpoints").json()["latest"]["restored"]
    return None if latest is None else str(latest["external_path"])


def test_a_job_stops_with_a_savepoint_and_goes_on_from_it(flink_cluster: FlinkCluster) -> None:
    jobs = flink_cluster.jobs
    first = jobs.submit(NAME, SCRIPT, [], {})
    _await(lambda: _running(jobs), "the job runs")
    assert _restored(flink_cluster.rest, first) is None
    savepoint = jobs.stop(NAME, timeout_s=60)
    assert savepoint is not None
    assert jobs.find(NAME) is None
    assert jobs.resume_point(NAME) == savepoint

    second = jobs.submit(NAME, SCRIPT, [], {})
    _await(lambda: _running(jobs), "the job runs again")
    assert _restored(flink_cluster.rest, second) == savepoint
    # Until the new run has a checkpoint of its own, the savepoint is what there is: it must stay.
    jobs.prune()
    assert jobs.resume_point(NAME) == savepoint

    later = jobs.stop(NAME, timeout_s=60)
    jobs.prune()
    assert jobs.resume_point(NAME) == later != savepoint
    assert not Path(savepoint.removeprefix("file:")).exists()


def test_stopping_a_job_that_is_not_there_does_nothing(flink_cluster: FlinkCluster) -> None:
    assert flink_cluster.jobs.stop("never-submitted", timeout_s=5) is None


def test_a_job_that_cannot_start_says_why(flink_cluster: FlinkCluster, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    # A job imports PyFlink first. The client loses the words of a script that ends before it has looked.
    script.write_text("import pyflink.table\nraise SystemExit('no such plant')\n")
    with pytest.raises(StackError, match="broken was not accepted by Flink: no such plant"):
        flink_cluster.jobs.submit("broken", script, [], {})
