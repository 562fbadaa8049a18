"""`python -m tests.fuzz [target …] [-runs=N] [-seed=N]`: fuzz the decoders, guided by coverage.

In: names of targets (all where none is given). Out: a table on stdout; status 1 when something was found.
Corpora, logs and what was found are in the folder that it names.
"""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.registry import BY_NAME, TARGETS
from tests.fuzz.runner import Verdict, run_target

RUNS = 200_000
_COLUMNS = ("runs", "runs/s", "branches", "corpus", "RSS kB", "objects B")
_HEAD = f"{'target':<18}" + "".join(f"{name:>11}" for name in _COLUMNS) + "  found"


def main() -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="*", choices=[*BY_NAME, []], metavar="target", help=", ".join(BY_NAME)
    )
    parser.add_argument(
        "-runs", "--runs", type=int, default=RUNS, help=f"runs of each target; default: {RUNS:,}"
    )
    parser.add_argument(
        "-seed", "--seed", type=int, default=None, help="seed of the fuzzer; default: by chance"
    )
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: it is there for Linux on x86-64 only", file=sys.stderr)
        return 2
    targets = [BY_NAME[name] for name in options.targets] or list(TARGETS)
    seed = options.seed if options.seed is not None else 1 + secrets.randbelow(2**31 - 1)
    folder = Path(tempfile.mkdtemp(prefix="plantwire-fuzz-"))
    print(f"{len(targets)} targets, {options.runs:,} runs each, seed {seed}; corpora and logs: {folder}")
    print(f"\n{_HEAD}")
    began_s = time.monotonic()
    verdicts = []
    for target in targets:
        verdict = run_target(target, options.runs, seed, folder)
        verdicts.append(verdict)
        print(_row(verdict), flush=True)
    found = sum(verdict.problem is not None for verdict in verdicts)
    executions = sum(verdict.executions for verdict in verdicts)
    print(
        f"\n{executions:,} runs in {time.monotonic() - began_s:.0f} s; {found} targets with something found"
    )
    return 1 if found else 0


def _row(verdict: Verdict) -> str:
    figures = (
        verdict.executions,
        round(verdict.executions / verdict.fuzz_s) if verdict.fuzz_s else 0,
        verdict.coverage,
        verdict.corpus,
        verdict.rss_growth_kb,
        verdict.traced_growth_bytes,
    )
    return (
        f"{verdict.name:<18}"
        + "".join(f"{figure:>11,}" for figure in figures)
        + f"  {verdict.problem or '-'}"
    )


if __name__ == "__main__":
    sys.exit(main())
