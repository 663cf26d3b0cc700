"""Token sequences that begin alike, packed into rows so that a shared beginning is computed once.

Few-shot exemplars, several questions about one passage, the choices of one question and several drafts of one answer
are such beginnings. A row is a tree of tokens: see :mod:`trees`. Pure: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.evaluation.trees import Row


@dataclass(frozen=True)
class Cost:
    """What a row of T tokens costs: ``linear``·T for projections, ``pair``·T² for attention, in any one unit.

    ``branch`` is what attention costs more for each branch, where branches can be computed apart; None: they cannot.
    """

    linear: float = 1.0
    pair: float = 0.0
    branch: float | None = None

    def of(self, stem: int, branches: Sequence[int] = ()) -> float:
        """The cost of a row whose tokens are a ``stem`` that all others see, and branches, which do not see others."""
        tokens = stem + sum(branches)
        return tokens * self.linear + min(tokens * tokens * self.pair, self._by_branches(stem, branches))

    def divides(self, stem: int, branches: Sequence[int]) -> bool:
        """Whether such a row's attention is cheaper branch by branch."""
        return self._by_branches(stem, branches) < (stem + sum(branches)) ** 2 * self.pair

    def _by_branches(self, stem: int, branches: Sequence[int]) -> float:
        if self.branch is None:
            return math.inf
        pairs = stem * stem + sum(size * (stem + size) for size in branches)
        return pairs * self.pair + len(branches) * self.branch


def pack(
    sequences: Sequence[Sequence[int]],
    cost: Cost | None = None,
    longest: int = 4096,
    joined: Sequence[int] | None = None,
    apart: Sequence[int] | None = None,
    read: Sequence[int] | None = None,
    most: float = math.inf,
) -> list[Row]:
    """Every sequence on a path of one row; rows grow as long as that makes the average sequence cheaper.

    Sequences are taken in lexicographic order, in which a neighbour shares the longest beginning there is. One joins
    the row before it if they share a token and what it adds costs no more than that row's sequences do on average
    (with that rule the average of a row stops at its minimum) and no more than a row of its own. ``cost`` None shares
    nothing but chains, where one sequence is the beginning of the next: for models that cannot be given a tree. Where
    ``joined`` is given, sequences that share so many tokens stay in one row at any cost, with those in between. Where
    ``apart`` is given, sequences of different numbers share no row: that makes the rows of an earlier packing again, in
    which more sequences took part. ``read`` is how many of each sequence's nodes are wanted, and ``most`` how many may
    be of a row that takes another sequence. Raises ValueError for an empty sequence.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    least = _spanned([sequences[i] for i in order], [joined[i] for i in order]) if joined else [None] * len(order)
    rows: list[_Growing] = []
    last = -1
    for number, needed in zip(order, least, strict=True):
        sequence = tuple(sequences[number])
        if not sequence:
            raise ValueError(f"sequence {number} is empty")
        other = apart is not None and last >= 0 and apart[number] != apart[last]
        more = read[number] if read else 0
        full = bool(rows) and rows[-1].read + more > most
        if other or not (rows and rows[-1].takes(sequence, cost, 0 if full else longest, needed)):
            rows.append(_Growing())
        rows[-1].read += more
        last = number
        rows[-1].add(number, sequence)
    return [row.done() for row in rows]


def _spanned(ordered: Sequence[Sequence[int]], joined: Sequence[int]) -> list[int]:
    """``joined`` of sorted sequences, lowered for those that lie between two that belong together."""
    least = list(joined)
    for i in range(len(least) - 2, -1, -1):
        if _shared(ordered[i], ordered[i + 1]) >= least[i + 1]:
            least[i] = min(least[i], least[i + 1])
    return least


class _Growing:
    def __init__(self) -> None:
        self.read = 0  # nodes that are wanted of its sequences
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._paths: dict[int, tuple[int, ...]] = {}
        self._last: tuple[int, ...] = ()  # the sequence added last, and its nodes
        self._nodes: tuple[int, ...] = ()
        self._leaves = 0  # sequences that added a token
        self._shape: tuple[int, tuple[int, ...]] = (0, ())  # tokens of the stem and of each branch

    def takes(self, sequence: tuple[int, ...], cost: Cost | None, longest: int, joined: int | None) -> bool:
        shared = _shared(self._last, sequence)
        if shared == len(self._tokens) or (cost is not None and shared == len(sequence)):
            return True  # it is there already, or makes a chain longer
        if cost is None or shared == 0:
            return False
        if joined is not None and shared >= joined:
            return True
        if len(self._tokens) + len(sequence) - shared > max(longest, len(sequence)):
            return False
        stem, branches = self._grown(shared, len(sequence) - shared)
        before, alone = cost.of(*self._shape), cost.of(len(sequence))
        # What a branch that is computed apart adds is the same, however long the row.
        apart = stem == shared and len(branches) > len(self._shape[1]) and cost.divides(stem, branches)
        return cost.of(stem, branches) - before <= (alone if apart else min(before / self._leaves, alone))

    def _grown(self, shared: int, more: int) -> tuple[int, tuple[int, ...]]:
        """The row's shape with so many tokens more after the first ``shared`` ones of the sequence added last."""
        stem, branches = self._shape
        if shared == stem and not branches:
            return stem + more, ()
        if shared > stem:
            return stem, (*branches[:-1], branches[-1] + more)
        return shared, (*((len(self._tokens) - shared,) if shared < stem else branches), more)

    def add(self, number: int, sequence: tuple[int, ...]) -> None:
        shared = _shared(self._last, sequence)
        if shared < len(sequence):
            self._shape = self._grown(shared, len(sequence) - shared)
        nodes = list(self._nodes[:shared])
        for token in sequence[shared:]:
            self._parents.append(nodes[-1] if nodes else -1)
            nodes.append(len(self._tokens))
            self._tokens.append(token)
        self._leaves += shared < len(sequence)
        self._last, self._nodes = sequence, tuple(nodes)
        self._paths[number] = self._nodes

    def done(self) -> Row:
        return Row(tuple(self._tokens), tuple(self._parents), self._paths)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def draft_tree(prompt: Sequence[int], drafts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The sequences to pack for a prompt and drafts of its answer: each draft after the prompt, or the prompt alone."""
    known = dict.fromkeys(tuple(draft) for draft in drafts if len(draft))
    return [(*prompt, *draft) for draft in known] or [tuple(prompt)]
