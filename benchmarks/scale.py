"""How a grid scales: what tasks cost against what is foreseen, Ray's workers against one process, and a large cluster.

    python -m benchmarks.scale model                # prices fitted on some grids, held against grids they have not seen
    python -m benchmarks.scale workers              # when 1, 2 and 4 workers of Ray end, against what was foreseen
    python -m benchmarks.scale ray                  # two workers of Ray against one process, threads fixed at one each
    python -m benchmarks.scale processes            # pytest -n 2 against one process, threads fixed at one each
    python -m benchmarks.scale simulate             # 8 to 512 GPUs over a grid of an 8B model, with the real planner

The first evaluates the embedded experts and compares processor seconds, since wall time means little on a machine with
other work; ``ray`` and ``processes`` print both (:mod:`benchmarks.parallel`), on the grid that is printed or on what
other arguments of pytest select. All but ``simulate`` do so ``--rounds`` times in turns. Its prices are assumed for
an H100 and printed: none was measured.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any, NamedTuple

from benchmarks.parallel import GRID, compare, ray_start
from harness.evaluation.cluster import for_workers
from harness.evaluation.editions import engine_digest
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.jobs import queue_of
from harness.evaluation.packing import plan
from harness.evaluation.planning import Block, Piece, Prices, Work, divide, lower_bound, makespan, seconds, whole, work
from harness.evaluation.prices import fit
from harness.evaluation.questions import GUESSED, Lengths, questions
from harness.evaluation.responses import Store
from harness.evaluation.worker import Worker
from harness.profiles import load_profile
from harness.recipe_text import parse_recipe

SWEEP = tuple(f"layer-swap(bottom={b}, top={u})" for b in (1, 2, 3, 4) for u in (0, 1, 2))
OTHERS = (
    "expert('math')",
    "expert('language')",
    "soup",
    "ties(density=0.5)",
    "layer-swap(transition=0)",
    "layer-swap(outer='math')",
)
# Recipes, benchmarks and documents a task: prices are fitted on the first, and held against the second. Both have
# variants enough for tasks that begin with others' answers.
SEEN = (
    (SWEEP[:8], ("mmlu", "mgsm"), 60),
    (OTHERS, ("belebele", "flores"), 40),
    (SWEEP[:8], ("belebele", "mmlu"), 120),
    (OTHERS[:2], ("mgsm", "flores"), 100),
)
UNSEEN = (
    (SWEEP, ("mmlu", "mgsm"), 90),
    (OTHERS, ("belebele", "mgsm"), 70),
    (SWEEP[4:10], ("flores", "mmlu"), 100),
    (SWEEP[::3] + OTHERS[::2], ("belebele", "flores", "mgsm"), 50),
)
GPUS = (8, 16, 32, 64, 128, 256, 512)
# Seconds on an H100 in bfloat16 for a Llama of 8 thousand million parameters: assumed from its shapes and data sheets.
H100 = Prices(tasks=0.5, variants=0.3, layer_tokens=1.1e-6, read=2.6e-6, written=2.1e-5, rows=2e-5)
STORE = 3e-5  # seconds of the driver to keep a response: docs/store.md
# Tasks of a language: documents, tokens of a prompt, choices, tokens written. One of four languages, and English.
COLUMNS = {
    "mgsm": (250, 1200, 0, 160, 5),
    "belebele": (900, 400, 4, 0, 5),
    "flores": (1012, 250, 0, 60, 8),
    "mbpp": (500, 400, 0, 200, 1),
    "mmlu": (14042, 700, 4, 0, 1),
}


def grid_of(
    folder: Path, recipes: Sequence[str], benchmarks: Sequence[str], limit: int, experts: str = "embedded"
) -> Grid:
    """A grid of a shipped profile's experts that has been told what will be asked."""
    profile = load_profile(experts)
    store = Store(folder / "store.sqlite", run="scale")
    grid = Grid(Settings(profile, "cpu", "float32", limit, threads=1), folder / "run", store)
    for benchmark in benchmarks:
        grid.expect(benchmark, [parse_recipe(text).plan(grid.layers, profile.sizes) for text in recipes])
    return grid


class Task(NamedTuple):
    """What a task was foreseen to consist of, and did by its answers' ``length``; processor ``seconds``."""

    foreseen: Work
    consisted: Work
    seconds: float
    name: str
    length: float | None


def measured(
    recipes: Sequence[str],
    benchmarks: Sequence[str],
    limit: int,
    workers: int,
    lengths: Lengths = GUESSED,
) -> list[Task]:
    """Every task of a grid, done in this process."""
    with tempfile.TemporaryDirectory() as folder:
        grid = grid_of(Path(folder), recipes, benchmarks, limit)
        asked = questions(grid, lengths)
        blocks = [block.block for block in asked]
        settings = for_workers(grid.settings, 1)
        worker = Worker(settings, {n: e.slot_digests for n, e in grid.digests.items()}, engine_digest(settings))
        worker.ready()
        worker.answer(asked[0].job(divide(blocks[:1], 4, Prices())[-1]))  # experts are loaded, columns are built
        found = []
        tasks = plan(blocks, workers, Prices())
        queue = queue_of(asked, tasks)
        while taken := queue.take():
            number, job = taken
            worker._built(job.benchmark)
            spent, answers, _ = worker.answer(job)
            queue.note(number, answers)
            block, task = asked[tasks[number].block], tasks[number]
            length = block.length(grid.asker, answers)
            consisted = work(block.with_length(length), task)
            found.append(Task(work(block.block, task), consisted, spent, block.name, length))
        grid.store.close()
        return found


def learned(grids: Sequence[Sequence[Task]], guess: Prices) -> tuple[Prices, dict[str, float]]:
    """Prices and lengths of answers, as a run that began with ``guess`` keeps them for the next one."""
    tasks = [task for grid in grids for task in grid]
    lengths: dict[str, list[float]] = {}
    for task in tasks:
        if task.length is not None:
            lengths.setdefault(task.name, []).append(task.length)
    prices = fit([(task.consisted, task.seconds) for task in tasks], guess)
    return prices, {name: fmean(values) for name, values in lengths.items()}


def model(rounds: int) -> None:
    """Prints the fitted prices, and for each grid what was foreseen and what it took, as the median of the rounds.

    A round is one of each grid: so all meet the machine at all its speeds, which may change from minute to minute.
    """
    import torch

    torch.set_num_threads(1)
    seen: list[list[list[Task]]] = [[] for _ in SEEN]
    unseen: list[list[list[Task]]] = [[] for _ in UNSEEN]
    for _ in range(rounds):
        for grid, runs in zip(SEEN, seen, strict=True):
            runs.append(measured(*grid, workers=2))
        prices, lengths = learned([tasks for runs in seen for tasks in runs], Prices())
        for grid, runs in zip(UNSEEN, unseen, strict=True):
            runs.append(measured(*grid, workers=2, lengths=lengths))
    print("prices, in seconds:", {k: float(f"{v:.3g}") for k, v in asdict(prices).items()})
    for kind, grids, found in (("fitted on", SEEN, seen), ("not seen", UNSEEN, unseen)):
        for grid, runs in zip(grids, found, strict=True):
            spent = [sum(task.seconds for task in tasks) for tasks in runs]
            took = median(spent)
            foreseen = sum(prices.of(t.consisted if kind == "fitted on" else t.foreseen) for t in runs[-1])
            print(
                f"{kind}: {len(grid[0])} variants, {' '.join(grid[1])}, {grid[2]} documents, {len(runs[-1])} tasks: "
                f"{took:.2f} processor seconds [{min(spent):.2f}, {max(spent):.2f}], n={rounds}, "
                f"foreseen {foreseen:.2f} ({foreseen / took - 1:+.0%})",
                flush=True,
            )


def _workers(rounds: int) -> None:
    from benchmarks.workers import workers  # which builds on what is here

    workers(rounds)


def large_grid() -> list[Block]:
    """The default suite's variants of a model of 32 layers on five benchmarks in four languages."""
    from benchmarks.contest import suite_plans

    sizes = load_profile("llama-3.1-8b-sw").sizes
    slots = {tuple(mix.text for _, mix in parse_recipe(text).plan(32, sizes).mixes) for text in suite_plans()}
    blocks = []
    for documents, prompt, choices, written, columns in COLUMNS.values():
        a_batch = 32 if written else max(1, 16384 // prompt)
        sizes_of = [min(a_batch, documents - at) for at in range(0, documents, a_batch)]
        pieces = tuple(Piece(n * max(1, choices), n * prompt, n * max(1, choices), n * written) for n in sizes_of)
        blocks += [Block(tuple(sorted(slots)), pieces)] * columns
    return blocks


def trial(durations: Sequence[float], rows: Sequence[float], workers: int, seed: int) -> tuple[float, float, int]:
    """One simulated run: when it ends, how long the driver kept responses, and how many tasks were lost.

    Workers load for two minutes. One in twenty takes 1.5 to 3 times as long, the others vary by 10 %; each is lost once
    in 24 hours on average, and its successor loads again. The driver keeps one task's responses after the other.
    """
    random = Random(seed)
    slow = [random.uniform(1.5, 3) if random.random() < 0.05 else random.gauss(1, 0.1) for _ in range(workers)]
    free = [(120.0, worker) for worker in range(workers)]
    left, lost, ends = list(range(len(durations)))[::-1], 0, []
    while left:
        now, worker = heapq.heappop(free)
        task = left.pop()
        takes = durations[task] * max(0.5, slow[worker])
        if (dies := random.expovariate(1 / 86400)) < takes:
            left.append(task)
            lost += 1
            heapq.heappush(free, (now + dies + 120.0, worker))
            continue
        ends.append((now + takes, rows[task] * STORE))
        heapq.heappush(free, (now + takes, worker))
    driver = 0.0
    for end, keeping in sorted(ends):
        driver = max(driver, end) + keeping
    return driver, sum(keeping for _, keeping in ends), lost


def simulate() -> None:
    """Prints a table of simulated runs: mean and largest of ten."""
    blocks = large_grid()
    total = sum(seconds(blocks, whole(blocks), H100))
    rows = sum(work(blocks[t.block], t).rows for t in whole(blocks))
    print(f"assumed prices, in seconds: {asdict(H100)}")
    print(
        f"{len(blocks[0].slots)} variants, {len(blocks)} columns, {rows:,.0f} responses: {total / 3600:.1f} GPU hours"
    )
    for gpus in GPUS:
        began = time.process_time()
        tasks = plan(blocks, gpus, H100)
        planned = time.process_time() - began
        durations = seconds(blocks, tasks, H100)
        kept = [work(blocks[task.block], task).rows for task in tasks]
        runs = [trial(durations, kept, gpus, seed) for seed in range(10)]
        mean, most = sum(r[0] for r in runs) / 10, max(r[0] for r in runs)
        print(
            f"{gpus:4} GPUs: {len(tasks):6} tasks planned in {planned:.1f} s, the longest {max(durations):.0f} s; "
            f"{makespan(durations, gpus) / lower_bound(blocks, gpus, H100):.2f} of the bound if nothing fails; ends "
            f"after {mean / 60:.1f} min ({most / 60:.1f} at most), {total / gpus / mean:.0%} of ideal, "
            f"driver busy {runs[0][1] / mean:.1%}, {sum(r[2] for r in runs) / 10:.1f} tasks lost",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("model", "workers", "ray", "processes", "simulate"))
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, but for simulate")
    options, rest = parser.parse_known_args()
    if options.what == "ray":
        print(f"Ray's own start, which is counted below too: {ray_start():.1f} s")
    actions: dict[str, Any] = {
        "model": lambda: model(options.rounds),
        "workers": lambda: _workers(options.rounds),
        "ray": lambda: compare("ray", options.rounds, rest or GRID),
        "processes": lambda: compare("-n 2", options.rounds, rest or GRID),
        "simulate": simulate,
    }
    actions[options.what]()


if __name__ == "__main__":
    main()
