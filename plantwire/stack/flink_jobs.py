"""Flink jobs: submit, find, stop with a savepoint, and where each goes on from.

In: the cluster's REST address, a local installation for the `flink` command, a job's name.
Out: running jobs, and HOME/flink/jobs.json, which remembers per job the id it last ran under and the
savepoint that stopped it.
Guarantees: a job is resumed from its savepoint, else from the newest complete checkpoint of its last run,
else it starts fresh; nothing is deleted before something newer exists to resume from.
Not here: what a job does (jobs/), when it is submitted again (supervisor.py).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError
from plantwire.stack.files import write_atomically
from plantwire.stack.health import flink_jobs
from plantwire.stack.servers.flink_installation import FlinkInstallation

SUBMIT_TIMEOUT_S = 120
REST_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.2
ALIVE = frozenset({"INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING", "RECONCILING"})


class FlinkJobs:
    """The jobs of one cluster. Safe to use from several threads."""

    def __init__(self, installation: FlinkInstallation, rest: str, memory: Path) -> None:
        self._installation = installation
        self._rest = rest
        self._memory = memory
        self._lock = threading.Lock()

    def submit(self, name: str, script: Path, arguments: Sequence[str], variables: Mapping[str, str]) -> str:
        """Submit `script`, resuming where the job `name` left off; returns its id. Raises StackError.

        Takes some seconds: the client is a JVM and a Python process of their own.
        """
        resume = self.resume_point(name)
        python = sys.executable
        words = ["run", "-d", "-m", urlsplit(self._rest).netloc]
        words += ["-s", resume] if resume is not None else []
        words += ["-pyclientexec", python, "-pyexec", python, "-py", str(script), *arguments]
        command = self._installation.commands.client(words)
        environment = {**variables, **self._installation.environment()}
        result = run_command(command, SUBMIT_TIMEOUT_S, environment)
        (self._installation.logs / f"submit-{name}.log").write_text(result.output)
        match = re.search(r"submitted with JobID ([0-9a-f]{32})", result.output)
        if result.code != 0 or match is None:
            raise StackError(f"{name} was not accepted by Flink: {reason(result.output)}")
        self._remember(name, {"job_id": match[1], "resumed_from": resume})
        return match[1]

    def find(self, name: str) -> dict[str, Any] | str | None:
        """The newest living job of that name, None when there is none, or why that is not known."""
        jobs = flink_jobs(self._rest)
        if isinstance(jobs, str):
            return jobs
        alive = [job for job in jobs if job["name"] == name and job["state"] in ALIVE]
        return max(alive, key=lambda job: int(job["start-time"]), default=None)

    def adopt(self, name: str, job: Mapping[str, Any]) -> None:
        """Remember the living `job` (as `find` gave it) as the run of `name`, if it is not remembered yet.

        So it is when Flink took it and its client, or the supervisor, ended before they could say so.
        """
        job_id = str(job["jid"])
        if self._recall().get(name, {}).get("job_id") != job_id:
            # It was told to go on from where a submission would have gone on from now.
            self._remember(name, {"job_id": job_id, "resumed_from": self.resume_point(name)})

    def stop(self, name: str, timeout_s: float) -> str | None:
        """Stop the job with a savepoint and remember it; returns its path.

        Where that fails or takes longer, the job is cancelled and the newest checkpoint stands in for
        the savepoint; returns None then, and when there is no such job.
        """
        job = self.find(name)
        if not isinstance(job, dict):
            return None
        job_id = str(job["jid"])
        try:
            path = self._stop_with_savepoint(job_id, timeout_s)
        except (httpx.HTTPError, StackError):
            self._remember(name, {"job_id": job_id})
            self._cancel(job_id)
            return None
        self._remember(name, {"job_id": job_id, "savepoint": path})
        return path

    def resume_point(self, name: str) -> str | None:
        """The savepoint or checkpoint that the job would go on from, if there is one."""
        entry = self._recall().get(name, {})
        if (savepoint := entry.get("savepoint")) is not None and _exists(savepoint):
            return str(savepoint)
        checkpoints = self._installation.checkpoints / str(entry.get("job_id"))
        newest = newest_checkpoint(checkpoints)
        if newest is not None:
            return newest.as_uri()
        resumed_from = entry.get("resumed_from")
        return str(resumed_from) if resumed_from is not None and _exists(resumed_from) else None

    def prune(self) -> None:
        """Delete checkpoints and savepoints that no job would go on from."""
        entries = self._recall()
        kept = {self._installation.checkpoints / str(entry.get("job_id")) for entry in entries.values()}
        for name in entries:
            if (point := self.resume_point(name)) is not None:
                folder = _path(point)
                kept |= {folder, *folder.parents}
        for root in (self._installation.checkpoints, self._installation.savepoints):
            for folder in root.iterdir() if root.is_dir() else ():
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def _stop_with_savepoint(self, job_id: str, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        with httpx.Client(base_url=self._rest, timeout=REST_TIMEOUT_S) as rest:
            answer = rest.post(f"/jobs/{job_id}/stop", json={"drain": False})
            answer.raise_for_status()
            trigger = answer.json()["request-id"]
            while time.monotonic() < deadline:
                answer = rest.get(f"/jobs/{job_id}/savepoints/{trigger}")
                answer.raise_for_status()
                body = answer.json()
                if body["status"]["id"] == "COMPLETED":
                    location = body["operation"].get("location")
                    if location is None:
                        raise StackError(str(body["operation"].get("failure-cause", {}).get("class")))
                    return str(location)
                time.sleep(POLL_INTERVAL_S)  # Flink tells the end of a savepoint to those who ask only
        raise StackError(f"no savepoint within {timeout_s:.0f} s")

    def _cancel(self, job_id: str) -> None:
        try:
            httpx.patch(f"{self._rest}/jobs/{job_id}", params={"mode": "cancel"}, timeout=REST_TIMEOUT_S)
        except httpx.HTTPError:
            return  # the JobManager is gone, and with it the job

    def _recall(self) -> dict[str, dict[str, Any]]:
        try:
            entries: dict[str, dict[str, Any]] = json.loads(self._memory.read_text())
        except FileNotFoundError:
            return {}
        return entries

    def _remember(self, name: str, entry: dict[str, Any]) -> None:
        with self._lock:
            write_atomically(self._memory, json.dumps({**self._recall(), name: entry}, indent=2))


def newest_checkpoint(folder: Path) -> Path | None:
    """The `chk-<n>` with the highest n that is complete (its metadata is written last)."""
    complete = [path.parent for path in folder.glob("chk-*/_metadata")]
    return max(complete, key=lambda path: int(path.name.removeprefix("chk-")), default=None)


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _exists(uri: str) -> bool:
    # A savepoint on another file system (an external cluster's) is the cluster's to check.
    return urlsplit(uri).scheme not in ("", "file") or (_path(uri) / "_metadata").exists()


def reason(output: str) -> str:
    """The one line of a client's output that says what went wrong."""
    # Where the script failed, its own words come first; that it failed is all that the client adds.
    words, _, verdict = output.partition("org.apache.flink.client.program.ProgramAbortException")
    if not words.strip():
        words = verdict
    lines = [line.strip() for line in words.splitlines()]
    lines = [line for line in lines if line.strip("-") and not line.startswith(("at ", "..."))]
    telling = [line for line in lines if re.match(r"(Caused by: )?[\w.$]*(Exception|Error|Exit)\b", line)]
    return (telling or lines or ["it said nothing"])[-1][:300]
