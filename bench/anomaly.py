"""`python -m bench.anomaly`: scores against a plain z-score, on a real recording and on made-up faults.

In: command line. Out: bench/results/anomaly.json and tables; exit code 0 when it ran.
Guarantees: every detector gets the same values once, in order, and the same budget of alarms; the limit for
a budget is found without the labels. The same figures on every machine, but for those of `cost`.
Not here: what a figure means, and what the choice of the detector knew (README.md).
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from river import anomaly

from bench import report
from bench.anomaly_alarms import Judged, Window, judge, limit_for
from bench.anomaly_detectors import DETECTORS, LEVEL, MOVEMENT, Z_SCORE, Detector
from bench.anomaly_faults import FAULTS, STEP_S, Series, all_series
from bench.spread import median
from plantwire.domain.anomaly.metric_scorer import MODEL, MetricScorer
from plantwire.schemas.scoring_files import DEFAULT_MEMORY
from plantwire.simulator.nab import load_samples, load_windows

PROBATION: Final = 750
"""Values at the start that raise no alarms, as the benchmark has it: 15 % of the first 5,000."""
OFF_DELAY_S: Final = 6 * 3600.0
BUDGETS: Final = (4, 7, 10)
"""Alarms over the recording's 76 days."""
FAULTS_BUDGET: Final = len(FAULTS) + 2
"""Alarms for each made-up series."""
LIMITS: Final = (1.0, 1.5, 2.0, 2.5)
"""Of our scores, as a rule would have them."""


class Recording:
    """The Numenta Anomaly Benchmark's machine temperature, less its probation."""

    def __init__(self) -> None:
        samples = load_samples()
        self.values: Final = [sample.value for sample in samples]
        # The recording has no zone; an hour's change within it moves a lead time by an hour at most.
        self.times_s: Final = [_seconds(sample.recorded) for sample in samples][PROBATION:]
        self.windows: Final = [Window(_seconds(w.start), _seconds(w.end)) for w in load_windows()]

    def judge(self, scores: Sequence[float], budget: int) -> Judged:
        """The alarms of a budget."""
        limit = limit_for(scores[PROBATION:], self.times_s, budget, OFF_DELAY_S)
        return self.judge_at(scores, limit)

    def judge_at(self, scores: Sequence[float], limit: float) -> Judged:
        """The alarms at a limit."""
        return judge(scores[PROBATION:], self.times_s, self.windows, limit, OFF_DELAY_S)


def _seconds(timestamp: str) -> float:
    return (datetime.fromisoformat(timestamp) - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001


def on_recording(detectors: Mapping[str, Detector]) -> dict[str, Any]:
    """Every detector at every budget; ours at limits, too."""
    recording = Recording()
    scores = {name: detect(recording.values) for name, detect in detectors.items()}
    return {
        "at_budgets": {
            name: {str(budget): recording.judge(found, budget) for budget in BUDGETS}
            for name, found in scores.items()
        },
        "at_limits": {
            name: {f"{limit:g}": recording.judge_at(scores[name], limit) for limit in LIMITS}
            for name in (LEVEL, MOVEMENT)
            if name in scores
        },
    }


class OnFaults(msgspec.Struct, frozen=True):
    """A detector over all made-up series."""

    alarms: int
    precision: float
    recall: float
    found: dict[str, int]
    of_each: int
    median_lead_values: float | None


def on_faults(detect: Detector, all_of: Sequence[Series]) -> OnFaults:
    """One detector, the same budget for each series."""
    found = dict.fromkeys(FAULTS, 0)
    alarms = true = 0
    leads: list[float] = []
    for series in all_of:
        scores = detect(series.values)[PROBATION:]
        times_s = [STEP_S * n for n in range(PROBATION, len(series.values))]
        limit = limit_for(scores, times_s, FAULTS_BUDGET, OFF_DELAY_S)
        judged = judge(scores, times_s, series.windows, limit, OFF_DELAY_S)
        alarms += judged.alarms
        true += judged.true_alarms
        for fault, lead_h in zip(FAULTS, judged.lead_h, strict=True):
            if lead_h is not None:
                found[fault] += 1
                leads.append(lead_h * 3600.0 / STEP_S)
    return OnFaults(
        alarms=alarms,
        precision=round(true / alarms, 3) if alarms else 0.0,
        recall=round(sum(found.values()) / (len(all_of) * len(FAULTS)), 3),
        found=found,
        of_each=len(all_of),
        median_lead_values=round(median(leads), 1) if leads else None,
    )


def cost() -> dict[str, Any]:
    """What a value costs, and what is kept of a metric between two values."""
    values = Recording().values
    scorer = MetricScorer(DEFAULT_MEMORY)
    started_s = time.process_time()
    for value in values:
        scorer.take(value)
    ours_us = (time.process_time() - started_s) / len(values) * 1e6
    trees: Any = anomaly.HalfSpaceTrees(seed=1)
    some = values[:2_000]
    started_s = time.process_time()
    for value in some:
        trees.score_one({"value": value / 100.0})
        trees.learn_one({"value": value / 100.0})
    trees_us = (time.process_time() - started_s) / len(some) * 1e6
    return {
        "ours_us_per_value": round(ours_us, 1),
        "ours_state_bytes": len(msgspec.msgpack.encode(scorer.state)),
        "half_space_trees_us_per_value": round(trees_us, 1),
        "half_space_trees_state_bytes": len(pickle.dumps(trees)),
    }


def summarise(
    recording: Mapping[str, Any], faults: Mapping[str, OnFaults]
) -> tuple[dict[str, float], tuple[report.Target, ...]]:
    """Ours against the plain z-score."""
    ratios: dict[str, float] = {}
    targets: list[report.Target] = []
    for budget in map(str, BUDGETS):
        ours, plain = recording["at_budgets"][LEVEL][budget], recording["at_budgets"][Z_SCORE][budget]
        at = f"recording, {budget} alarms"
        ratios[f"{at}: precision, {LEVEL} / {Z_SCORE}"] = round(ours.precision / plain.precision, 3)
        targets.append(
            report.at_least(f"{at}: windows found, {LEVEL}", ours.windows_found, plain.windows_found)
        )
        targets.append(report.at_least(f"{at}: precision, {LEVEL}", ours.precision, plain.precision))
    ratios[f"faults: recall, {MOVEMENT} / {Z_SCORE}"] = round(
        faults[MOVEMENT].recall / faults[Z_SCORE].recall, 3
    )
    targets.append(
        report.above(f"faults: recall, {MOVEMENT}", faults[MOVEMENT].recall, faults[Z_SCORE].recall)
    )
    return ratios, tuple(targets)


def print_figures(console: Console, recording: Mapping[str, Any], faults: Mapping[str, OnFaults]) -> None:
    """A line per detector and budget, a line per detector."""
    table = Table(
        "detector", "budget", "alarms", "precision", "windows", "false/day", "lead h", title="Recording"
    )
    for name, by_budget in recording["at_budgets"].items():
        for budget, judged in by_budget.items():
            table.add_row(
                name,
                budget,
                str(judged.alarms),
                f"{judged.precision:.2f}",
                f"{judged.windows_found} of {judged.windows}",
                f"{judged.false_alarms_per_day:.3f}",
                "  ".join("–" if lead is None else f"{lead:g}" for lead in judged.lead_h),
            )
    console.print(table)
    table = Table("detector", "precision", "recall", *FAULTS, title="Made-up faults")
    for name, found in faults.items():
        counts = (f"{count} of {found.of_each}" for count in found.found.values())
        table.add_row(name, f"{found.precision:.2f}", f"{found.recall:.2f}", *counts)
    console.print(table)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.anomaly", description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder for anomaly.json")
    return parser.parse_args(words)


def main() -> None:
    """Run every detector and report."""
    arguments = parse_arguments()
    console = Console(width=120 if not sys.stdout.isatty() else None)
    recording = on_recording(DETECTORS)
    all_of = all_series()
    faults = {name: on_faults(detect, all_of) for name, detect in DETECTORS.items()}
    ratios, targets = summarise(recording, faults)
    costs = cost()
    outcome = report.make_report(
        "anomaly",
        parameters={
            "model": MODEL,
            "memory": DEFAULT_MEMORY,
            "probation_values": PROBATION,
            "off_delay_s": OFF_DELAY_S,
            "faults_budget": FAULTS_BUDGET,
            "chosen_knowing": "the recording's labels and the made-up faults; there is no third set",
        },
        figures={"recording": recording, "faults": faults, "cost": costs},
        ratios=ratios,
        targets=targets,
    )
    print_figures(console, recording, faults)
    console.print(", ".join(f"{name}: {figure:g}" for name, figure in costs.items()))
    report.print_targets(console, targets)
    console.print(f"Written to {report.write_report(outcome, arguments.results)}")


if __name__ == "__main__":
    main()
