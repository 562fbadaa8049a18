"""Runs targets, each in processes of its own, and says what they came to.

In: targets, runs, a seed. Out: a `Verdict` for each.
Guarantees: a target holds when no input makes it raise, hang or take too much memory, and when its memory
does not grow: neither over the fuzzer's run (resident) nor over repeated runs of the corpus (Python objects).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.fuzz.child import Report
from tests.fuzz.target import Target

RSS_GROWTH_MAX_KB = 48 * 1024
"""Over a fuzzing run, from its fifth part on: the fuzzer's own corpus and bounded caches fit in it."""
TRACED_GROWTH_MAX_BYTES = 96 * 1024
REPLAYS_MAX = 20_000
PROCESS_TIMEOUT_S = 3600
_STEADY_FROM = 2


class Verdict(msgspec.Struct, frozen=True):
    """What became of one target."""

    name: str
    executions: int
    fuzz_s: float
    coverage: int
    """Branches of the instrumented modules that were seen."""
    corpus: int
    """Inputs that each led to something new."""
    rss_growth_kb: int
    traced_growth_bytes: int
    problem: str | None
    """What was found, with the file of the input; None when the target holds."""


def run_target(target: Target, runs: int, seed: int, folder: Path, *, replays: int = REPLAYS_MAX) -> Verdict:
    """Fuzz the target, then run its corpus again (not at all where `replays` is 0); all that is worth
    keeping of it stays in `folder`.
    """
    home = folder / target.name
    corpus = home / "corpus"
    if home.exists():
        shutil.rmtree(home)
    corpus.mkdir(parents=True)
    for index, data in enumerate(target.seeds()):
        (corpus / f"seed-{index:02d}").write_bytes(data)
    began_s = time.monotonic()
    log = home / "log"
    status, fuzzed = _run("fuzz", target, corpus, runs, seed, home / "fuzz.json", log)
    fuzz_s = time.monotonic() - began_s
    text = log.read_text("utf-8", "replace")
    executions = int(_last(r"stat::number_of_executed_units:\s+(\d+)", text) or fuzzed.executions)
    steady = fuzzed.rss_kb[_STEADY_FROM:]
    rss_growth_kb = steady[-1] - steady[0] if steady else 0
    problem, replayed = None, Report()
    if status != 0:
        problem = _found(home, text)
    elif rss_growth_kb > RSS_GROWTH_MAX_KB:
        problem = f"resident memory grew by {rss_growth_kb // 1024} MB while fuzzing"
    else:
        status, replayed = _run(
            "replay", target, corpus, min(runs, REPLAYS_MAX), 0, home / "replay.json", log
        )
        if status != 0:
            problem = f"the corpus fails when it is run again: {log}"
        elif replayed.traced_growth_bytes > TRACED_GROWTH_MAX_BYTES:
            problem = f"Python objects grew by {replayed.traced_growth_bytes // 1024} kB over the same inputs"
    return Verdict(
        target.name,
        executions,
        fuzz_s,
        int(_last(r"cov: (\d+)", text) or 0),
        sum(1 for _ in corpus.iterdir()),
        rss_growth_kb,
        replayed.traced_growth_bytes,
        problem,
    )


def _run(
    mode: str, target: Target, corpus: Path, runs: int, seed: int, report_file: Path, log: Path
) -> tuple[int, Report]:
    command = [sys.executable, "-m", "tests.fuzz.child", mode, msgspec.json.encode(target).decode()]
    command += [str(corpus), str(runs), str(seed), str(report_file)]
    with log.open("ab") as out:
        status = subprocess.run(command, stdout=out, stderr=out, timeout=PROCESS_TIMEOUT_S).returncode
    report = msgspec.json.decode(report_file.read_bytes(), type=Report) if report_file.exists() else Report()
    return status, report


def _found(home: Path, text: str) -> str:
    inputs = [file for file in home.iterdir() if re.match("(crash|timeout|oom|leak)-", file.name)]
    exception = (
        _last(r"\n((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b[^\n]*)", text) or "it ended early"
    )
    where = f"; input: {inputs[0]}" if inputs else f"; log: {home / 'log'}"
    return f"{exception[:200]}{where}"


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None
