"""Token sequences that begin alike, packed into rows so that a shared beginning is computed once.

A row is a *tree* of tokens: each token sees its ancestors and itself, and its position is its depth, so every path from
the root is scored as if it stood alone. Few-shot exemplars, several questions about one passage, the choices of one
question and several drafts of one answer are all such beginnings. Pure: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

BATCH = 1 / 16  # what a batch costs beside its tokens, in tokens of the largest there may be
PART = 96  # tokens of branches that follow each other, up to which they are one part: see Row.parts
Wanted = Callable[[tuple[int, ...], int], tuple[int, ...]]  # of a sequence's path and number: nodes to be read


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


@dataclass(frozen=True)
class Row:
    """One packed row: token ids, each token's parent (-1 for the root), and each sequence's nodes from the root on.

    ``paths`` maps the number of a sequence to its nodes, one for each of its tokens.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: dict[int, tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.tokens)

    def nodes(self, wanted: Wanted) -> list[int]:
        """The nodes that are ``wanted`` of the paths of all sequences, each once."""
        return list(dict.fromkeys(node for number, path in self.paths.items() for node in wanted(path, number)))

    @property
    def is_chain(self) -> bool:
        """True if no token has two children: a row like any other, for which a causal mask will do."""
        return all(parent == i - 1 for i, parent in enumerate(self.parents))

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Half-open ranges of nodes that see themselves and the first range: the stem, which all others come after.

        Branches that follow each other are one part as long as they are small.
        """
        fork = min((parent for node, parent in enumerate(self.parents) if parent != node - 1), default=len(self) - 1)
        starts = [node for node, parent in enumerate(self.parents) if node > fork and parent == fork]
        found = [(0, fork + 1)]
        for start, end in pairwise([*starts, len(self)]):
            first = found[-1][0]
            if first and end - first <= PART:
                found[-1] = (first, end)
            else:
                found.append((start, end))
        return found

    @property
    def children(self) -> list[dict[int, int]]:
        """For every node the nodes that come after it, by token."""
        after: list[dict[int, int]] = [{} for _ in self.tokens]
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            if parent >= 0:
                after[parent][token] = node
        return after

    @property
    def depths(self) -> tuple[int, ...]:
        """Position of every token: its distance from the root."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return tuple(depths)


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together, longest first."""

    rows: tuple[Row, ...]

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(len(row) for row in self.rows)

    @property
    def size(self) -> int:
        """Tokens, with padding."""
        return self.width * len(self.rows)

    @property
    def is_causal(self) -> bool:
        """True if a plain causal mask will do for every row."""
        return all(row.is_chain for row in self.rows)


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


def batches(rows: Sequence[Row], most_rows: int, most_tokens: int) -> Iterator[Batch]:
    """Rows by falling length, in batches of at most ``most_rows`` rows and ``most_tokens`` padded tokens.

    Chains and branching rows go apart, since only chains can do without a mask; a row longer than ``most_tokens``
    goes alone. As few tokens are padded as pays for one batch more, at :data:`BATCH` of ``most_tokens`` each.
    """
    for chains in (True, False):
        chosen = sorted((row for row in rows if row.is_chain is chains), key=len, reverse=True)
        start = 0
        for end in _ends([len(row) for row in chosen], most_rows, most_tokens):
            yield Batch(tuple(chosen[start:end]))
            start = end


def _ends(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[int]:
    """Where batches of rows of these lengths, longest first, end, so that they cost least together."""
    import numpy as np

    cost, ends = np.zeros(len(lengths) + 1), [0] * len(lengths)
    for start in range(len(lengths) - 1, -1, -1):
        most = min(max(1, min(most_rows, most_tokens // lengths[start])), len(lengths) - start)
        found = np.arange(most, 0, -1) * lengths[start] + cost[start + 1 : start + most + 1][::-1]
        count = most - int(found.argmin())  # of equally good ones the largest
        ends[start] = start + count
        cost[start] = found.min() + BATCH * most_tokens
    end = 0
    while end < len(lengths):
        end = ends[end]
        yield end


def cut(found: Iterable[Batch], most: int, wanted: Wanted) -> Iterator[Batch]:
    """Batches cut so that at most ``most`` nodes are wanted of one, or of a row that has more, of it alone."""
    for batch in found:
        part: list[Row] = []
        size = 0
        for row in batch.rows:
            count = len(row.nodes(wanted))
            if part and size + count > most:
                yield Batch(tuple(part))
                part, size = [], 0
            part.append(row)
            size += count
        yield Batch(tuple(part))


def draft_tree(prompt: Sequence[int], drafts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The sequences to pack for a prompt and drafts of its answer: each draft after the prompt, or the prompt alone."""
    known = dict.fromkeys(tuple(draft) for draft in drafts if len(draft))
    return [(*prompt, *draft) for draft in known] or [tuple(prompt)]
