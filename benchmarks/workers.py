"""When a run of 1, 2 and 4 workers of Ray ends, against what the cost model foresees: see :mod:`benchmarks.scale`."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale import OTHERS, SWEEP, Task, grid_of, learned
from harness.evaluation import planning
from harness.evaluation.cluster import Finished, answer
from harness.evaluation.connection import connected
from harness.evaluation.packing import plan
from harness.evaluation.planning import Block, Prices, makespan, seconds
from harness.evaluation.questions import GUESSED, Lengths, questions
from harness.execution import Cluster

WORKERS = (1, 2, 4)
EXPERTS = "smollm2-135m"  # large enough for minutes of work, beside which building prompts is little
Asked = tuple[tuple[str, ...], tuple[str, ...], int]  # recipes, benchmarks and documents a task
# Prices are fitted on the first, as a run of so many workers keeps them for the next one, and held against the second.
SEEN: tuple[Asked, ...] = ((SWEEP[:6], ("mmlu", "mgsm"), 6), (OTHERS, ("belebele", "flores"), 6))
UNSEEN: tuple[Asked, ...] = (
    (SWEEP, ("mmlu", "mgsm"), 12),
    ((*SWEEP[::3], *OTHERS), ("mmlu", "belebele", "flores"), 10),
)


@dataclass(frozen=True)
class Run:
    """What was planned; seconds from the first task's start to the last one's end; and the tasks that were done.

    ``merging`` are the processor seconds for which a worker computed weights, on average, by variant's digest.
    """

    blocks: tuple[Block, ...]
    planned: tuple[planning.Task, ...]
    variants: frozenset[str]
    took: float
    tasks: tuple[Finished, ...]
    merging: Mapping[str, float]


def workers() -> None:
    """Prints for each grid and number of workers when the last task ended, and when it was foreseen to.

    A machine that others use too is faster at one time than at another. So prices are of runs before and after those
    that they are held against: what is tried is the model, not the weather.
    """
    for count in WORKERS:
        before = [run(asked, count, Prices(), GUESSED) for asked in SEEN]
        # Workers of one machine slow each other down: what a task costs is known from runs of as many of them.
        prices, lengths = known(before)
        tried = [run(asked, count, prices, lengths) for asked in UNSEEN]
        after = [run(asked, count, prices, lengths) for asked in SEEN]
        both, _ = known([*before, *after])
        merging = {name: s for first, last in zip(before, after, strict=True) for name, s in mean(first, last).items()}
        for asked, found in zip(UNSEEN, tried, strict=True):
            ends, early = foreseen(found, count, both, merging), foreseen(found, count, prices, merging)
            print(
                f"{len(asked[0])} variants, {' '.join(asked[1])}, {asked[2]} documents, {count} workers on {cores()} "
                f"cores: {found.took:.1f} s, foreseen {ends:.1f} ({ends / found.took - 1:+.0%}), by what was measured "
                f"before alone {early / found.took - 1:+.0%}; {sum(t.seconds for t in found.tasks):.1f} processor "
                f"seconds, and a worker merged for {sum(found.merging.values()):.1f}",
                flush=True,
            )


def known(runs: Sequence[Run]) -> tuple[Prices, dict[str, float]]:
    return learned([[Task(t.work, t.work, t.seconds, t.name, t.length) for t in r.tasks] for r in runs])


def mean(first: Run, last: Run) -> dict[str, float]:
    """Seconds of merging in two runs of one grid."""
    return {name: (spent + last.merging.get(name, spent)) / 2 for name, spent in first.merging.items()}


def foreseen(tried: Run, count: int, prices: Prices, merging: Mapping[str, float]) -> float:
    """When a run ends by the model. Each worker is taken to meet every variant, and to merge it."""
    ends = makespan(seconds(tried.blocks, tried.planned, prices), count)
    return turns(count) * (ends + sum(merging.get(name, 0.0) for name in tried.variants))


def run(asked: Asked, count: int, prices: Prices, lengths: Lengths) -> Run:
    """A grid on so many workers of a cluster of this machine, with an empty store. Their loading is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        grid = grid_of(Path(folder), *asked, EXPERTS)
        blocks = tuple(block.block for block in questions(grid, lengths))
        variants = frozenset(identity for name in asked[1] for identity in grid.plans(name))
        ends: list[tuple[float, Finished]] = []
        with connected(Cluster(workers=count)) as ray:

            def note(task: Finished) -> None:
                ends.append((time.perf_counter(), task))

            answer(ray, grid, count, prices, lambda _: None, note, lengths)
        grid.store.close()
    # One of the first to end was first to begin.
    first = min(at - turns(count) * spent(task) for at, task in ends[:count])
    merged: Counter[str] = Counter()
    for _, task in ends:
        merged.update(task.merging)
    return Run(
        blocks,
        tuple(plan(blocks, count, prices)),
        variants,
        max(at for at, _ in ends) - first,
        tuple(task for _, task in ends),
        {name: seconds / count for name, seconds in merged.items()},
    )


def turns(count: int) -> float:
    """What is known are processor seconds: workers without a core of their own take turns."""
    return max(1.0, count / cores())


def spent(task: Finished) -> float:
    """Processor seconds of a task with the merging that it happened to need."""
    return task.seconds + sum(task.merging.values())


def cores() -> int:
    return os.cpu_count() or 1
