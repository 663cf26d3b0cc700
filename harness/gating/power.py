"""What a run can see: the smallest true drop that its tests would find four times out of five.

A comparison that finds nothing says little if only a collapse could have been found. Exact for right/wrong scores, as
their test is; by the normal approximation for graded ones. numpy is imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, median
from typing import Any

from harness.gating.statistics import Comparison

POWER = 0.8
ALPHA = 0.05


@lru_cache(maxsize=256)
def detectable_drop(n: int, discordance: float, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """The smallest true drop, a share of one, that exact McNemar finds with ``power`` on ``n`` right/wrong documents.

    A document differs between the two models with probability ``discordance``, or by as much as the drop if that is
    more. Found means a two-sided p under ``alpha`` with more documents lost than gained. None if losing every
    document would not be found (fewer than 6 at 5 %). The power is summed over all outcomes, without approximation:
    the asymptotic formula (R. S. Connor, Biometrics 43 (1987), 207-211) promises the conservative exact test too much.

    Raises :class:`ValueError` for shares outside their range.
    """
    if n < 0 or not 0 <= discordance <= 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"n={n}, discordance={discordance}, power={power}, alpha={alpha}: expected shares of one")
    low, high = 0.0, 1.0
    if mcnemar_power(n, discordance, high, alpha) < power:
        return None
    # More of the documents that differ are lost, the larger the drop: power rises with it.
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if mcnemar_power(n, discordance, middle, alpha) >= power else (middle, high)
    return high


def mcnemar_power(n: int, discordance: float, drop: float, alpha: float = ALPHA) -> float:
    """The chance that exact McNemar finds a true ``drop``: see :func:`detectable_drop`.

    Exact but for rounding: the number of documents that differ is binomial, and given it so is the number lost.
    """
    import numpy as np

    differing = max(discordance, drop)
    if n < 1 or differing == 0:
        return 0.0
    size = 1 << n.bit_length()  # columns of much the same size share their tables
    logs = _log_factorials(size)
    share_lost = (1 + drop / differing) / 2

    def mass(successes: Any, trials: Any, p: float) -> Any:
        """Binomial probabilities; 0 where there cannot be that many successes."""
        failures = trials - successes
        inside = (successes >= 0) & (failures >= 0)
        s, f = np.where(inside, successes, 0), np.where(inside, failures, 0)
        log = logs[s + f] - logs[s] - logs[f] + s * math.log(p) + (f * math.log1p(-p) if p < 1 else 0.0)
        return np.exp(np.where(inside & ((p < 1) | (f == 0)), log, -np.inf))

    # Ten standard deviations of the number of documents that differ: what lies beyond is less than rounding.
    reach = 10 * math.sqrt(n * differing * (1 - differing)) + 10
    first, last = max(0, math.floor(n * differing - reach)), min(n, math.ceil(n * differing + reach))
    d, critical = np.arange(first, last + 1), _critical(size, alpha)[first : last + 1]
    # The chance of `critical` losses or more among d: summed for the first d; after that, one document more reaches
    # the same count from one below it, and where the critical count moves up, losing exactly the old one is too few.
    start = mass(np.arange(critical[0], first + 1), first, share_lost).sum()
    reached = share_lost * mass(critical[:-1] - 1, d[:-1], share_lost)
    short = np.where(np.diff(critical) > 0, mass(critical[:-1], d[1:], share_lost), 0.0)
    found = start + np.concatenate([[0.0], np.cumsum(reached - short)])
    return float(min(1.0, mass(d, n, differing) @ found))


def detectable_mean(n: int, sd: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """The same for graded scores, whose differences have the standard deviation ``sd``, by the normal approximation.

    Source: J. Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2.
    """
    quantile = NormalDist().inv_cdf
    return (quantile(1 - alpha / 2) + quantile(power)) * sd / math.sqrt(n)


def detectable(comparison: Comparison, graded: bool) -> float | None:
    """The smallest drop that a comparison such as this one would find with 80 % power: a share of one.

    None if there is none, or if the documents' differences do not vary, so that there is nothing to infer it from.
    """
    return column_detectable([comparison], graded)


def column_detectable(comparisons: Sequence[Comparison], graded: bool) -> float | None:
    """One figure for a column of a table: :func:`detectable` for the median share, or spread, of its differences.

    Comparisons without a difference are left out, unless all are; of unequal numbers of documents the smallest counts.
    None for no comparison.
    """
    differing = [c for c in comparisons if not c.identical] or list(comparisons)
    if not differing:
        return None
    n = min(c.n for c in differing)
    if not graded:
        return detectable_drop(n, median((c.gained + c.lost) / c.n for c in differing))
    sd = median(c.sd for c in differing)
    return detectable_mean(n, sd) if sd > 0 else None


@lru_cache(maxsize=16)
def _critical(n: int, alpha: float) -> Any:
    """[n + 1] the fewest losses among d differing documents whose two-sided p is under ``alpha``; d + 1 if none is."""
    import numpy as np

    critical = np.ones(n + 1, dtype=np.int64)
    count, tail = 1, 0.0  # the chance of `count` heads or more among d fair coins
    for d in range(1, n + 1):
        tail += _coins(d - 1, count - 1) / 2
        if 2 * tail >= alpha:
            tail -= _coins(d, count)
            count += 1
        critical[d] = count
    return critical


def _coins(coins: int, heads: int) -> float:
    """The chance of exactly ``heads`` heads."""
    ways = math.lgamma(coins + 1) - math.lgamma(heads + 1) - math.lgamma(coins - heads + 1)
    return math.exp(ways - coins * math.log(2))


@lru_cache(maxsize=16)
def _log_factorials(n: int) -> Any:
    import numpy as np

    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
