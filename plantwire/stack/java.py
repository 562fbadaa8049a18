"""The JDK, Maven, and the jars that Maven fetches for Kafka, Flink and the MQTT broker.

In: PATH and JAVA_HOME. Out: paths. Guarantees: jars are fetched once per version set into a cache shared by
all homes (a digest of the pom files and of our own Java names the folder), and appear there complete or not
at all.
Not here: which jars and versions (jars/pom.xml).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from plantwire.stack.commands import run_command
from plantwire.stack.errors import StackError

JAVA_MINIMUM = 17
JARS = Path(__file__).resolve().parent / "jars"
FETCH_TIMEOUT_S = 600
_fetching = threading.Lock()


def java_executable() -> str:
    """The `java` that will run the servers; raises StackError where it is missing or too old."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        where = f"JAVA_HOME is {home}, which has no bin/java" if home else "There is no java on PATH"
        raise StackError(
            f"{where}. Install a JDK {JAVA_MINIMUM} (Debian: apt install openjdk-17-jdk-headless)"
        )
    version = java_version(java)
    if version < JAVA_MINIMUM:
        raise StackError(
            f"{java} is Java {version}; Plantwire needs {JAVA_MINIMUM} or newer. "
            f"Install one and set JAVA_HOME to it"
        )
    return java


def java_version(java: str) -> int:
    """The major version that `java -version` prints (8 for 1.8); raises StackError when it prints none."""
    output = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30).stderr
    match = re.search(r'version "(\d+)(?:\.(\d+))?', output)
    if match is None:
        raise StackError(f"{java} does not tell its version. Set JAVA_HOME to a JDK {JAVA_MINIMUM}")
    major = int(match[1])
    return int(match[2]) if major == 1 and match[2] else major


def cache_directory() -> Path:
    """The folder of this version set's jars, there or not."""
    digest = hashlib.sha256()
    for source in sorted([*JARS.rglob("pom.xml"), *JARS.rglob("*.java")]):
        digest.update(source.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "plantwire" / f"jars-{digest.hexdigest()[:12]}"


def jars(server: str) -> Path:
    """The folder with the jars of `kafka`, `flink` or `mqtt`, fetched by Maven when they are not cached."""
    cache = cache_directory()
    with _fetching:  # the servers prepare at the same time
        if not cache.is_dir():
            _fetch(cache)
    return cache / server


def _fetch(cache: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            "The jars of Kafka, Flink and MQTT are not cached and there is no mvn on PATH to fetch them. "
            "Install Maven (Debian: apt install maven)"
        )
    if not Path(java_executable()).resolve().with_name("javac").exists():
        raise StackError(
            "There is a Java runtime without javac, which compiles the MQTT broker's start. "
            f"Install a JDK {JAVA_MINIMUM} (Debian: apt install openjdk-17-jdk-headless)"
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="fetching-") as folder:
        pom = Path(folder) / "pom"
        shutil.copytree(JARS, pom)  # Maven may write beside the pom file; the package stays as it is
        target = Path(folder) / "jars"
        result = run_command(
            [maven, "-B", "-q", "-f", str(pom), "generate-resources", f"-Dplantwire.jars={target}"],
            FETCH_TIMEOUT_S,
        )
        if result.code != 0 or not target.is_dir():
            lines = [line for line in result.output.splitlines() if "ERROR" in line]
            reason = lines[0] if lines else f"exit code {result.code}"
            raise StackError(f"Maven could not fetch the jars: {reason}. Check the network and try again")
        try:
            target.rename(cache)
        except OSError:
            if not cache.is_dir():  # else another process was quicker, with the same jars
                raise


def main() -> None:
    """`python -m plantwire.stack.java`: fetch the jars now, so that the first start need not."""
    try:
        java_executable()
        sys.stdout.write(f"Jars of Kafka, Flink and MQTT: {jars('kafka').parent}\n")
    except StackError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
