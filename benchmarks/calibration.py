"""How often the verdicts are wrong when the truth is known: prints the tables of docs/gating.md, section "Calibration".

Right/wrong figures are exact, summed over all outcomes that are not too rare to matter; graded ones are simulated.
Run it as ``python -m benchmarks.calibration``: a few minutes on one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from harness.gating import resampling, statistics
from harness.gating.floors import Verdict, no_worse
from harness.gating.pairing import RESOLUTION
from harness.gating.power import detectable_drop
from harness.gating.statistics import Comparison, mcnemar, wilson

SIZES = (200, 500, 1319)
DISCORDANCES = (0.02, 0.05, 0.1, 0.3)
MARGIN = 0.02
GRADED_TRIALS = {200: 10_000, 500: 2_000, 1319: 2_000}  # of 4,999 resamples each
SHAPES = {
    "as often better as worse": (lambda rng, shape: rng.laplace(0, 0.1, shape), 0.0),
    "mostly worse": (lambda rng, shape: rng.normal(-0.05, 0.1, shape), -0.05),
    "worse only": (lambda rng, shape: -rng.exponential(0.1, shape), -0.1),
}
tango = lru_cache(maxsize=None)(statistics.tango)


@dataclass(frozen=True)
class Outcomes:
    """Counts of documents gained and lost, and the weight of each pair of counts; the weights sum to 1."""

    n: int
    gained: list[int]
    lost: list[int]
    weights: list[float]

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        return zip(self.gained, self.lost, self.weights, strict=True)


def every_outcome(n: int, discordance: float, drop: float = 0.0) -> Outcomes:
    """All that can come of ``n`` documents, with its probability."""
    from scipy.stats import binom

    differing = np.arange(n + 1)
    likely = differing[binom.pmf(differing, n, discordance) > 1e-10]
    gained, lost, weights = [], [], []
    for d in likely.tolist():
        losses = np.arange(d + 1)
        mass = binom.pmf(d, n, discordance) * binom.pmf(losses, d, (1 + drop / discordance) / 2)
        kept = losses[mass > 1e-12]
        lost += kept.tolist()
        gained += (d - kept).tolist()
        weights += mass[kept].tolist()
    return Outcomes(n, gained, lost, weights)


def simulated(n: int, discordance: float, drop: float, trials: int, seed: int = 0) -> Outcomes:
    """What came of ``trials`` simulated runs: equal ones are counted once, so that each is judged once."""
    shares = [(discordance - drop) / 2, (discordance + drop) / 2, 1 - discordance]
    draws = np.random.default_rng(seed).multinomial(n, shares, size=trials)
    counts, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    return Outcomes(n, counts[:, 0].tolist(), counts[:, 1].tolist(), (times / trials).tolist())


def rejected(outcomes: Outcomes) -> float:
    """How often exact McNemar finds a difference."""
    return sum(w for gained, lost, w in outcomes if mcnemar(gained, lost) < 0.05)


def found(outcomes: Outcomes) -> float:
    """How often exact McNemar finds a loss."""
    return sum(w for gained, lost, w in outcomes if lost > gained and mcnemar(gained, lost) < 0.05)


def covered(outcomes: Outcomes, difference: float) -> float:
    """How often Tango's interval holds the true difference."""
    intervals = ((tango(gained, lost, outcomes.n), w) for gained, lost, w in outcomes)
    return sum(w for (low, high), w in intervals if low <= difference <= high)


def verdicts(outcomes: Outcomes, margin: float = MARGIN) -> dict[Verdict, float]:
    """How often ``no_worse(margin)`` gives each verdict."""
    floor, n, often = no_worse(margin), outcomes.n, dict.fromkeys(Verdict, 0.0)
    for gained, lost, w in outcomes:
        low, high = tango(gained, lost, n)
        difference = (gained - lost) / n
        p = mcnemar(gained, lost)
        verdict, _ = floor.judge(Comparison(n, 0.5 + difference, 0.5, difference, low, high, p, "", gained, lost))
        often[verdict] += w
    return often


def wilson_covered(n: int, share: float) -> float:
    """How often Wilson's interval holds the true share, exactly."""
    from scipy.stats import binom

    inside = [low <= share <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    return float(binom.pmf(np.arange(n + 1), n, share)[inside].sum())


def graded_differences(n: int, share: float, shape: str, trials: int, seed: int = 0) -> tuple[Any, float]:
    """[n, trials] differences in whole units, of which ``share`` are not 0, and their true mean as a share of one."""
    rng = np.random.default_rng(seed)
    draw, mean = SHAPES[shape]
    differs = rng.random((n, trials)) < share
    return np.rint(np.where(differs, draw(rng, (n, trials)), 0.0) * RESOLUTION), mean * share


def graded_intervals(differences: Any) -> tuple[Any, Any]:
    """The bounds that :func:`harness.gating.statistics.compare` gives each column, for thousands of them at once."""
    n = len(differences)
    mean = differences.mean(axis=0)
    centred = differences - mean
    draws = resampling.draws(n)
    sums, squares = draws @ centred, draws @ (centred * centred)
    spread = n * squares - sums * sums
    usable = spread > 1e-6 * n * squares.max(axis=0)
    off = np.where(usable, np.abs(sums) * np.sqrt(n / np.where(usable, spread, 1.0)), np.nan)
    z = resampling.z_value(0.95)
    every = usable.all(axis=0)
    errors = np.zeros(differences.shape[1])
    errors[every] = np.quantile(off[:, every], 0.95, axis=0)
    for column in np.flatnonzero(~every & (differences.std(axis=0) > 0)):
        errors[column] = np.nanquantile(off[:, column], 0.95)
    half = np.maximum(errors, z * math.sqrt(n / (n - 1))) * differences.std(axis=0) / math.sqrt(n)
    return (mean - half) / RESOLUTION, (mean + half) / RESOLUTION


def graded_rejected(differences: Any) -> float:
    """How often the sign-flip permutation test finds a difference."""
    extreme = np.abs(resampling.signs(len(differences)) @ differences) >= np.abs(differences.sum(axis=0))
    return float(np.mean((1 + extreme.sum(axis=0)) / (resampling.RESAMPLES + 1) < 0.05))


def graded(n: int, share: float, shape: str, trials: int, chunk: int = 500) -> tuple[float, float]:
    """Coverage of the graded interval, and rejections of the permutation test (nan where the models are not equal)."""
    inside, rejections = [], []
    for seed in range(trials // chunk):
        differences, mean = graded_differences(n, share, shape, chunk, seed)
        low, high = graded_intervals(differences)
        inside.append(np.mean((low <= mean) & (mean <= high)))
        rejections.append(graded_rejected(differences) if mean == 0 else math.nan)
    return float(np.mean(inside)), float(np.mean(rejections))


def _row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def main() -> None:
    """Print every table as Markdown, in percent."""
    header = ("n", "discordance", "McNemar rejects", "`no_worse(0.02)` FAIL", "PASS", "PASS if 2 points worse")
    _row(*header, "detectable drop", "found")
    _row(*["--:"] * 8)
    for n in SIZES:
        for discordance in DISCORDANCES:
            equal, worse = every_outcome(n, discordance), every_outcome(n, discordance, MARGIN)
            often, drop = verdicts(equal), detectable_drop(n, discordance) or math.nan
            loss = found(every_outcome(n, max(discordance, drop), drop))
            figures = [rejected(equal), often[Verdict.FAIL], often[Verdict.PASS], verdicts(worse)[Verdict.PASS]]
            _row(n, discordance, *map(_percent, [*figures, drop, loss]))
    print()
    shares = {"equal": 0.0, "drop of a quarter": 0.25, "of half": 0.5, "of three quarters": 0.75}
    _row("n", "discordance", *shares)
    _row(*["--:"] * 6)
    for n in SIZES:
        for d in DISCORDANCES:
            _row(n, d, *(_percent(covered(every_outcome(n, d, share * d), -share * d)) for share in shares.values()))
    print()
    levels = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)
    _row("n", *levels)
    _row(*["--:"] * 9)
    for n in SIZES:
        _row(n, *(_percent(wilson_covered(n, level)) for level in levels))
    print()
    _row("n", "documents that differ", *SHAPES, "permutation test rejects equals")
    _row(*["--:"] * 6)
    for n in SIZES:
        for share in (0.05, 0.1, 0.3, 1.0):
            results = [graded(n, share, shape, GRADED_TRIALS[n]) for shape in SHAPES]
            _row(n, f"{100 * share:g} %", *(_percent(c) for c, _ in results), _percent(results[0][1]))


if __name__ == "__main__":
    main()
