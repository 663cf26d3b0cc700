"""When a run of 1, 2 and 4 workers of Ray ends, against what the cost model foresees: see :mod:`benchmarks.scale`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale import OTHERS, SWEEP, grid_of, learned, measured
from harness.evaluation.cluster import Finished, answer
from harness.evaluation.connection import connected
from harness.evaluation.grid import Grid
from harness.evaluation.packing import plan
from harness.evaluation.planning import Prices, makespan, seconds
from harness.evaluation.questions import Lengths, questions
from harness.execution import Cluster

WORKERS = (1, 2, 4)
EXPERTS = "smollm2-135m"  # large enough for minutes of work, beside which building prompts is little
# As in :mod:`benchmarks.scale`: prices are fitted on the first, and tried on the second.
SEEN = ((SWEEP[:6], ("mmlu", "mgsm"), 4), (OTHERS, ("belebele", "flores"), 4))
UNSEEN = ((SWEEP, ("mmlu", "mgsm"), 12), ((*SWEEP[::3], *OTHERS), ("mmlu", "belebele", "flores"), 10))


def workers() -> None:
    """Prints for each grid and number of workers when the last task ended, and when it was foreseen to."""
    prices, lengths = learned([measured(*grid, workers=2, experts=EXPERTS) for grid in SEEN])
    cores = os.cpu_count() or 1
    for recipes, benchmarks, limit in UNSEEN:
        for count in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                grid = grid_of(Path(folder), recipes, benchmarks, limit, EXPERTS)
                foreseen = end_foreseen(grid, count, prices, lengths) * max(1.0, count / cores)
                took, spent = run(grid, count, prices, lengths)
                grid.store.close()
            what = f"{len(recipes)} variants, {' '.join(benchmarks)}, {limit} documents"
            print(
                f"{what}, {count} workers on {cores} cores: "
                f"{took:.1f} s, foreseen {foreseen:.1f} ({foreseen / took - 1:+.0%}); {spent:.1f} processor seconds",
                flush=True,
            )


def end_foreseen(grid: Grid, count: int, prices: Prices, lengths: Lengths) -> float:
    """Seconds from the first task's start to the last one's end, each worker with a core of its own."""
    blocks = [asked.block for asked in questions(grid, lengths)]
    return makespan(seconds(blocks, plan(blocks, count, prices), prices), count)


def run(grid: Grid, count: int, prices: Prices, lengths: Lengths) -> tuple[float, float]:
    """The same as it was, without workers' loading; and the processor seconds of all tasks."""
    ends: list[tuple[float, float]] = []

    def done(task: Finished) -> None:
        ends.append((time.perf_counter(), task.seconds))

    with connected(Cluster(workers=count)) as ray:
        answer(ray, grid, count, prices, lambda _: None, done, lengths)
    return max(at for at, _ in ends) - first_start(ends, count), sum(spent for _, spent in ends)


def first_start(ends: Sequence[tuple[float, float]], count: int) -> float:
    """When the first task began, by its end and its processor seconds: one of the first that ended."""
    return min(at - spent for at, spent in ends[:count])
