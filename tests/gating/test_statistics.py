from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.gating.pairing import RESOLUTION, IncomparableError, pair
from harness.gating.resampling import bootstrap, draws
from harness.gating.statistics import compare, interval, mcnemar, tango, wilson


def score(values, documents=None, graded=False, **other) -> Score:
    documents = documents if documents is not None else [f"d{i:05}" for i in range(len(values))]
    fields = {"benchmark": "mgsm", "column": "mgsm sw", "metric": "exact_match", "fingerprint": {"task": "1"}}
    return Score(graded=graded, documents=tuple(documents), values=tuple(map(float, values)), **(fields | other))


# -- published values ------------------------------------------------------------------------------------------


def test_tango_equals_published_intervals():
    # Bentur et al. 2009 as analysed by Fagerland, Lydersen and Laake (2014): 1 gained, 7 lost of 21.
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    # Tango (1998), soft contact lenses: 0 gained, 1 lost of 44, 90 %.
    assert tango(0, 1, 44, 0.90) == pytest.approx((-0.096, 0.037), abs=5e-4)


def test_tango_without_a_discordant_pair_is_closed_form():
    z2 = 1.959963984540054**2
    assert tango(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))


def test_tango_when_all_differ():
    low, high = tango(20, 0, 20)
    assert high == 1.0
    assert 0.6 < low < 1.0


def test_mcnemar_by_hand():
    assert mcnemar(1, 7) == 2 * (1 + 8) / 2**8
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 3) == 0.25


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_the_exact_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_thousands_of_documents():
    assert 0 < mcnemar(3000, 3200) < 0.02


def test_wilson_equals_published_intervals():
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


# -- intervals and tests behave --------------------------------------------------------------------------------


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_tango_holds_the_estimate_and_is_symmetric(counts):
    n, gained, lost = counts
    lost = min(lost, n - gained)
    low, high = tango(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert tango(lost, gained, n) == pytest.approx((-high, -low))


def test_identical_graded_scores_have_an_interval_without_width():
    same = score([0.25, 0.5, 0.125], graded=True)
    c = compare(same, same)
    assert (c.difference, c.low, c.high, c.p, c.identical) == (0.0, 0.0, 0.0, 1.0, True)


def test_a_constant_graded_loss_is_guarded():
    c = compare(score([0.4] * 50, graded=True), score([0.5] * 50, graded=True))
    assert (c.difference, c.low, c.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert c.p == pytest.approx(1 / 5000)


def test_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.6, 400)
    now = base + rng.normal(0.01, 0.1, 400)
    c = compare(score(now.clip(0, 1), graded=True), score(base, graded=True))
    d = now - base
    half = 1.96 * d.std(ddof=1) / 20
    assert (c.low, c.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.0015)


def test_graded_noise_below_the_resolution_is_no_difference():
    base = [0.1 + 0.001 * i for i in range(100)]
    assert compare(score([v + 1e-12 for v in base], graded=True), score(base, graded=True)).identical


def test_values_of_the_comparison():
    c = compare(score([1, 1, 0, 0]), score([1, 0, 1, 1]))
    assert (c.n, c.value, c.baseline, c.difference, c.gained, c.lost) == (4, 0.5, 0.75, -0.25, 1, 2)
    assert "McNemar" in c.method
    assert "Tango" in c.method


@pytest.mark.parametrize("graded", [False, True])
def test_reversed_is_the_comparison_the_other_way_round(graded):
    a, b = score([1, 1, 0, 0, 1], graded=graded), score([1, 0, 1, 1, 1], graded=graded)
    forth, back = compare(a, b).reversed, compare(b, a)
    assert (forth.low, forth.high) == pytest.approx((back.low, back.high), abs=2e-3 if graded else 1e-12)
    assert (forth.value, forth.difference, forth.p, forth.gained) == (back.value, back.difference, back.p, back.gained)


def test_interval_of_one_score():
    assert interval(score([1] * 81 + [0] * 182)) == pytest.approx(wilson(81, 263))
    assert interval(score([0.5] * 9, graded=True)) == (0.5, 0.5)


# -- pairing ---------------------------------------------------------------------------------------------------

pairs = st.lists(
    st.tuples(st.text(max_size=6), st.integers(0, 1), st.integers(0, 1)),
    min_size=1,
    max_size=40,
    unique_by=lambda t: t[0],
)


@given(pairs, st.randoms(use_true_random=False))
def test_documents_are_matched_whatever_their_order(rows, rng: random.Random):
    ours, theirs = list(rows), list(rows)
    rng.shuffle(ours)
    rng.shuffle(theirs)
    a = score([r[1] for r in ours], [r[0] for r in ours])
    b = score([r[2] for r in theirs], [r[0] for r in theirs])
    paired = pair(a, b)
    assert list(zip(paired.documents, paired.values, paired.baseline, strict=True)) == sorted(rows)
    assert [a.documents[i] for i in paired.positions] == [b.documents[i] for i in paired.baseline_positions]


@given(pairs, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_comparison_does_not_depend_on_order(rows, rng: random.Random, graded):
    shuffled = list(rows)
    rng.shuffle(shuffled)

    def build(rows, column):
        return score([r[column] for r in rows], [r[0] for r in rows], graded=graded)

    assert compare(build(rows, 1), build(rows, 2)) == compare(build(shuffled, 1), build(rows, 2))


def test_a_repeated_document_is_matched_occurrence_by_occurrence():
    paired = pair(score([1, 0, 0], ["a", "b", "a"]), score([1, 0, 1], ["b", "a", "a"]))
    assert paired.values == (1, 0, 0)
    assert paired.baseline == (0, 1, 1)


def test_other_documents_are_counted_on_each_side():
    with pytest.raises(IncomparableError, match=r"3 here, 2 there.*2 only here, 1 only in the baseline") as error:
        pair(score([1, 1, 1], "abc"), score([1, 1], "ax"))
    assert error.value.fields == ("documents",)


def test_an_extra_repeat_is_another_document_set():
    with pytest.raises(IncomparableError):
        pair(score([1, 1], "aa"), score([1], "a"))


def test_differing_fields_are_named_with_both_sides():
    with pytest.raises(IncomparableError, match=r"task \(2 here, 1 in the baseline\)") as error:
        pair(score([1], fingerprint={"task": "2", "dtype": "float32"}), score([1]))
    assert error.value.fields == ("task", "dtype")


def test_no_documents_are_not_comparable():
    with pytest.raises(IncomparableError, match="no documents"):
        compare(score([]), score([]))


@pytest.mark.parametrize(("value", "graded"), [(0.5, False), (1.5, True), (-0.1, True), (float("nan"), True)])
def test_values_outside_their_range_are_refused(value, graded):
    with pytest.raises(LayerswapError, match="expected 0"):
        compare(score([value], graded=graded), score([1], graded=graded))


def test_a_single_graded_change_is_no_narrower_than_the_normal_interval():
    n = 200
    c = compare(score([0.4] + [0.5] * (n - 1), graded=True), score([0.5] * n, graded=True))
    half = 1.959963984540054 * c.sd / n**0.5
    assert (c.low, c.high) == pytest.approx((c.difference - half, c.difference + half))
    assert c.low < 0 < c.high


def test_the_graded_interval_is_the_studentised_bootstraps():
    rng = np.random.default_rng(6)
    differences = np.rint(rng.exponential(0.05, 40) * RESOLUTION).astype(int).tolist()
    rows = [np.repeat(differences, counts.astype(int)) for counts in draws(40)]
    mean, error = np.mean(differences), np.std(differences) / 40**0.5
    off = [abs(row.mean() - mean) / (row.std() / 40**0.5) for row in rows]
    half = np.quantile(off, 0.95) * error
    assert half > 2.1 * error  # skewed: wider than the normal interval
    expected = ((mean - half) / RESOLUTION, (mean + half) / RESOLUTION)
    assert bootstrap(differences, RESOLUTION, 0.95) == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(-RESOLUTION, RESOLUTION), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_graded_interval_holds_the_estimate_and_is_symmetric(values):
    low, high = bootstrap(values, RESOLUTION, 0.95)
    mean = sum(values) / len(values) / RESOLUTION
    assert low - 1e-12 <= mean <= high + 1e-12
    assert bootstrap([-v for v in values], RESOLUTION, 0.95) == pytest.approx((-high, -low), abs=1e-6)


def test_intervals_stay_within_what_is_possible():
    c = compare(score([1.0, 0.9, 1.0], graded=True), score([0.0, 0.2, 0.0], graded=True))
    assert (c.high, interval(score([1.0, 0.1, 1.0], graded=True))[1]) == (1.0, 1.0)


def test_floors_import_nothing_heavy():
    code = (
        "import sys, harness.gating.floors, harness.gating.baselines;"
        "print([m for m in ('numpy', 'scipy', 'pandas', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
