"""Which documents of two scores belong together, and whether the two say anything about each other at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import sub

from harness.errors import LayerswapError
from harness.evaluation.scores import Score

RESOLUTION = 10_000_000
"""Graded values are compared, and stored, in whole units of 1e-7: see :func:`whole_values`."""


class IncomparableError(LayerswapError):
    """Two scores that say nothing about each other; ``fields`` names what differs."""

    def __init__(self, message: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


@dataclass(frozen=True)
class Paired:
    """Two scores on the same ``n`` documents, in the order of the documents' digests.

    ``values`` and ``baseline`` are whole numbers in units of ``1 / scale``. ``positions`` and
    ``baseline_positions`` say where each document stood in the two scores.
    """

    documents: tuple[str, ...]
    values: tuple[int, ...]
    baseline: tuple[int, ...]
    scale: int
    positions: tuple[int, ...]
    baseline_positions: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of documents."""
        return len(self.documents)

    @property
    def differences(self) -> tuple[int, ...]:
        """Value minus baseline, document by document, in units of ``1 / scale``."""
        return tuple(map(sub, self.values, self.baseline))


def whole_values(score: Score) -> tuple[int, ...]:
    """The values of ``score`` as whole numbers: 0 and 1 if right/wrong, units of 1e-7 if graded.

    Whole numbers make sums exact in any order, and a value read back from a baseline file equal to the one that
    was written there: an unchanged variant differs by exactly 0. 1e-7 is a hundred-thousandth of a point.

    Raises :class:`LayerswapError` for a value outside [0, 1], or a right/wrong one that is neither 0 nor 1.
    """
    if not score.graded and set(score.values) <= {0.0, 1.0}:
        return tuple(map(int, score.values))
    for document, value in zip(score.documents, score.values, strict=True):
        if not 0.0 <= value <= 1.0:
            raise LayerswapError(f"{score.column}: document {document} has the value {value}: expected 0 to 1")
        if not score.graded and value not in (0.0, 1.0):
            raise LayerswapError(f"{score.column}: document {document} has the value {value}: expected 0 or 1")
    return tuple([round(value * RESOLUTION) for value in score.values])


def pair(score: Score, baseline: Score) -> Paired:
    """Match the documents of two scores by content digest, whatever their positions.

    A document that occurs k times must occur k times in both; its occurrences are matched in order. Raises
    :class:`IncomparableError` if the scores differ in column, metric, fingerprint or documents, or have none.
    """
    if fields := _differing_fields(score, baseline):
        raise IncomparableError(
            f"{score.column}: not comparable with the baseline, these differ: {'; '.join(fields.values())}",
            tuple(fields),
        )
    documents, positions = _ordered(score.documents)
    baseline_documents, baseline_positions = _ordered(baseline.documents)
    if documents != baseline_documents:
        only, missing = (
            Counter(score.documents) - Counter(baseline.documents),
            Counter(baseline.documents) - Counter(score.documents),
        )
        raise IncomparableError(
            f"{score.column}: other documents than the baseline's ({score.n} here, {baseline.n} there): "
            f"{only.total()} only here, {missing.total()} only in the baseline",
            ("documents",),
        )
    if score.n == 0:
        raise IncomparableError(f"{score.column}: no documents", ("documents",))
    values, baseline_values = whole_values(score), whole_values(baseline)
    return Paired(
        documents=documents,
        values=tuple([values[i] for i in positions]),
        baseline=tuple([baseline_values[i] for i in baseline_positions]),
        scale=RESOLUTION if score.graded else 1,
        positions=positions,
        baseline_positions=baseline_positions,
    )


def _differing_fields(score: Score, baseline: Score) -> dict[str, str]:
    """What makes the two numbers different quantities, with both sides spelled out."""
    ours, theirs = (
        {
            "benchmark": s.benchmark,
            "column": s.column,
            "metric": s.metric,
            "graded": str(s.graded),
            "higher_is_better": str(s.higher_is_better),
            **s.fingerprint,
        }
        for s in (score, baseline)
    )
    names = dict.fromkeys([*ours, *theirs])
    return {
        name: f"{name} ({ours.get(name, 'absent')} here, {theirs.get(name, 'absent')} in the baseline)"
        for name in names
        if ours.get(name) != theirs.get(name)
    }


@lru_cache(maxsize=64)
def _ordered(documents: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Documents in the order of their digests, and where each stood; repeats keep their order.

    Kept, since a run holds the same few lists of documents against one another again and again.
    """
    positions = sorted(range(len(documents)), key=documents.__getitem__)
    return tuple([documents[i] for i in positions]), tuple(positions)
