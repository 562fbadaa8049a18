"""`progress_steps.py SCENARIOS ANSWERS`: what `plantwire.PlantProgress` answers, in a JVM of this process.

A scenario is how many partitions there are, and steps: [partition, progress in ms, now in ms] is a frame,
[now in ms] a question.
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import add_jars_to_context_class_loader

from plantwire.domain.live_windows import IDLE_MS
from plantwire.jobs.frame_tables import LIVE_WITHIN_MS, SETTLE_MS, WAIT_MS
from plantwire.stack.java import jars


def main() -> None:
    """Read, ask, write."""
    add_jars_to_context_class_loader([(jars("flink") / "plantwire-flink.jar").as_uri()])
    answers = []
    plant_progress = get_gateway().jvm.plantwire.PlantProgress
    for partitions, scenario in orjson.loads(Path(sys.argv[1]).read_bytes()):
        progress = plant_progress(partitions, IDLE_MS, WAIT_MS, SETTLE_MS, LIVE_WITHIN_MS)
        told = []
        for step in scenario:
            if len(step) == 1:
                told.append(progress.reached(*step))
            else:
                progress.read(*step)
        answers.append(told)
    Path(sys.argv[2]).write_bytes(orjson.dumps(answers))


main()
