"""What a grid has yet to ask, in blocks that a planner can divide between workers."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.evaluation.drafts import ANCHORS, anchor
from harness.evaluation.planning import Block, Piece, Task
from harness.evaluation.worker import Job

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.grid import Grid
    from harness.evaluation.stock import Portion, Stock
    from harness.evaluation.sweep import Sweeper
    from harness.plan import Plan


SOME = 64  # answers whose tokens are counted, of a task's
Lengths = Mapping[str, float]  # tokens that answers to a task have, to one that is guessed, by the task's name
GUESSED: Lengths = MappingProxyType({})


@dataclass(frozen=True)
class Asked:
    """A block of the grid as a worker is asked it: one column's portions, and plans in the order of their slots.

    Answers to ``before`` are drafts. ``name`` is the column's task.
    """

    benchmark: str
    column: int
    name: str
    digests: Sequence[str]
    portions: Sequence[Portion]
    plans: Sequence[Plan]
    block: Block
    before: tuple[Asked, ...] = ()

    def job(self, task: Task) -> Job:
        """What ``task`` asks of a worker."""
        rows = tuple(row for portion in self.portions[slice(*task.pieces)] for row in portion.rows)
        digests = tuple(tuple(self.digests[number] for number in row) for row in rows)
        return Job(self.benchmark, self.column, tuple(self.plans[slice(*task.variants)]), rows, digests)

    def length(self, asker: Sweeper | Stock, answers: Mapping[str, Mapping[str, Any]]) -> float | None:
        """Tokens of some of these answers to one that is guessed; None if nothing is written."""
        guessed = sum(p.piece.written for p in self.portions) / max(1, sum(p.piece.rows for p in self.portions))
        texts = [text for found in answers.values() for text in islice(found.values(), SOME) if isinstance(text, str)]
        if not guessed or not texts:
            return None
        return sum(asker.tokens(text) for text in texts) / len(texts) / guessed

    def with_length(self, length: float | None) -> Block:
        """The block, whose answers are so long to one that is guessed; as it was foreseen if nothing is written."""
        if length is None:
            return self.block
        pieces = tuple(_of_length(portion.piece, length) for portion in self.portions)
        return replace(self.block, pieces=pieces)


def questions(grid: Grid, lengths: Lengths = GUESSED) -> list[Asked]:
    """What the store does not know, by column and by the variants that have yet to answer a portion of it.

    ``lengths`` are those of answers as far as they are known.
    """
    from harness.evaluation.benchmarks import distinct

    found = []
    for benchmark in grid.expected:
        if not (plans := grid.missing(benchmark)):
            continue
        columns = grid.columns(benchmark)
        before: set[str] = (
            set()
        )  # columns may be of the same documents in part: one process asks the rest of the second
        for number, column in enumerate(columns):
            if any(column is other for other in distinct(columns)):
                found += _blocks(grid, benchmark, number, column, plans, before, lengths)
                before |= set(grid.asker.digests(column))
    return found


def _blocks(
    grid: Grid,
    benchmark: str,
    number: int,
    column: Column,
    plans: Sequence[Plan],
    before: Container[str],
    lengths: Lengths,
) -> list[Asked]:
    asker = grid.asker
    digests, portions = asker.digests(column), asker.portions(column, before)
    known = {plan: set(grid.store.responses(grid.identity(plan), digests)) for plan in plans}
    groups: dict[tuple[Plan, ...], list[Portion]] = {}
    for portion in portions:
        wanted = {digests[n] for row in portion.rows for n in row}
        # A portion is asked whole although some of it may be known: it gives the same answers only in its own company.
        if missing := tuple(plan for plan in plans if not wanted <= known[plan]):
            groups.setdefault(missing, []).append(portion)
    shared = asker.shares(column)

    def asked(who: Sequence[Plan], some: Sequence[Portion], before: tuple[Asked, ...] = ()) -> Asked:
        slots = tuple(grid.variants.slots(plan) for plan in who)
        pieces = tuple(_of_length(portion.piece, lengths.get(column.spec.task, 1.0)) for portion in some)
        block = Block(slots, pieces, shared, tuple(first.block.slots[0] for first in before))
        return Asked(benchmark, number, column.spec.task, digests, some, who, block, before)

    found = []
    for who, some in groups.items():
        scored = [portion for portion in some if not portion.piece.written]
        written = [portion for portion in some if portion.piece.written]
        found += [asked(who, scored)] if scored else []
        if not written or not shared or len(who) <= ANCHORS:
            found += [asked(who, written)] if written else []
            continue
        # Variants whose answers are drafts for all others are asked apart: nobody writes these answers twice.
        first = {variant.identity for variant in anchor([grid.variants.variant(plan) for plan in who], ANCHORS)}
        drafts = tuple(asked([plan], written) for plan in who if grid.identity(plan) in first)
        rest = [plan for plan in who if grid.identity(plan) not in first]
        found += [*drafts, asked(rest, written, drafts)]
    return found


def _of_length(piece: Piece, length: float) -> Piece:
    return replace(piece, written=max(1, round(length * piece.written))) if piece.written else piece
