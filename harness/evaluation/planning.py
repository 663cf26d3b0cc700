"""How a grid is divided into tasks that workers compute apart: what each costs, and where to cut. Pure: no torch.

A *block* is one column's documents asked of some variants. Its documents come in *pieces*, the least that may be
computed apart without a change of any answer (a batch of the engine); its variants in the order in which neighbours
share most layers. A *task* is a run of the variants on a run of the pieces. Documents are cut first, since that shares
as much as before; a run of variants is cut only where one piece takes too long, and then where least is shared.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from harness.evaluation.drafts import ANCHORS

GAIN = 0.01  # share of a plan's time that is given for tasks half as long
FINEST = 0.05  # of a worker's whole time: shorter tasks even out nothing
LOSSY = 0.1  # of it, too: variants, which share layers, are not cut apart for less
UNFORESEEN = 0.2  # share of an answer that the draft of a variant with no slot in common does not foresee


@dataclass(frozen=True)
class Piece:
    """What one variant is asked at once: requests, tokens read, positions whose logits are read, tokens written."""

    rows: int
    tokens: int
    read: int
    written: int = 0


@dataclass(frozen=True)
class Block:
    """``slots`` of distinct variants, sorted, by :func:`harness.identity.slot_identities`.

    Unless ``shared``, every variant computes all of its layers. ``drafts`` are slots of variants that have written
    their answers before: these are verified, and what they do not foresee is written.
    """

    slots: tuple[tuple[str, ...], ...]
    pieces: tuple[Piece, ...]
    shared: bool = True
    drafts: tuple[tuple[str, ...], ...] = ()

    @property
    def layers(self) -> int:
        """Of a variant, without its three outer slots."""
        return len(self.slots[0]) - 3

    @cached_property
    def common(self) -> tuple[int, ...]:
        """How many layers each variant shares with the next one."""
        return tuple(_common(a, b) if self.shared else 0 for a, b in pairwise(self.slots))

    @cached_property
    def _added(self) -> tuple[int, ...]:
        return tuple(accumulate((self.layers - shared for shared in self.common), initial=0))

    @cached_property
    def drafted(self) -> float:
        """Tokens of all drafts of an answer, where they part ways, to those of one."""
        return 1.0 + sum(_unforeseen(slots, self.drafts[:at]) for at, slots in enumerate(self.drafts) if at)

    def unforeseen(self, first: int, last: int) -> float:
        """Answers that variants ``first`` to ``last`` (exclusive) write token by token beside drafts, in whole ones."""
        return self._written[last] - self._written[first]

    @cached_property
    def _written(self) -> tuple[float, ...]:
        return tuple(accumulate((_unforeseen(slots, self.drafts) for slots in self.slots), initial=0.0))

    @cached_property
    def _sums(self) -> tuple[tuple[int, ...], ...]:
        columns = zip(*((p.rows, p.tokens, p.read, p.written) for p in self.pieces), strict=True)
        return tuple(tuple(accumulate(column, initial=0)) for column in columns)

    def distinct(self, first: int, last: int) -> int:
        """Layers to compute for variants ``first`` to ``last`` (exclusive): the nodes of their prefix tree."""
        return self.layers + self._added[last - 1] - self._added[first]

    def piece(self, first: int, last: int) -> Piece:
        """Pieces ``first`` to ``last`` (exclusive) as one."""
        return Piece(*(column[last] - column[first] for column in self._sums))


@dataclass(frozen=True, order=True)
class Task:
    """Variants and pieces of one block, as half-open ranges."""

    block: int
    variants: tuple[int, int]
    pieces: tuple[int, int]


@dataclass(frozen=True)
class Work:
    """What a task consists of; the cost model is linear in these.

    ``layer_tokens`` are tokens times the distinct layers that they pass, ``read`` positions of which logits are read,
    ``written`` tokens times layers of answers that are written token by token, ``rows`` responses kept.
    """

    tasks: float
    variants: float
    layer_tokens: float
    read: float
    written: float
    rows: float


@dataclass(frozen=True)
class Prices:
    """Seconds for one of each of :class:`Work`. The defaults are of no machine: only what they compare is of use."""

    tasks: float = 2e-2
    variants: float = 2e-3
    layer_tokens: float = 1e-6
    read: float = 1e-5
    written: float = 4e-6
    rows: float = 2e-5

    def of(self, work: Work) -> float:
        """Seconds that ``work`` takes one worker."""
        return (
            self.tasks * work.tasks
            + self.variants * work.variants
            + self.layer_tokens * work.layer_tokens
            + self.read * work.read
            + self.written * work.written
            + self.rows * work.rows
        )


def work(block: Block, task: Task) -> Work:
    """What ``task`` of ``block`` consists of."""
    (first, last), piece = task.variants, block.piece(*task.pieces)
    count, distinct = last - first, block.distinct(first, last)
    anchors = 0.0
    tokens = float(piece.tokens) * distinct
    if piece.written and block.drafts:
        tokens = (piece.tokens + block.drafted * piece.written) * distinct
        anchors = block.unforeseen(first, last)
    elif piece.written:
        anchors = min(count, ANCHORS) if block.shared else count
        # Anchors read the prompts by themselves; the others read them with the anchors' answers behind.
        rest = distinct * (count - anchors) / count
        tokens = piece.tokens * (anchors * block.layers + rest) + rest * ANCHORS * piece.written
    written = float(anchors * block.layers * piece.written)
    return Work(1.0, float(count), tokens, float(count * piece.read), written, float(count * piece.rows))


def whole(blocks: Sequence[Block]) -> list[Task]:
    """A task for every block: nothing is cut, everything is shared."""
    return [Task(i, (0, len(block.slots)), (0, len(block.pieces))) for i, block in enumerate(blocks)]


def seconds(blocks: Sequence[Block], tasks: Sequence[Task], prices: Prices) -> list[float]:
    """What each task takes."""
    return [prices.of(work(blocks[task.block], task)) for task in tasks]


def divide(blocks: Sequence[Block], workers: int, prices: Prices) -> list[Task]:
    """Tasks for so many workers, the longest first: each (variant, piece) of each block in one of them.

    The longest task is halved, again and again. Of the plans on the way the finest is taken of those that simulated
    workers end about as soon as any: what a task takes is foreseen roughly, and workers may be slow or lost.
    """
    tasks = whole(blocks)
    order = [(-cost, task) for cost, task in zip(seconds(blocks, tasks, prices), tasks, strict=True)]
    heapq.heapify(order)
    final: list[tuple[float, Task]] = []  # those that are not to be halved
    plans: list[tuple[float, list[tuple[float, Task]]]] = []
    look = 0.0
    while True:
        plan = order + final
        if len(plan) >= look or not order:
            durations = [-cost for cost, _ in plan]
            plans.append((makespan(durations, workers), plan))
            even, look = sum(durations) / workers, len(plan) * 1.15
        if not order or -order[0][0] < even * FINEST:
            break
        cost, task = heapq.heappop(order)
        halves = _halves(blocks[task.block], task, prices, -cost > even * LOSSY)
        for half, part in zip(halves, seconds(blocks, halves, prices), strict=True):
            heapq.heappush(order, (-part, half))
        final += [] if halves else [(cost, task)]
    least = min(end for end, _ in plans)
    best = next(plan for end, plan in reversed(plans) if end <= least * (1 + GAIN))
    return [task for _, task in sorted(best)]


def makespan(durations: Sequence[float], workers: int) -> float:
    """When the last of ``workers`` ends that take tasks in turn, the longest first."""
    free = [0.0] * min(workers, max(1, len(durations)))
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def lower_bound(blocks: Sequence[Block], workers: int, prices: Prices) -> float:
    """No division ends before: all work, everything shared, over all workers; or the longest that cannot be cut.

    That is one variant on one piece.
    """
    total = sum(seconds(blocks, whole(blocks), prices))
    units = [
        Task(i, (0, 1), (number, number + 1)) for i, block in enumerate(blocks) for number in range(len(block.pieces))
    ]
    return max(total / workers, *seconds(blocks, units, prices))


def _halves(block: Block, task: Task, prices: Prices, lossy: bool) -> list[Task]:
    """A task in two: its pieces, at even cost, or else, if ``lossy``, its variants; nothing if neither can be."""
    first, last = task.pieces
    if last - first > 1:
        whole = prices.of(work(block, task))

        def below(at: int) -> float:
            return prices.of(work(block, Task(task.block, task.variants, (first, at))))

        at = bisect_left(range(first + 1, last - 1), whole / 2, key=below) + first + 1
        return [Task(task.block, task.variants, (first, at)), Task(task.block, task.variants, (at, last))]
    if lossy and task.variants[1] - task.variants[0] > 1:
        middle = _where(block, task.variants)
        runs = (task.variants[0], middle), (middle, task.variants[1])
        return [Task(task.block, run, task.pieces) for run in runs]
    return []


def _where(block: Block, run: tuple[int, int]) -> int:
    """The place in the middle half of a run of variants at which neighbours share least, nearest to its midst."""
    first, last = run
    quarter = (last - first) // 4
    places = range(first + max(1, quarter), last - quarter) or range(first + 1, last)
    return min(places, key=lambda at: (block.common[at - 1], abs(2 * at - first - last)))


def _unforeseen(slots: Sequence[str], drafts: Sequence[Sequence[str]]) -> float:
    """The share of an answer that none of the drafts foresees, by how many slots the most alike has otherwise.

    It grows as a root: of the embedded experts' answers 3 % where one slot of 13 differs, 16 % where 12 do.
    """
    apart = min(sum(x != y for x, y in zip(slots, draft, strict=True)) for draft in drafts)
    return float(UNFORESEEN * (apart / len(slots)) ** 0.5)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    shared = 0
    for x, y in zip(a[:-2], b[:-2], strict=True):
        if x != y:
            break
        shared += 1
    return max(0, shared - 1)
