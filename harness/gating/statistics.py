"""Paired statistics on per-document scores: pure, seeded, independent of the order of documents.

Every comparison is between two scores on the *same* documents. Which of two models is better is then a question
about the documents on which they disagree, and the noise of an easy or a hard document cancels.

numpy is imported where graded scores need it; right/wrong scores need the standard library only (``scipy.stats``
takes a second to import, which a re-run with every answer in store would spend on nothing else).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.cache import Cache
from harness.evaluation.scores import Score
from harness.gating.pairing import RESOLUTION, IncomparableError, pair, whole_values
from harness.gating.resampling import RESAMPLES, bootstrap, resampled, z_value

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """One score against a baseline on the same ``n`` documents. Shares of one throughout, never points.

    ``difference`` is value minus baseline and ``low`` to ``high`` its interval; ``p`` is two-sided. ``gained``
    and ``lost`` count the documents whose value rose and fell. ``method`` names test and interval. ``sd`` is the
    standard deviation of the differences of single documents, from which follows what ``n`` documents can detect.
    """

    n: int
    value: float
    baseline: float
    difference: float
    low: float
    high: float
    p: float
    method: str
    gained: int
    lost: int
    confidence: float = 0.95
    sd: float = 0.0

    @property
    def identical(self) -> bool:
        """True if every document got the same value from both."""
        return self.gained == 0 and self.lost == 0

    @property
    def reversed(self) -> Comparison:
        """The same comparison seen from the baseline; both tests and both intervals are symmetric."""
        return replace(
            self,
            value=self.baseline,
            baseline=self.value,
            difference=0.0 - self.difference,
            low=0.0 - self.high,
            high=0.0 - self.low,
            gained=self.lost,
            lost=self.gained,
        )


def compare(score: Score, baseline: Score, confidence: float = CONFIDENCE, cache: Cache | None = None) -> Comparison:
    """``score`` against ``baseline`` on the documents that both have, with interval and two-sided p.

    Right/wrong: the exact McNemar test (:func:`mcnemar`) and Tango's interval (:func:`tango`). Graded: a sign-flip
    permutation test (Fisher 1935) and the interval of the studentised paired bootstrap (:func:`bootstrap`), both
    with a fixed seed; if no document differs the interval has no width and p is 1. ``cache`` keeps what resampling
    gives. Raises :class:`IncomparableError` as :func:`pair` does.
    """
    paired = pair(score, baseline)
    differences = paired.differences
    n, scale = paired.n, paired.scale
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if score.graded:
        method = f"sign-flip permutation test, studentised paired bootstrap interval ({RESAMPLES} resamples)"
        low, high, p = resampled(differences, scale, confidence, cache)
    else:
        method = "exact McNemar test, Tango score interval"
        low, high = tango(gained, lost, n, confidence)
        p = mcnemar(gained, lost)
    return Comparison(
        n=n,
        value=sum(paired.values) / (n * scale),
        baseline=sum(paired.baseline) / (n * scale),
        difference=sum(differences) / (n * scale),
        low=low,
        high=high,
        p=p,
        method=method,
        gained=gained,
        lost=lost,
        confidence=confidence,
        sd=_deviation(differences, scale),
    )


def _deviation(differences: Sequence[int], scale: int) -> float:
    """Of whole numbers, so the order of documents does not matter; 0 for a single document."""
    n, total = len(differences), sum(differences)
    squares = n * sum(d * d for d in differences) - total * total
    return math.sqrt(squares / (n * (n - 1))) / scale if n > 1 else 0.0


@lru_cache(maxsize=4096)
def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that ``gained`` and ``lost`` come from a fair coin (McNemar 1947, exact by the binomial).

    Computed in whole numbers, so it is exact for any count; equals ``scipy.stats.binomtest(gained, gained + lost)``.
    """
    total, term, tail = gained + lost, 1, 1
    for k in range(min(gained, lost)):
        term = term * (total - k) // (k + 1)
        tail += term
    # A division of whole numbers: both sides can be far beyond the range of a float.
    return min(1.0, 2 * tail / (1 << total))


@lru_cache(maxsize=4096)
def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval for the difference of two paired shares, ``(gained - lost) / n``.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), 891-908. It keeps its coverage where few documents
    differ, where the textbook (Wald) interval does not, and has a width even where none does.
    """
    if n < 1 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} documents")
    z2 = z_value(confidence) ** 2
    estimate = (gained - lost) / n

    def outside(delta: float) -> bool:
        """True if the score test at this confidence rejects a true difference of ``delta``."""
        a, b = 2.0 * n, (2.0 * n - gained + lost) * delta - gained - lost
        c = -lost * delta * (1 - delta)
        share_lost = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # most likely, given delta
        variance = n * (2 * share_lost + delta * (1 - delta))
        return (gained - lost - n * delta) ** 2 > z2 * max(0.0, variance)

    return _edge(outside, estimate, -1.0), _edge(outside, estimate, 1.0)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval for one share, ``successes / n`` (E. B. Wilson, JASA 22 (1927), 209-212)."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    z = z_value(confidence)
    share, z2n = successes / n, z * z / n
    centre, half = share + z2n / 2, z * math.sqrt(share * (1 - share) / n + z2n / (4 * n))
    low = 0.0 if successes == 0 else (centre - half) / (1 + z2n)
    high = 1.0 if successes == n else (centre + half) / (1 + z2n)
    return low, high


def interval(score: Score, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of one score by itself: Wilson's if right/wrong, the bootstrap's over documents if graded.

    Raises :class:`IncomparableError` if there are no documents.
    """
    if score.n == 0:
        raise IncomparableError(f"{score.column}: no documents", ("documents",))
    values = whole_values(score)
    if not score.graded:
        return wilson(sum(values), score.n, confidence)
    ordered = [value for _, value in sorted(zip(score.documents, values, strict=True))]
    low, high = bootstrap(ordered, RESOLUTION, confidence)
    return max(0.0, low), min(1.0, high)


def _edge(outside: Callable[[float], bool], inside: float, limit: float) -> float:
    """Where ``outside`` turns true between ``inside`` and ``limit``, by bisection to the last bit or two."""
    if not outside(limit):
        return limit
    far = limit
    for _ in range(60):
        middle = (inside + far) / 2
        inside, far = (inside, middle) if outside(middle) else (middle, far)
    return inside
