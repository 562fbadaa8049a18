"""The processes that do the work: one fuzzes a target, one runs its corpus again and watches memory.

In: a target, a folder with its corpus, how many runs. Out: a report as JSON in a file.
Both begin a process of their own: the fuzzer ends its process itself, and memory is that of the target alone.
"""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from importlib import import_module
from pathlib import Path

import msgspec

from tests.fuzz.target import Target

RSS_MAX_MB = 1024
INPUT_TIMEOUT_S = 10
MARKS = 10
"""How often resident memory is looked at in one run."""


class Report(msgspec.Struct):
    """What a process has seen; written again at every mark, so that a crash leaves it behind."""

    executions: int = 0
    rss_kb: list[int] = msgspec.field(default_factory=list)
    """Resident memory at each mark."""
    traced_growth_bytes: int = 0
    """What Python objects grew by over the second half of the memory run."""


def fuzz(target: Target, corpus: Path, runs: int, seed: int, report_file: Path) -> None:
    """Fuzz; does not return: the fuzzer ends the process, with status 0 when nothing was found."""
    import atheris

    with atheris.instrument_imports(include=list(target.instrument)):
        import_module(target.module)
    check = target.check()
    report = Report()
    every = max(1, runs // MARKS)

    def run(data: bytes) -> None:
        check(data)
        report.executions += 1
        if report.executions % every == 0:
            report.rss_kb.append(resident_kb())
            report_file.write_bytes(msgspec.json.encode(report))

    arguments = [
        "fuzz",
        str(corpus),
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={target.max_len}",
        f"-rss_limit_mb={RSS_MAX_MB}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-artifact_prefix={corpus.parent}/",
        "-print_final_stats=1",
    ]
    if target.words:
        words = corpus.parent / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        arguments.append(f"-dict={words}")
    atheris.Setup(arguments, run)
    atheris.Fuzz()


def replay(target: Target, corpus: Path, runs: int, report_file: Path) -> None:
    """Run the corpus over and over; what still grows after the first half leaks."""
    inputs = [file.read_bytes() for file in sorted(corpus.iterdir())]
    check = target.check()
    for data in inputs:
        check(data)
    tracemalloc.start()
    report = Report()
    half = 0
    every = max(1, runs // MARKS)
    while report.executions < runs:
        for data in inputs:
            check(data)
            report.executions += 1
            if report.executions % every == 0:
                report.rss_kb.append(resident_kb())
                if len(report.rss_kb) == MARKS // 2:
                    half = _traced_bytes()
    report.traced_growth_bytes = _traced_bytes() - half
    report_file.write_bytes(msgspec.json.encode(report))


def resident_kb() -> int:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _traced_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


if __name__ == "__main__":
    mode, described, folder, number, chance, report_to = sys.argv[1:]
    chosen = msgspec.json.decode(described, type=Target)
    if mode == "fuzz":
        fuzz(chosen, Path(folder), int(number), int(chance), Path(report_to))
    else:
        replay(chosen, Path(folder), int(number), Path(report_to))
