"""Plans for grids that have little to cut, and when no plan can end before. Pure: no torch.

Where workers are many and pieces few, halving (:func:`harness.evaluation.planning.divide`) loses more than it must: a
piece is asked of runs of variants, and what runs share is computed once for each. If all are to end within a time T, no
run may take longer, so each piece is cut into runs of the least work that do not. Their sum is the least that workers
have to do: if it is more than T of all of them, no plan ends within T. A plan of these runs is the one to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.evaluation.planning import (
    Block,
    Piece,
    Prices,
    Task,
    divide,
    lower_bound,
    makespan,
    seconds,
    work,
)

COARSE = 64  # single variants on single pieces a worker, below which a plan by halving may lose much
NEAR = 1.02  # of the bound: nothing better is looked for
STEPS = 12  # times T that are tried, and halvings of what is not known of the least one


def plan(blocks: Sequence[Block], workers: int, prices: Prices) -> list[Task]:
    """Tasks for so many workers, the longest first: by halving, or of the least work for some T if that ends before."""
    tasks = divide(blocks, workers, prices)
    if sum(len(block.slots) * len(block.pieces) for block in blocks) >= COARSE * workers:
        return tasks
    best = ends = makespan(seconds(blocks, tasks, prices), workers)
    bound = lower_bound(blocks, workers, prices)
    if ends <= NEAR * bound:
        return tasks
    tables = [_table(block, prices) for block in blocks]
    for time in _times(tables, _least_end(tables, workers, bound, ends), ends):
        found = [pair for i, table in enumerate(tables) for pair in _within(i, table, time, prices)]
        if (then := makespan([cost for cost, _ in found], workers)) < best:
            best, tasks = then, [task for _, task in sorted(found, key=lambda pair: (-pair[0], pair[1]))]
    return tasks


def least_end(blocks: Sequence[Block], workers: int, prices: Prices) -> float:
    """No plan ends before: :func:`lower_bound`, and what must be computed more than once so that no task takes longer.

    What a task takes by itself, and a variant in it, is left out: a worker may have them in common with other batches.
    """
    low = lower_bound(blocks, workers, prices)
    high = max(low, makespan(seconds(blocks, divide(blocks, workers, prices), prices), workers))
    return _least_end([_table(block, prices) for block in blocks], workers, low, high)


def _least_end(tables: Sequence[Any], workers: int, low: float, high: float) -> float:
    for _ in range(STEPS):
        middle = (low + high) / 2
        if sum(float(_cheapest(table, middle)[0].sum()) for table in tables) > middle * workers:
            low = middle
        else:
            high = middle
    return low


def _times(tables: Sequence[Any], least: float, ends: float) -> list[float]:
    """Times worth a try: those of single runs, at which cuts change, as far as there are few; and some between."""
    import numpy as np

    runs = np.unique(np.concatenate([table[np.isfinite(table)] for table in tables]))
    runs = runs[(runs > least / STEPS) & (runs < ends)]
    some = runs[np.linspace(0, len(runs) - 1, min(len(runs), 4 * STEPS)).astype(int)] if len(runs) else runs
    return sorted({*(some * (1 + 1e-9)).tolist(), *np.linspace(least / 4, ends, 2 * STEPS).tolist()})


def _table(block: Block, prices: Prices) -> Any:
    """Seconds [pieces, variants + 1, variants + 1] of the run from one variant to another, exclusive; else infinite."""
    import numpy as np

    bare, count = replace(prices, tasks=0.0, variants=0.0), len(block.slots)
    # Work is linear in what a piece consists of, apart from whether anything is written.
    probe = replace(
        block, pieces=(Piece(1, 0, 0), Piece(0, 1, 0), Piece(0, 0, 1), Piece(0, 0, 0, 1), Piece(0, 1, 0, 1))
    )
    amounts = np.array([[p.rows, 0 if p.written else p.tokens, p.read, p.written] for p in block.pieces], float)
    beside = np.array([p.tokens if p.written else 0 for p in block.pieces], float)
    found = np.full((len(block.pieces), count + 1, count + 1), np.inf)
    for first in range(count):
        for last in range(first + 1, count + 1):
            *each, both = (bare.of(work(probe, Task(0, (first, last), (at, at + 1)))) for at in range(5))
            found[:, first, last] = amounts @ np.array(each) + beside * (both - each[3])
    return found


def _cheapest(table: Any, time: float) -> tuple[Any, Any]:
    """For each piece the least work of runs that take no longer than ``time``, and where the last one begins.

    [pieces], infinite if a single variant takes longer; [pieces, variants + 1], for each number of variants.
    """
    import numpy as np

    pieces, count = table.shape[0], table.shape[1] - 1
    short = np.where(table <= time, table, np.inf)
    best, begin = np.full((pieces, count + 1), np.inf), np.zeros((pieces, count + 1), int)
    best[:, 0] = 0.0
    for last in range(1, count + 1):
        sums = best[:, :last] + short[:, :last, last]
        begin[:, last], best[:, last] = sums.argmin(1), sums.min(1)
    return best[:, count], begin


def _within(number: int, table: Any, time: float, prices: Prices) -> list[tuple[float, Task]]:
    """Tasks of a block that take about ``time`` at most, and what they take: pieces joined, or runs of variants."""
    pieces, count = table.shape[0], table.shape[1] - 1
    beside = prices.tasks + prices.variants * count
    costs, begin = (found.tolist() for found in _cheapest(table, max(time / 2, time - beside)))
    whole = table[:, 0, count].tolist()
    found: list[tuple[float, Task]] = []
    at = 0
    while at < pieces:
        end, last = at, count
        spent = beside
        while (
            end < pieces
            and costs[end] < math.inf
            and begin[end][count] == 0
            and (end == at or spent + whole[end] <= time)
        ):
            spent, end = spent + whole[end], end + 1
        if end > at:
            found.append((spent, Task(number, (0, count), (at, end))))
            at = end
            continue
        while last:
            first = begin[at][last] if costs[at] < math.inf else last - 1
            cost = float(table[at, first, last]) + prices.tasks + prices.variants * (last - first)
            found.append((cost, Task(number, (first, last), (at, at + 1))))
            last = first
        at += 1
    return found
