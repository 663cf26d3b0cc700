"""When a run of 1, 2 and 4 workers of Ray ends, against what the cost model foresees: see :mod:`benchmarks.scale`."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.scale import OTHERS, SWEEP, Task, grid_of, learned
from harness.evaluation.cluster import Finished, answer
from harness.evaluation.connection import connected
from harness.evaluation.packing import plan
from harness.evaluation.planning import Prices, makespan, seconds
from harness.evaluation.prices import known_prices
from harness.evaluation.questions import GUESSED, Lengths, questions
from harness.execution import Cluster

WORKERS = (1, 2, 4)
EXPERTS = "smollm2-135m"  # large enough for minutes of work, beside which building prompts is little
Asked = tuple[tuple[str, ...], tuple[str, ...], int]  # recipes, benchmarks and documents a task
# Prices are fitted on the first, as a run of so many workers keeps them for the next one, and tried on the second.
SEEN: tuple[Asked, ...] = ((SWEEP[:6], ("mmlu", "mgsm"), 6), (OTHERS, ("belebele", "flores"), 6))
UNSEEN: tuple[Asked, ...] = (
    (SWEEP, ("mmlu", "mgsm"), 12),
    ((*SWEEP[::3], *OTHERS), ("mmlu", "belebele", "flores"), 10),
)


@dataclass(frozen=True)
class Run:
    """Seconds from the first task's start to the last one's end, foreseen by ``prices`` and taken; and the tasks.

    ``merging`` are the processor seconds for which a worker computed weights, on average, by variant's digest.
    """

    prices: Prices
    foreseen: float
    took: float
    tasks: tuple[Finished, ...]
    merging: Mapping[str, float]


def workers(rounds: int) -> None:
    """Prints for each grid and number of workers when the last task ended, and when it was foreseen to: medians."""
    for count in WORKERS:
        seen: list[Run] = []
        tried: dict[Asked, list[Run]] = {asked: [] for asked in UNSEEN}
        for _ in range(rounds):
            seen += [run(asked, count, None, GUESSED, {}) for asked in SEEN]
            # Workers of one machine slow each other down: what a task costs is known from runs of as many of them.
            done = [[Task(t.work, t.work, t.seconds, t.name, t.length) for t in r.tasks] for r in seen]
            prices, lengths = learned(done, seen[0].prices)
            merging = {name: spent for r in seen for name, spent in r.merging.items()}
            for asked, runs in tried.items():
                runs.append(run(asked, count, prices, lengths, merging))
        for asked, runs in tried.items():
            took, foreseen = median(r.took for r in runs), median(r.foreseen for r in runs)
            print(
                f"{len(asked[0])} variants, {' '.join(asked[1])}, {asked[2]} documents, {count} workers on {cores()} "
                f"cores: {took:.1f} s, n={rounds}, foreseen {foreseen:.1f} ({foreseen / took - 1:+.0%}); "
                f"each {', '.join(f'{r.foreseen / r.took - 1:+.0%}' for r in runs)}; "
                f"{median(sum(t.seconds for t in r.tasks) for r in runs):.1f} processor seconds, and a worker merged "
                f"for {median(sum(r.merging.values()) for r in runs):.1f}",
                flush=True,
            )


def run(asked: Asked, count: int, prices: Prices | None, lengths: Lengths, merging: Mapping[str, float]) -> Run:
    """A grid on so many workers of a cluster of this machine, with an empty store. Their loading is not counted.

    Each worker is foreseen to meet every variant, and to merge it for as long as ``merging`` says. Prices are what a
    first run guesses if there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        grid = grid_of(Path(folder), *asked, EXPERTS)
        prices = prices or known_prices(grid.store, grid.settings)
        blocks = [block.block for block in questions(grid, lengths)]
        foreseen = makespan(seconds(blocks, plan(blocks, count, prices), prices), count)
        foreseen += sum(merging.get(identity, 0.0) for identity in grid.plans(asked[1][0]))
        ends: list[tuple[float, Finished]] = []
        with connected(Cluster(workers=count)) as ray:

            def note(task: Finished) -> None:
                ends.append((time.perf_counter(), task))

            answer(ray, grid, count, prices, lambda _: None, note, lengths)
        grid.store.close()
    # What is known are processor seconds: workers without a core of their own take turns.
    turns = max(1.0, count / cores())
    # One of the first to end was first to begin.
    first = min(at - turns * (task.seconds + sum(task.merging.values())) for at, task in ends[:count])
    merged: Counter[str] = Counter()
    for _, task in ends:
        merged.update(task.merging)
    took = max(at for at, _ in ends) - first
    return Run(
        prices, turns * foreseen, took, tuple(t for _, t in ends), {name: s / count for name, s in merged.items()}
    )


def cores() -> int:
    return os.cpu_count() or 1
