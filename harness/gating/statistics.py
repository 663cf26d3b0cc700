"""Paired statistics on per-document scores: pure, seeded, independent of the order of documents.

Every comparison is between two scores on the *same* documents. Which of two models is better is then a question
about the documents on which they disagree, and the noise of an easy or a hard document cancels.

numpy is imported where graded scores need it; right/wrong scores need the standard library only (``scipy.stats``
takes a second to import, which a re-run with every answer in store would spend on nothing else).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import NormalDist
from typing import Any

from harness.cache import Cache, kept, key_of
from harness.evaluation.scores import Score
from harness.gating.pairing import RESOLUTION, IncomparableError, pair, whole_values

RESAMPLES = 4_999
SEED = 20_241_003
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
    permutation test (Fisher 1935) and the interval of the studentised paired bootstrap (:func:`_bootstrap`), both
    with a fixed seed; if no document differs the interval has no width and p is 1. ``cache`` keeps what resampling
    gives. Raises :class:`IncomparableError` as :func:`pair` does.
    """
    paired = pair(score, baseline)
    differences = paired.differences
    n, scale = paired.n, paired.scale
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if score.graded:
        method = f"sign-flip permutation test, studentised paired bootstrap interval ({RESAMPLES} resamples)"
        low, high, p = _resampled(differences, scale, confidence, cache)
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
    z2 = _z(confidence) ** 2
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
    z = _z(confidence)
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
    low, high = _bootstrap(ordered, RESOLUTION, confidence)
    return max(0.0, low), min(1.0, high)


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}: expected a number between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _edge(outside: Callable[[float], bool], inside: float, limit: float) -> float:
    """Where ``outside`` turns true between ``inside`` and ``limit``, by bisection to the last bit or two."""
    if not outside(limit):
        return limit
    far = limit
    for _ in range(60):
        middle = (inside + far) / 2
        inside, far = (inside, middle) if outside(middle) else (middle, far)
    return inside


@lru_cache(maxsize=2)
def _draws(n: int) -> Any:
    """[RESAMPLES, n] counts: how often each document was drawn. Shared, since making it costs most of the time."""
    import numpy as np

    return np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


@lru_cache(maxsize=2)
def _signs(n: int) -> Any:
    """[RESAMPLES, n] signs, -1 or +1."""
    import numpy as np

    return np.random.default_rng(SEED + 1).integers(0, 2, size=(RESAMPLES, n)).astype(np.float64) * 2 - 1


def _resampled(
    differences: Sequence[int], scale: int, confidence: float, cache: Cache | None
) -> tuple[float, float, float]:
    """Interval and p of graded differences in the order of the documents' digests, on which alone they depend."""
    if not any(differences):
        return 0.0, 0.0, 1.0

    def made() -> str:
        low, high = _bootstrap(differences, scale, confidence)
        return json.dumps([max(-1.0, low), min(1.0, high), _sign_flip(differences)])

    key = partial(key_of, ["graded", list(differences), scale, confidence], "numpy")
    low, high, p = json.loads(kept(cache, "comparison", key, made))
    return low, high, p


def _bootstrap(values: Sequence[int], scale: int, confidence: float) -> tuple[float, float]:
    """Interval of the mean of ``values``: the symmetric studentised bootstrap, no narrower than the normal interval.

    Every resample of documents is measured in standard errors of its own. Source: P. Hall, Journal of the Royal
    Statistical Society B 50 (1988), 35-45. Where few documents differ the bootstrap's percentiles cover too little;
    what this covers stands in ``docs/gating.md``.
    """
    import numpy as np

    n, total = len(values), sum(values)
    if min(values) == max(values):
        return values[0] / scale, values[0] / scale
    deviations = np.asarray([value - round(total / n) for value in values], dtype=np.float64)
    # In whole units so large that sums of squares stay below 2**53: they add up exactly whatever the machine's BLAS.
    unit = max(1.0, float(np.abs(deviations).max()) * math.sqrt(n) / 2**26)
    whole = np.rint(deviations / unit)
    sums, squares = (_draws(n) @ np.stack([whole, whole * whole], axis=1)).T
    spread = n * squares - sums * sums
    # A resample of equal values has no standard error to be measured in.
    off = np.abs(sums - whole.sum())[spread > 0] * np.sqrt(n / spread[spread > 0])
    errors = max(float(np.quantile(off, confidence)), _z(confidence) * math.sqrt(n / (n - 1)))
    half = errors * math.sqrt((n * sum(value * value for value in values) - total * total) / n) / n
    return (total / n - half) / scale, (total / n + half) / scale


def _sign_flip(differences: Sequence[int]) -> float:
    """Two-sided p that the differences are symmetric around 0; the observed signs count as one resample."""
    import numpy as np

    if not any(differences):
        return 1.0
    d = np.asarray(differences, dtype=np.float64)
    extreme = np.abs(_signs(len(d)) @ d) >= abs(sum(differences))
    return (1 + int(extreme.sum())) / (RESAMPLES + 1)
