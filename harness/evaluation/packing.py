"""Plans for grids that have little to cut. Pure: no torch.

Where workers are many and pieces few, halving (:func:`harness.evaluation.planning.divide`) loses more than it must: a
piece is asked of runs of variants, and what runs share is computed once for each. Here each piece, or a few in a row,
is cut into runs of the least sum of *weighed* work, the longest tasks are put where they fill a worker's time best, and
pieces that need no cut are poured into the gaps. Which lengths fit together well is not known before, so weights of
lengths are tried: some at random, then changes of the best ones (hill climbing).
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.evaluation.bounds import HAIR, Runs, cheapest, quick_least_end, runs_of
from harness.evaluation.planning import Block, Prices, Task, divide, lower_bound, makespan, seconds

COARSE = 64  # single variants on single pieces a worker, below which there is little to cut
NEAR = 1.14  # of the bound: nothing that ends earlier is looked for
TRIES = 400
RANDOM = 50  # of these, at least
CELLS = 2 * 10**8  # runs on pieces that all tries together look at: some seconds
BUCKETS = 16  # of lengths, which have a weight each
JOINED = 3  # pieces in a row that may be cut together


@dataclass(frozen=True)
class Way:
    """``longest`` is that of a task and ``full`` a worker's time, both in times of the bound."""

    longest: float
    full: float
    weights: tuple[float, ...]  # of a task's work, by its share of the longest


def plan(blocks: Sequence[Block], workers: int, prices: Prices) -> list[Task]:
    """Tasks for so many workers, the longest first: by halving, or in the best of the ways tried if that ends before.

    Of plans that end near the bound the one is best whose longest task is shortest, since workers may be slow or lost.
    Where there is enough to cut, no task may be longer than by halving.
    """
    tasks = divide(blocks, workers, prices)
    durations = seconds(blocks, tasks, prices)
    ends, bound = makespan(durations, workers), lower_bound(blocks, workers, prices)
    cells = sum(JOINED * len(block.pieces) * Runs.row(0, len(block.slots) + 1) for block in blocks)
    if ends <= NEAR * bound or CELLS // cells < RANDOM:
        return tasks
    runs = [runs_of(block, prices) for block in blocks]
    bound = quick_least_end(runs, workers, bound, ends)
    if ends <= NEAR * bound:
        return tasks
    cuts = [_Cut(number, block) for number, block in enumerate(runs)]
    best, way, random = (ends, max(durations)), None, Random(0)
    coarse = sum(len(block.slots) * len(block.pieces) for block in blocks) < COARSE * workers
    limit = math.inf if coarse else max(durations)
    for number in range(min(TRIES, CELLS // cells)):
        new = _other(random, way) if way and number >= RANDOM else _any(random, ends / bound)
        found = _packed(cuts, workers, bound, limit, new)
        durations = [cost for cost, _ in found]
        if found and (rank := (max(makespan(durations, workers), NEAR * bound), max(durations))) <= best:
            best, way, tasks = rank, new, [task for _, task in sorted(found, key=lambda pair: (-pair[0], pair[1]))]
    return tasks


def _any(random: Random, most: float) -> Way:
    full = random.uniform(1.0, max(1.25, most))
    longest = full * random.choice((1.0, random.uniform(0.2, 1.0)))
    return Way(longest, full, tuple(random.uniform(0.7, 1.3) for _ in range(BUCKETS)))


def _other(random: Random, way: Way) -> Way:
    """Some of it changed, by much or little."""
    by = random.choice((0.02, 0.1, 0.3))
    weights = tuple(
        weight * max(0.1, 1 + by * random.gauss(0, 1)) if random.random() < 0.4 else weight for weight in way.weights
    )
    return Way(
        way.longest * (1 + 0.1 * by * random.gauss(0, 1)), way.full * (1 + 0.1 * by * random.gauss(0, 1)), weights
    )


class _Cut:
    """A block's pieces, and a few in a row as one, to be cut into runs of variants."""

    def __init__(self, number: int, runs: Runs) -> None:
        import numpy as np

        windows = list(runs.windows(JOINED))
        self.number, self.variants, self.pieces = number, runs.variants, runs.bare.shape[1]
        self.costs = np.hstack(windows) + runs.beside
        self.starts = [sum(window.shape[1] for window in windows[:n]) for n in range(len(windows))]
        self.beside = float(runs.beside[-self.variants, 0])  # of all variants
        self.whole = runs.bare[-self.variants].tolist()

    def at(self, longest: float, weights: Any) -> tuple[list[tuple[float, Task]], list[tuple[int, int]]] | None:
        """Tasks of runs with what they take, and pieces in a row that are not to be cut, as half-open ranges.

        None if some variant on some piece takes longer than the longest.
        """
        import numpy as np

        shares = self.costs / longest
        uncut = shares[-self.variants, : self.pieces]  # which have a task in common, and are weighed as if it were full
        uncut[uncut <= 1] -= self.beside / longest
        uncut[uncut <= 1] *= longest / max(longest - self.beside, HAIR)
        shares *= weights[np.minimum(shares * BUCKETS, BUCKETS).astype(int)]
        sums, begin = cheapest(shares, self.variants)
        values = sums[-1].tolist()
        best, length = [0.0], [0]
        for end in range(1, self.pieces + 1):
            value, many = min(
                (best[end - n] + values[start + end - n], n) for n, start in enumerate(self.starts[:end], 1)
            )
            best.append(value)
            length.append(many)
        if best[-1] == np.inf:
            return None
        parts: list[tuple[float, Task]] = []
        rows: list[tuple[int, int]] = []
        end = self.pieces
        while end:
            first = end - length[end]
            column, last = self.starts[length[end] - 1] + first, self.variants
            if not begin[last, column]:
                rows.append((first, rows.pop()[1]) if rows and rows[-1][0] == end else (first, end))
                last = 0
            while last:
                at = int(begin[last, column])
                cost = float(self.costs[Runs.row(at, last), column])
                parts.append((cost, Task(self.number, (at, last), (first, end))))
                last = at
            end = first
        return parts, rows


def _packed(cuts: Sequence[_Cut], workers: int, bound: float, limit: float, way: Way) -> list[tuple[float, Task]]:
    """Tasks, cut in a ``way``, none longer than the limit, and what they take; none if some would be too long."""
    import numpy as np

    weights, tasks, whole = np.array([*way.weights, np.inf]), [], []
    for cut in cuts:
        if (found := cut.at(min(way.longest * bound, limit) * (1 + HAIR), weights)) is None:
            return []
        tasks += found[0]
        whole += [(cut, first, last) for first, last in found[1]]
    gaps = [way.full * bound] * workers
    for cost in sorted((cost for cost, _ in tasks), reverse=True):
        gap = gaps.pop(min(bisect_left(gaps, cost), workers - 1))  # the least that holds it, or else the longest
        insort(gaps, gap - cost)
    heap = [-gap for gap in gaps]
    heapq.heapify(heap)
    for cut, first, last in whole:
        while first < last:
            spent, end = cut.beside + cut.whole[first], first + 1
            while end < last and spent + cut.whole[end] <= min(-heap[0], limit):
                spent, end = spent + cut.whole[end], end + 1
            tasks.append((spent, Task(cut.number, (0, cut.variants), (first, end))))
            heapq.heapreplace(heap, heap[0] + spent)
            first = end
    return tasks
