"""Whose answers are drafts for the others, and how far an answer goes along with drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.evaluation.decoding import Ending
from harness.evaluation.sharing import Variant

ANCHORS = 3  # variants that decode plainly before the others have drafts


def anchor(variants: Sequence[Variant], count: int) -> list[Variant]:
    """Variants that differ most from each other, slot by slot, beginning with the one that is closest to all."""

    def apart(a: Variant, b: Variant) -> int:
        return sum(x != y for x, y in zip(a.slots, b.slots, strict=True))

    chosen = [min(variants, key=lambda v: (sum(apart(v, w) for w in variants), v.identity))]
    while len(chosen) < min(count, len(variants)):
        rest = [v for v in variants if v not in chosen]
        chosen.append(max(rest, key=lambda v: (min(apart(v, c) for c in chosen), v.identity)))
    return chosen


def filling(count: int, threads: int) -> int:
    """``count`` anchors, or one more where a thread would have nothing to do while the last of them decodes."""
    return min(-(-count // threads) * threads, count + 1)


def walk(
    children: Sequence[Mapping[int, int]], node: int, best: Callable[[int], int], ending: Ending
) -> tuple[list[int], bool]:
    """The variant's own tokens as far as the drafts go along and the one after; and whether they end the answer."""
    tokens: list[int] = []
    while True:
        tokens.append(best(node))
        if ending.ended(tokens):
            return tokens, True
        if tokens[-1] not in children[node]:
            return tokens, False
        node = children[node][tokens[-1]]
