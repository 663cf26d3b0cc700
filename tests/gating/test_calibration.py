"""Whether verdicts are wrong as seldom as they say, where the truth is known. All of it: benchmarks/calibration.py."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import (
    DISCORDANCES,
    SIZES,
    Outcomes,
    covered,
    every_outcome,
    found,
    graded,
    graded_differences,
    graded_intervals,
    rejected,
    simulated,
    verdicts,
    wilson_covered,
)
from harness.evaluation.scores import Score
from harness.gating.floors import Verdict, no_worse
from harness.gating.pairing import RESOLUTION
from harness.gating.power import detectable_drop, mcnemar_power
from harness.gating.statistics import compare

TRIALS = 10_000
GRADED_TRIALS = 1_000  # of 4,999 resamples each; the table in docs/gating.md has 10,000
ALPHA = 0.05
settings = pytest.mark.parametrize("discordance", DISCORDANCES)
sizes = pytest.mark.parametrize("n", SIZES)


def no_more_than(level: float, trials: int) -> float:
    return level + 2 * (level * (1 - level) / trials) ** 0.5


@sizes
@settings
def test_equal_models_are_told_apart_no_more_often_than_promised(n, discordance):
    runs = simulated(n, discordance, 0.0, TRIALS)
    assert rejected(runs) <= no_more_than(ALPHA, TRIALS)
    # A floor fails on the interval's upper bound: one-sided, half of alpha.
    assert verdicts(runs)[Verdict.FAIL] <= no_more_than(ALPHA / 2, TRIALS)


@sizes
@settings
def test_a_case_worse_by_the_margin_passes_no_more_often_than_promised(n, discordance):
    runs = simulated(n, discordance, 0.02, TRIALS)
    assert verdicts(runs)[Verdict.PASS] <= no_more_than(ALPHA / 2, TRIALS)


@sizes
@settings
def test_the_drop_that_is_called_detectable_is_found(n, discordance):
    drop = detectable_drop(n, discordance)
    runs = simulated(n, max(discordance, drop), drop, TRIALS)
    assert found(runs) >= 0.78
    assert found(runs) == pytest.approx(mcnemar_power(n, discordance, drop), abs=0.013)  # three standard errors


@pytest.mark.parametrize(("n", "discordance"), [(200, 0.05), (200, 0.1), (200, 0.3), (500, 0.1), (1319, 0.02)])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_tangos_interval_covers_exactly(n, discordance, share):
    outcomes = every_outcome(n, discordance, share * discordance)
    assert sum(outcomes.weights) == pytest.approx(1, abs=1e-6)
    assert 0.94 <= covered(outcomes, -share * discordance) <= 0.96


@sizes
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_wilsons_interval_covers_exactly(n, share):
    assert 0.94 <= wilson_covered(n, share) <= 0.96


@pytest.mark.parametrize("shape", ["as often better as worse", "mostly worse", "worse only"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_graded_scores_are_calibrated(share, shape):
    coverage, rejections = graded(200, share, shape, GRADED_TRIALS)
    error = 2 * (0.95 * 0.05 / GRADED_TRIALS) ** 0.5
    assert 0.94 - error <= coverage <= 0.96 + error
    if shape == "as often better as worse":  # the only one of equal models
        assert rejections <= no_more_than(ALPHA, GRADED_TRIALS)


def test_few_graded_differences_widen_the_interval_rather_than_narrow_it():
    coverage, rejections = graded(200, 0.05, "as often better as worse", GRADED_TRIALS)
    assert coverage >= 0.95
    assert rejections <= no_more_than(ALPHA, GRADED_TRIALS)


def as_scores(differences: np.ndarray) -> tuple[Score, Score]:
    documents = tuple(f"d{i:04}" for i in range(len(differences)))
    base = (0.5,) * len(differences)
    now = tuple(0.5 + d / RESOLUTION for d in np.clip(differences, -0.5 * RESOLUTION, 0.5 * RESOLUTION))
    return tuple(Score("flores", "flores sw-en", "chrf", True, documents, values, {}) for values in (now, base))


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_what_is_simulated_is_what_decides(share):
    differences, _ = graded_differences(200, share, "mostly worse", 20)
    low, high = graded_intervals(differences)
    for number, column in enumerate(differences.T):
        c = compare(*as_scores(column))
        assert (c.low, c.high) == pytest.approx((low[number], high[number]), abs=2e-6)


def test_verdicts_of_counts_are_those_of_scores():
    documents = tuple(f"d{i:04}" for i in range(200))
    for gained, lost, weight in simulated(200, 0.1, 0.02, 60):
        now = (1.0,) * gained + (0.0,) * lost + (1.0,) * (200 - gained - lost)
        base = (0.0,) * gained + (1.0,) * lost + (1.0,) * (200 - gained - lost)
        scores = [Score("mgsm", "mgsm sw", "exact_match", False, documents, values, {}) for values in (now, base)]
        often = verdicts(Outcomes(200, [gained], [lost], [weight]))
        assert often[no_worse(0.02).verdict(*scores).verdict] == weight
