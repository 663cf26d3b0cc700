"""When no plan for a grid can end before: a proof for every plan, not for one kind of them. Pure: no torch.

Say a plan ends within a time T. A task of v variants takes F = tasks + v * variants by itself, so its *bare* work, that
of its pieces, is T - F at most, and each piece is cut into runs of variants that are as short. Let each of a task's
runs have some part of what the task takes, so that the parts are no more than the whole. If the least parts of the runs
of all pieces, cut in whatever way makes them least, are more than T of all workers, no plan ends within T, nor within
less.

The same holds if what tasks take is measured by a function f of shares of T, with f(1) = 1 and f(x) + f(y) <= f(x + y):
a worker's tasks come to one at most. Some of these count how many long tasks a worker may have (`MEASURES`; the first
two kinds are those of Fekete and Schepers, 2001, and of Martello and Toth, 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.evaluation.planning import Block, Piece, Prices, Task, divide, lower_bound, makespan, seconds, work

STEPS = 8  # halvings of what is not known of the least end
HAIR = 1e-9  # share by which figures may be off: bounds give way by it
WIDE = 16  # pieces in a row of which each task is looked at


@dataclass(frozen=True)
class Runs:
    """Every run of a block's variants: ``bare`` seconds [runs, pieces] and what a task of it takes beside, [runs, 1].

    The run from variant ``first`` to ``last``, exclusive, is row :meth:`row`.
    """

    bare: Any
    beside: Any
    variants: int

    @staticmethod
    def row(first: int, last: int) -> int:
        """Runs are sorted by where they end, then by where they begin."""
        return last * (last - 1) // 2 + first

    def windows(self, most: int) -> Iterator[Any]:
        """Bare seconds [runs, pieces - n + 1] of n pieces in a row, for every n up to ``most``."""
        sums = self.bare
        yield sums
        for length in range(2, min(most, self.bare.shape[1]) + 1):
            sums = sums[:, :-1] + self.bare[:, length - 1 :]
            yield sums


def runs_of(block: Block, prices: Prices) -> Runs:
    """Of each run of a block's variants what it takes."""
    import numpy as np

    bare, count = replace(prices, tasks=0.0, variants=0.0), len(block.slots)
    # Work is linear in what a piece consists of, apart from whether anything is written.
    probe = replace(
        block, pieces=(Piece(1, 0, 0), Piece(0, 1, 0), Piece(0, 0, 1), Piece(0, 0, 0, 1), Piece(0, 1, 0, 1))
    )
    amounts = np.array(
        [[p.rows, 0 if p.written else p.tokens, p.read, p.written, p.tokens if p.written else 0] for p in block.pieces]
    )
    pairs = [(first, last) for last in range(1, count + 1) for first in range(last)]
    each = np.array([[bare.of(work(probe, Task(0, run, (at, at + 1)))) for at in range(5)] for run in pairs])
    each[:, 4] -= each[:, 3]
    beside = np.array([[prices.tasks + prices.variants * (last - first)] for first, last in pairs])
    return Runs(each @ amounts.T, beside, count)


def cheapest(costs: Any, variants: int) -> tuple[Any, Any]:
    """The least sum of ``costs`` [runs, columns] for so many variants, and where its last run begins.

    Both are [variants + 1, columns], for any number of variants up to all.
    """
    import numpy as np

    best = np.zeros((variants + 1, costs.shape[1]))
    begin = np.zeros((variants + 1, costs.shape[1]), int)
    for last in range(1, variants + 1):
        sums = best[:last] + costs[Runs.row(0, last) : Runs.row(0, last + 1)]
        begin[last], best[last] = sums.argmin(0), sums.min(0)
    return best, begin


def least_end(blocks: Sequence[Block], workers: int, prices: Prices, ends: float = 0.0) -> float:
    """Seconds before which no plan ends. ``ends``: when one does, if that is known."""
    runs = [runs_of(block, prices) for block in blocks]
    low = lower_bound(blocks, workers, prices)
    high = max(low, ends or makespan(seconds(blocks, divide(blocks, workers, prices), prices), workers))

    low = quick_least_end(runs, workers, low, high)
    for measure in MEASURES:

        def shown(time: float, measure: Measure = measure) -> bool:
            return sum(max(_sums(block, time, measure)) for block in runs) > workers * (1 + HAIR)

        low = _last(shown, low, high)
    return low


def quick_least_end(runs: Sequence[Runs], workers: int, low: float, high: float) -> float:
    """As :func:`least_end`, between two times, but without a look at which tasks fit beside each other."""

    def shown(time: float) -> bool:
        return sum(_least(_shares(block, time), block.variants) for block in runs) > workers * (1 + HAIR)

    return _last(shown, low, high)


def _last(shown: Callable[[float], bool], low: float, high: float) -> float:
    """The last time found between two that is shown to be too little, or else the first."""
    if not shown(low + (high - low) / 2**5):
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if shown(middle) else (low, middle)
    return low


def _least(costs: Any, variants: int) -> float:
    return float(cheapest(costs, variants)[0][-1].sum())


def _sums(runs: Runs, time: float, measure: Measure) -> Iterator[float]:
    """What tasks of a block come to at least, by ``measure``, found in some ways."""
    if runs.variants == 1:
        yield _least(measure(_tasks(runs, time)), runs.bare.shape[1])
    else:
        yield _least(measure(_shares(runs, time)), runs.variants)
        yield _least(_parts(runs, time, measure), runs.variants)


def _tasks(runs: Runs, time: float) -> Any:
    """Shares of ``time`` [pieces in a row, 1] that tasks of the only variant take; infinite if they take longer.

    A block's pieces are cut into such tasks in the same way as a piece's variants into runs.
    """
    import numpy as np

    sums = np.concatenate([[0.0], runs.bare[0].cumsum()])
    ends, starts = np.tril_indices(len(sums), -1)
    shares = (sums[ends] - sums[starts] + runs.beside[0]) / time
    return np.where(shares <= 1 + HAIR, shares * (1 - HAIR), np.inf)[:, None]


def _shares(runs: Runs, time: float) -> Any:
    """Shares of ``time`` [runs, pieces] that runs have at least of their tasks; infinite if too long for any.

    A task of bare work c takes c + F, of which a run of bare work b has b + F b / c: the least if c is all that fits.
    """
    import numpy as np

    room = time - runs.beside
    most = np.minimum(room, runs.bare.sum(1, keepdims=True))
    shares = runs.bare * (1 + runs.beside / np.where(most > 0, most, 1.0)) * ((1 - HAIR) / time)
    return np.where(runs.bare <= room * (1 + HAIR), shares, np.inf)


def _parts(runs: Runs, time: float, measure: Measure) -> Any:
    """What runs [runs, pieces] have at least of their tasks' measure, as the same part of it as of the bare work.

    The least of all tasks that fit and have the run on its piece in them: those of a few pieces each, and longer ones
    together, which have the measure of some pieces at least, and as much bare work as there is and fits at most.
    """
    import numpy as np

    room = (time - runs.beside) * (1 + HAIR)
    windows = []
    for sums in runs.windows(WIDE):
        windows.append(sums)
        if not (sums <= room).any():
            break
    least = np.full((len(room), 0), np.inf)  # of a unit of bare work in windows of more pieces
    edge = np.full((len(room), 1), np.inf)
    for sums in reversed(windows):
        most = np.minimum(room, runs.bare.sum(1, keepdims=True)) if sums is windows[-1] else sums
        shares = np.where(sums <= room, (sums + runs.beside) * ((1 - HAIR) / time), np.inf)
        found = measure(shares) / np.where(most > 0, most, 1.0)
        least = np.minimum(found, np.minimum(np.hstack([edge, least]), np.hstack([least, edge])))
    return runs.bare * least


Measure = Callable[[Any], Any]


def _itself(shares: Any) -> Any:
    return shares


def _counted(parts: int) -> Measure:
    """How many whole parts of so many and one are exceeded."""

    def measure(shares: Any) -> Any:
        import numpy as np

        return np.maximum(np.ceil(shares * (parts + 1)) - 1, 0.0) / parts

    return measure


def _rounded(end: float) -> Measure:
    """Nothing for less than ``end``, all for what leaves less."""

    def measure(shares: Any) -> Any:
        import numpy as np

        whole = np.where(np.isinf(shares), shares, 1.0)
        return np.where(shares > 1 - end, whole, np.where(shares < end, 0.0, shares))

    return measure


MEASURES = (
    _itself,
    *(_counted(parts) for parts in (1, 2, 3, 4, 5, 6, 8, 12)),
    *(_rounded(end / 100) for end in (4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 47, 50)),
)
