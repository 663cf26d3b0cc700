from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from harness.gating.power import (
    _critical,
    column_detectable,
    detectable,
    detectable_drop,
    detectable_mean,
    mcnemar_power,
)
from harness.gating.statistics import Comparison, mcnemar


def comparison(n=500, gained=10, lost=20, sd=0.1) -> Comparison:
    difference = (gained - lost) / n
    return Comparison(n, 0.5, 0.5 - difference, difference, -0.1, 0.1, 0.5, "any", gained, lost, sd=sd)


def power_by_brute_force(n: int, discordance: float, drop: float) -> float:
    """Every outcome by itself, its p from the test that decides."""
    differing = max(discordance, drop)
    share_lost = (1 + drop / differing) / 2
    return sum(
        binom.pmf(d, n, differing) * binom.pmf(lost, d, share_lost)
        for d in range(n + 1)
        for lost in range(d // 2 + 1, d + 1)
        if mcnemar(d - lost, lost) < 0.05
    )


@pytest.mark.parametrize(("n", "discordance", "drop"), [(40, 0.3, 0.1), (60, 0.1, 0.1), (60, 0.05, 0.15), (7, 1, 1)])
def test_the_power_is_that_of_every_outcome_by_itself(n, discordance, drop):
    assert mcnemar_power(n, discordance, drop) == pytest.approx(power_by_brute_force(n, discordance, drop), abs=1e-10)


def test_the_critical_count_is_where_the_deciding_test_rejects():
    for d, count in enumerate(_critical(600, 0.05).tolist()):
        assert mcnemar(d - count, count) < 0.05 if count <= d else mcnemar(0, d) >= 0.05
        assert mcnemar(d - count + 1, count - 1) >= 0.05


@pytest.mark.parametrize("d", [5_000, 20_000])
def test_the_critical_count_of_thousands_of_documents(d):
    count = int(_critical(20_000, 0.05)[d])
    assert 2 * binom.sf(count - 1, d, 0.5) < 0.05 <= 2 * binom.sf(count - 2, d, 0.5)


@given(st.integers(6, 400), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_drop_is_the_smallest_that_is_found(n, discordance):
    drop = detectable_drop(n, discordance)
    assert mcnemar_power(n, discordance, drop) >= 0.8
    assert mcnemar_power(n, discordance, drop - 2e-6) < 0.8


def test_more_documents_see_more_and_noise_hides_more():
    by_n = [detectable_drop(n, 0.1) for n in (50, 200, 500, 1319, 5000, 20_000)]
    assert by_n == sorted(by_n, reverse=True)
    by_noise = [detectable_drop(500, share) for share in (0.0, 0.05, 0.1, 0.3, 1.0)]
    assert by_noise == sorted(by_noise)
    # With thousands of documents the exact test is hardly conservative, and the asymptotic formula is near.
    asymptotic = (norm.isf(0.025) + norm.isf(0.2)) * (0.1 / 20_000) ** 0.5
    assert by_n[-1] == pytest.approx(asymptotic, rel=0.02)


def test_six_losses_are_the_fewest_that_can_be_found():
    assert detectable_drop(5, 0.1) is None
    assert detectable_drop(0, 0.1) is None
    # Of six documents all must be lost: the sixth root of 0.8.
    assert detectable_drop(6, 0.0) == pytest.approx(0.8 ** (1 / 6), abs=1e-6)
    # Without other noise, a drop is found once six documents are lost.
    assert binom.sf(5, 500, detectable_drop(500, 0.0)) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("arguments", [(-1, 0.1), (10, 1.1), (10, 0.1, 1.0), (10, 0.1, 0.8, 0.0)])
def test_what_is_no_share_is_refused(arguments):
    with pytest.raises(ValueError, match="expected shares"):
        detectable_drop(*arguments)


def test_a_table_of_ten_columns_is_fast():
    detectable_drop.cache_clear()
    started = time.perf_counter()
    for n in range(500, 510):
        detectable_drop(n, 0.1)
    detectable_drop(20_000, 0.1)
    assert time.perf_counter() - started < 1  # about 0.05 s; the margin is for busy machines


def test_graded_scores_by_the_normal_approximation():
    assert detectable_mean(400, 0.2) == pytest.approx((norm.isf(0.025) + norm.isf(0.2)) * 0.01)
    assert detectable(comparison(n=400, sd=0.2), graded=True) == detectable_mean(400, 0.2)
    assert detectable(comparison(sd=0.0), graded=True) is None
    rng = np.random.default_rng(5)
    drop = detectable_mean(400, 0.2)
    means, sds = (f(rng.normal(-drop, 0.2, (4000, 400)), axis=1) for f in (np.mean, np.std))
    assert np.mean(means / (sds / 20) < norm.ppf(0.025)) == pytest.approx(0.8, abs=0.02)


def test_right_or_wrong_scores_by_their_own_share_of_differing_documents():
    assert detectable(comparison(500, 10, 20), graded=False) == detectable_drop(500, 0.06)
    assert detectable(comparison(5, 1, 1), graded=False) is None


def test_a_column_goes_by_its_median_case_and_leaves_out_identical_ones():
    cases = [comparison(500, 0, 0, 0.0), comparison(500, 5, 5, 0.1), comparison(500, 20, 30, 0.2)]
    cases += [comparison(500, 0, 0, 0.0), comparison(500, 90, 60, 0.4)]
    assert column_detectable(cases, graded=False) == detectable_drop(500, 0.1)
    assert column_detectable(cases, graded=True) == detectable_mean(500, 0.2)
    assert column_detectable(cases[:1], graded=False) == detectable_drop(500, 0.0)
    assert column_detectable(cases[:1], graded=True) is None
    assert column_detectable([], graded=False) is None
    assert column_detectable([comparison(500, 5, 5), comparison(100, 1, 1)], graded=False) == detectable_drop(100, 0.02)
