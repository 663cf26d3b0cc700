"""Resampling of graded differences: seeded, kept between runs in a cache. numpy is imported in calls only."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from statistics import NormalDist
from typing import Any

from harness.cache import Cache, kept, key_of

RESAMPLES = 4_999
SEED = 20_241_003


def z_value(confidence: float) -> float:
    """The normal quantile of a two-sided interval; raises :class:`ValueError` for a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}: expected a number between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@lru_cache(maxsize=2)
def draws(n: int) -> Any:
    """[RESAMPLES, n] counts: how often each document was drawn. Shared, since making it costs most of the time."""
    import numpy as np

    return np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


@lru_cache(maxsize=2)
def signs(n: int) -> Any:
    """[RESAMPLES, n] signs, -1 or +1."""
    import numpy as np

    return np.random.default_rng(SEED + 1).integers(0, 2, size=(RESAMPLES, n)).astype(np.float64) * 2 - 1


def resampled(
    differences: Sequence[int], scale: int, confidence: float, cache: Cache | None
) -> tuple[float, float, float]:
    """Interval and p of graded differences in the order of the documents' digests, on which alone they depend."""
    if not any(differences):
        return 0.0, 0.0, 1.0

    def made() -> str:
        low, high = bootstrap(differences, scale, confidence)
        return json.dumps([max(-1.0, low), min(1.0, high), sign_flip(differences)])

    key = partial(key_of, ["graded", list(differences), scale, confidence], "numpy")
    low, high, p = json.loads(kept(cache, "comparison", key, made))
    return low, high, p


def bootstrap(values: Sequence[int], scale: int, confidence: float) -> tuple[float, float]:
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
    sums, squares = (draws(n) @ np.stack([whole, whole * whole], axis=1)).T
    spread = n * squares - sums * sums
    # A resample of equal values has no standard error to be measured in.
    off = np.abs(sums - whole.sum())[spread > 0] * np.sqrt(n / spread[spread > 0])
    errors = max(float(np.quantile(off, confidence)), z_value(confidence) * math.sqrt(n / (n - 1)))
    half = errors * math.sqrt((n * sum(value * value for value in values) - total * total) / n) / n
    return (total / n - half) / scale, (total / n + half) / scale


def sign_flip(differences: Sequence[int]) -> float:
    """Two-sided p that the differences are symmetric around 0; the observed signs count as one resample."""
    import numpy as np

    if not any(differences):
        return 1.0
    d = np.asarray(differences, dtype=np.float64)
    extreme = np.abs(signs(len(d)) @ d) >= abs(sum(differences))
    return (1 + int(extreme.sum())) / (RESAMPLES + 1)
