"""Rows that are trees of tokens, and batches of them.

Each token of a row sees its ancestors and itself, and its position is its depth, so every path from the root is scored
as if it stood alone. How sequences become rows: :mod:`rows`. Pure: no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

BATCH = 1 / 16  # what a batch costs beside its tokens, in tokens of the largest there may be
PART = 96  # tokens of branches that follow each other, up to which they are one part: see Row.parts
Wanted = Callable[[tuple[int, ...], int], tuple[int, ...]]  # of a sequence's path and number: nodes to be read


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
