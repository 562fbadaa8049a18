"""A Flink installation and its configuration, made from pip's apache-flink and our flink-conf/.

In: the home folder and ports. Out: HOME/flink/dist (scripts, and `lib/` as links to the distribution's jars,
the Python jar and the Kafka connector) and HOME/flink/conf.
Guarantees: made anew at every start, so that neither an upgrade nor a changed port leaves something stale;
checkpoints and savepoints stay.
Not here: processes (flink.py), what the settings in flink-conf/ are for (there).

Jars go to `lib/` rather than to `pipeline.jars`, which would replace the Python jar; loaded from there, the
interpreter's native library is loaded once per process and serves every job.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from plantwire.stack import java
from plantwire.stack.errors import StackError
from plantwire.stack.ports import LOOPBACK
from plantwire.stack.servers.flink_commands import FlinkCommands

PROJECT = Path(__file__).resolve().parents[3]


class FlinkInstallation:
    """Folders, configuration and environment of one cluster."""

    def __init__(self, folder: Path, logs: Path, rest_port: int, rpc_port: int) -> None:
        self.dist = folder / "dist"
        self.conf = folder / "conf"
        self.checkpoints = folder / "checkpoints"
        self.savepoints = folder / "savepoints"
        self.logs = logs
        self.rest = f"http://{LOOPBACK}:{rest_port}"
        self._folder = folder
        self._rest_port = rest_port
        self._rpc_port = rpc_port
        self.commands = FlinkCommands(self.dist, self.conf, logs, self._temporary)
        self._lock = threading.Lock()
        self._prepared = False

    def prepare(self) -> None:
        """Make dist and conf, once; needs the jars, and fetches them when they are not cached."""
        with self._lock:  # every process of the cluster asks for it
            if not self._prepared:
                self._make()
                self._prepared = True

    def _make(self) -> None:
        java.java_executable()
        for folder in (self.conf, self.checkpoints, self.savepoints, self._temporary, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._make_dist()
        self._make_conf()

    def environment(self) -> dict[str, str]:
        """What Flink's processes, and the Python processes that they start, read."""
        # Thread mode asks `python` on PATH for its libraries: it has to be this environment's.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {
            "PATH": path,
            "FLINK_HOME": str(self.dist),
            "FLINK_CONF_DIR": str(self.conf),
            "FLINK_LIB_DIR": str(self.dist / "lib"),
            "FLINK_OPT_DIR": str(self.dist / "opt"),
            "FLINK_PLUGINS_DIR": str(self.dist / "plugins"),
            "FLINK_BIN_DIR": str(self.dist / "bin"),
            "FLINK_LOG_DIR": str(self.logs),
        }

    @property
    def _temporary(self) -> Path:
        return self._folder / "tmp"

    def _make_dist(self) -> None:
        source = distribution()
        shutil.rmtree(self.dist, ignore_errors=True)
        shutil.copytree(source / "bin", self.dist / "bin")  # copied: the scripts look for their real place
        for script in (self.dist / "bin").glob("*.sh"):
            script.chmod(0o755)
        (self.dist / "bin" / "flink").chmod(0o755)
        for name in ("opt", "plugins"):
            # Real folders with linked files: Flink looks into them without following links to folders.
            shutil.copytree(source / name, self.dist / name, copy_function=_link)
        lib = self.dist / "lib"
        lib.mkdir()
        python_jar = (source / "opt").glob("flink-python-*.jar")
        for jar in [*(source / "lib").glob("*.jar"), *python_jar, *java.jars("flink").glob("*.jar")]:
            (lib / jar.name).symlink_to(jar)

    def _make_conf(self) -> None:
        ours = PROJECT / "flink-conf"
        if not (ours / "config.yaml").is_file():
            raise StackError(
                f"{ours}/config.yaml is missing: `plantwire up` runs from a clone of the project"
            )
        for name in ("log4j-console.properties", "log4j-cli.properties"):
            shutil.copyfile(ours / name, self.conf / name)
        configuration = yaml.safe_load((ours / "config.yaml").read_text())
        flat = flatten(configuration) | {
            "jobmanager.rpc.port": self._rpc_port,
            "rest.port": self._rest_port,
            "execution.checkpointing.dir": self.checkpoints.as_uri(),
            "execution.checkpointing.savepoint-dir": self.savepoints.as_uri(),
            "io.tmp.dirs": str(self._temporary),
        }
        (self.conf / "config.yaml").write_text(yaml.safe_dump(flat, width=10_000))
        self.commands.prepare(flat)


def _link(source: str, target: str) -> None:
    os.symlink(source, target)


def distribution() -> Path:
    """The folder of pip's apache-flink."""
    package = importlib.util.find_spec("pyflink")
    if package is None or package.origin is None:
        raise StackError(
            "There is no Flink: install the package apache-flink (make setup), or set PLANTWIRE_FLINK"
        )
    return Path(package.origin).parent


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, the form in which later settings replace earlier ones."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
