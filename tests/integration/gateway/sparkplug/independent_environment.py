"""The environment of the independent Sparkplug implementation, and its edge node as a process.

pysparkplug needs paho-mqtt 1.6, the gateway 2: so it has an environment of its own, made from the lock file
when it is missing or older.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[4]
LOCK_FILE = ROOT / "requirements" / "sparkplug.txt"
ENVIRONMENT = ROOT / ".venv-sparkplug"
INTERPRETER = ENVIRONMENT / "bin" / "python"
SCRIPT = Path(__file__).with_name("independent_edge_node.py")
INSTALL_TIMEOUT_S = 240


def prepare(tell: Callable[[str], None]) -> None:
    """Make the environment; raises RuntimeError with pip's words where it cannot be made."""
    digest = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "lock.sha256"
    with LOCK_FILE.open() as lock:  # two runs at once: the second waits for the first
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest:
            return
        tell(f"Installing an independent Sparkplug implementation into {ENVIRONMENT.name} …")
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        pip = [str(INTERPRETER), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
            [*pip, "--require-hashes", "-r", str(LOCK_FILE)],
        ):
            result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            if result.returncode != 0:
                raise RuntimeError(f"{ENVIRONMENT.name} cannot be made: {result.stderr.strip()[-500:]}")
        stamp.write_text(digest)


class IndependentNode:
    """`independent_edge_node.py` as a process; `kill` cuts its connection as a power cut would."""

    def __init__(self, mqtt_url: str, group: str, node: str, metrics: list[dict[str, Any]], **more: Any):
        self._mqtt_url = mqtt_url
        self._definition = {
            "group": group,
            "node": node,
            "metrics": metrics,
            "client_id": f"{group}-{node}",
            **more,
        }
        self.events: list[dict[str, Any]] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._heard = threading.Condition()

    def start(self) -> None:
        """Start the process and define the node; not yet connected."""
        self._process = subprocess.Popen(
            [str(INTERPRETER), str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.do("define", **self._definition)

    def connect(self) -> None:
        """Connect to the broker and publish all births."""
        url = urlsplit(self._mqtt_url)
        self.do("connect", host=url.hostname, port=url.port)

    def do(self, command: str, **arguments: Any) -> None:
        """One command; returns when the node has done it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._answers.get(timeout=20)
        assert answer == {"done": command}, answer

    def data(self, device: str | None, *metrics: dict[str, Any], hold: bool = False) -> None:
        """Publish an NDATA or DDATA, or hold it back until `release`."""
        self.do("data", device_id=device, metrics=list(metrics), hold=hold)

    def wait_for_event(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 15
    ) -> dict[str, Any]:
        """The first event that is `wanted`."""
        deadline = time.monotonic() + timeout_s
        with self._heard:
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"not what was waited for: {self.events}"
                self._heard.wait(left_s)

    def kill(self) -> None:
        """SIGKILL: the broker finds the connection gone and publishes the will."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "event" in said:
                with self._heard:
                    self.events.append(said)
                    self._heard.notify_all()
            else:
                self._answers.put(said)
