"""The Java command lines of Flink's processes, as its own shell scripts would make them.

In: an installation. Out: argument lists that start the JVM at once.
Guarantees: memory options come from Flink's own calculation (`BashJavaUtils`, which the scripts ask too).
Not here: the settings they follow (flink-conf/config.yaml).

Why not the scripts: each starts two or three JVMs, one after the other, only to read its configuration,
before it becomes the one that was wanted. On two cores that is most of a cluster's start, and of the return
of a TaskManager that was killed. The calculation is done once per configuration and kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plantwire.stack import java
from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError
from plantwire.stack.files import write_atomically

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
CLIENT = "org.apache.flink.client.cli.CliFrontend"
CALCULATOR = "org.apache.flink.runtime.util.bash.BashJavaUtils"
RESULT_MARK = "BASH_JAVA_UTILS_EXEC_RESULT:"
CALCULATION_TIMEOUT_S = 60
FIRST_COMPILER_ONLY = "-XX:TieredStopAtLevel=1"
STRICT_SECURITY_FROM_JAVA = 18


class FlinkCommands:
    """Command lines for one configuration. `prepare` before the others."""

    def __init__(self, dist: Path, conf: Path, logs: Path, temporary: Path) -> None:
        self._dist = dist
        self._conf = conf
        self._logs = logs
        self._temporary = temporary
        self._flat: Mapping[str, Any] = {}
        self._memory: Mapping[str, list[str]] = {}

    def prepare(self, flat: Mapping[str, Any]) -> None:
        """Calculate memory for the configuration `flat` (already written to conf), or recall it."""
        self._flat = flat
        sized = {key: str(value) for key, value in flat.items() if not key.endswith("port")}
        sized = {
            key: value for key, value in sized.items() if key.startswith(("jobmanager.", "taskmanager."))
        }
        versions = [jar.name for jar in sorted((self._dist / "lib").glob("flink-dist-*.jar"))]
        digest = hashlib.sha256(json.dumps([sized, versions], sort_keys=True).encode()).hexdigest()[:12]
        kept = java.cache_directory().parent / f"flink-memory-{digest}.json"
        if not kept.exists():
            calculated = {name: self._calculate(name) for name in ("JM", "TM")}
            write_atomically(kept, json.dumps(calculated))
        self._memory = json.loads(kept.read_text())

    def job_manager(self, name: str) -> list[str]:
        """The JobManager in the foreground."""
        jvm, dynamic = self._memory["JM"]
        return self._server("jobmanager", name, JOB_MANAGER, jvm, dynamic.split())

    def task_manager(self, name: str, *, optimising: bool) -> list[str]:
        """A TaskManager in the foreground, registered as `name`; `optimising` gives it both compilers."""
        jvm, dynamic = self._memory["TM"]
        options = [*dynamic.split(), "-D", f"taskmanager.resource-id={name}"]
        command = self._server("taskmanager", name, TASK_MANAGER, jvm, options)
        return [word for word in command if word != FIRST_COMPILER_ONLY] if optimising else command

    def client(self, arguments: Sequence[str]) -> list[str]:
        """`flink <arguments>`."""
        return [
            *self._java("client"),
            # It keeps scripts in a folder of a fixed name, which would be another user's in a shared /tmp.
            f"-Djava.io.tmpdir={self._temporary}",
            *self._logging("client", "log4j-cli.properties"),
            "-classpath",
            self._classpath(),
            CLIENT,
            *arguments,
        ]

    def _server(self, kind: str, name: str, main_class: str, jvm: str, options: Sequence[str]) -> list[str]:
        return [
            *self._java(kind),
            *jvm.split(),
            *self._logging(name, "log4j-console.properties"),
            "-classpath",
            self._classpath(),
            main_class,
            "--configDir",
            str(self._conf),
            *options,
        ]

    def _java(self, kind: str) -> list[str]:
        executable = java.java_executable()
        options = ["-XX:+IgnoreUnrecognizedVMOptions"]
        for which in ("all", kind):
            options += str(self._flat.get(f"env.java.opts.{which}", "")).split()
        if java.java_version(executable) >= STRICT_SECURITY_FROM_JAVA:
            options.append("-Djava.security.manager=allow")
        return [executable, *options]

    def _logging(self, name: str, properties: str) -> list[str]:
        return [
            f"-Dlog.file={self._logs / f'{name}.log'}",
            f"-Dlog4j.configurationFile={(self._conf / properties).as_uri()}",
        ]

    def _classpath(self) -> str:
        # The distribution's own jar comes last, so that what is in others goes before it.
        jars = sorted(
            (self._dist / "lib").glob("*.jar"), key=lambda jar: ("flink-dist" in jar.name, jar.name)
        )
        return ":".join(str(jar) for jar in jars)

    def _calculate(self, which: str) -> list[str]:
        classpath = f"{self._dist / 'bin' / 'bash-java-utils.jar'}:{self._classpath()}"
        goal = [f"GET_{which}_RESOURCE_PARAMS", "--configDir", str(self._conf)]
        command = [java.java_executable(), "-XX:TieredStopAtLevel=1", "-classpath", classpath, CALCULATOR]
        result = run_command([*command, *goal], CALCULATION_TIMEOUT_S)
        lines = [line.partition(RESULT_MARK)[2] for line in result.output.splitlines() if RESULT_MARK in line]
        if result.code != 0 or len(lines) != 2:
            reason = [line for line in result.output.splitlines() if "Exception" in line][:1]
            raise StackError(f"Flink does not accept its memory settings: {' '.join(reason)}")
        return lines
