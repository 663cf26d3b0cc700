from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.gating.floors import Verdict, at_least, better, no_worse, within
from harness.gating.statistics import compare
from tests.gating.scores import build, flips


@pytest.mark.parametrize(
    ("counts", "margin", "verdict"),
    [
        ((300, 0, 0, 200), 0.0, Verdict.PASS),  # identical: passes even without a margin
        ((300, 5, 5, 190), 0.02, Verdict.PASS),  # interval well inside
        ((300, 30, 5, 165), 0.0, Verdict.PASS),  # a real gain
        ((200, 2, 60, 238), 0.02, Verdict.FAIL),  # the whole interval is below
        ((300, 6, 22, 172), 0.02, Verdict.FAIL),  # real, and estimated at 3.2 points, though the interval crosses -2
        ((300, 20, 24, 156), 0.02, Verdict.INCONCLUSIVE),  # noise
        ((300, 20, 34, 146), 0.02, Verdict.INCONCLUSIVE),  # estimate over the margin, but may be chance
        ((300, 1, 8, 191), 0.02, Verdict.INCONCLUSIVE),  # a real loss, but estimated within the margin
    ],
)
def test_no_worse(counts, margin, verdict):
    outcome = no_worse(margin).verdict(*flips(*counts))
    assert outcome.verdict is verdict, outcome
    assert outcome.comparison is not None
    assert outcome.comparison.n == sum(counts)


def test_no_worse_does_not_round():
    score, baseline = flips(300, 20, 24, 156)
    low = no_worse(0.02).verdict(score, baseline).comparison.low
    assert no_worse(-low).verdict(score, baseline).verdict is Verdict.PASS
    assert no_worse(-low - 1e-9).verdict(score, baseline).verdict is Verdict.INCONCLUSIVE


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_wider_margin_is_never_harder(gained, lost, one, other):
    order = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2}
    pair = flips(100, gained, lost, 50)
    narrow, wide = (no_worse(margin).verdict(*pair).verdict for margin in sorted((one, other)))
    assert order[narrow] <= order[wide]


def test_at_least_needs_no_baseline():
    score, _ = flips(300, 0, 0, 200)  # 60 points, Wilson 55.6 to 64.2
    assert at_least(0.55).verdict(score).verdict is Verdict.PASS
    assert at_least(0.60).verdict(score).verdict is Verdict.INCONCLUSIVE
    assert at_least(0.65).verdict(score).verdict is Verdict.FAIL
    assert at_least(0.55).verdict(score).comparison is None
    assert at_least(0.55).verdict(score, score).comparison.identical
    assert at_least(0.55).verdict(score, build([1.0])).verdict is Verdict.PASS


def test_within_scales_the_margin_with_the_baseline():
    pair = flips(300, 20, 24, 156)  # lower bound -3.4 points of a baseline of 64.8
    assert within(6).verdict(*pair).verdict is Verdict.PASS
    assert within(5).verdict(*pair).verdict is Verdict.INCONCLUSIVE


def test_better():
    assert better().verdict(*flips(300, 30, 5, 165)).verdict is Verdict.PASS
    assert better(0.05).verdict(*flips(300, 30, 5, 165)).verdict is Verdict.INCONCLUSIVE
    assert better().verdict(*flips(300, 5, 30, 165)).verdict is Verdict.FAIL
    assert better().verdict(*flips(300, 0, 0, 200)).verdict is Verdict.FAIL


def test_without_a_counterpart():
    score, _ = flips(1, 1, 1, 1)
    assert no_worse(0.01).verdict(score, None).verdict is Verdict.NEW
    assert no_worse(0.01).verdict(None, score).verdict is Verdict.MISSING
    assert at_least(0.01).verdict(None).verdict is Verdict.MISSING


def test_incomparable_names_the_field():
    score, baseline = build([1.0, 0.0]), build([1.0, 0.0], fingerprint={"task": "0"})
    outcome = no_worse(0.01).verdict(score, baseline)
    assert outcome.verdict is Verdict.INCOMPARABLE
    assert outcome.comparison is None
    assert "task (1 here, 0 in the baseline)" in outcome.reason
    assert no_worse(0.01).verdict(score, build([1.0])).verdict is Verdict.INCOMPARABLE
    assert at_least(0.5).verdict(build([])).verdict is Verdict.INCOMPARABLE


@pytest.mark.parametrize("make", [no_worse, at_least, better])
@pytest.mark.parametrize("bad", [2, -0.1, float("nan"), float("inf")])
def test_a_margin_in_points_is_refused(make, bad):
    with pytest.raises(LayerswapError, match=r"two points are 0\.02"):
        make(bad)


def test_within_refuses_what_is_no_percentage():
    with pytest.raises(LayerswapError, match="percentage"):
        within(float("nan"))


def test_verdicts_are_plain_strings():
    assert Verdict("PASS") is Verdict.PASS
    assert str(Verdict.FAIL) == f"{Verdict.FAIL}" == "FAIL"
    assert Verdict.FAIL == "FAIL"


# -- metrics of which less is better ---------------------------------------------------------------------------


def mirrored(score: Score) -> Score:
    """The same result as a share of errors."""
    return replace(score, values=tuple(1 - value for value in score.values), higher_is_better=False)


@given(
    st.sampled_from([no_worse, better]),
    st.integers(0, 60),
    st.integers(0, 60),
    st.floats(0, 0.2),
)
def test_a_floor_gives_errors_the_verdict_that_it_gives_successes(make, gained, lost, margin):
    score, baseline = flips(100, gained, lost, 50)
    successes = make(margin).verdict(score, baseline)
    errors = make(margin).verdict(mirrored(score), mirrored(baseline))
    assert errors.verdict is successes.verdict
    # What is shown stays value minus baseline: errors that rose have a positive difference.
    assert errors.comparison.difference == -successes.comparison.difference


def test_an_absolute_floor_on_errors_is_a_ceiling():
    score, _ = flips(200, 0, 0, 300)  # 40 points of successes, so 60 of errors, Wilson 55.6 to 64.2
    assert at_least(0.65).verdict(mirrored(score)).verdict is Verdict.PASS
    assert at_least(0.60).verdict(mirrored(score)).verdict is Verdict.INCONCLUSIVE
    outcome = at_least(0.55).verdict(mirrored(score))
    assert (outcome.verdict, outcome.floor_text) == (Verdict.FAIL, "at most 55 points")


def test_within_of_errors_takes_its_margin_from_the_baselines_errors():
    # Errors rise from 40 to 44 points of 500: with a margin of 60 % of 40 it passes, of 2 % it fails.
    score, baseline = (mirrored(s) for s in flips(280, 0, 20, 200))
    assert within(60).verdict(score, baseline).verdict is Verdict.PASS
    assert within(2).verdict(score, baseline).verdict is Verdict.FAIL
    assert within(2).verdict(baseline, score).verdict is Verdict.PASS


def test_the_words_for_errors_point_the_other_way():
    score, baseline = (mirrored(s) for s in flips(200, 2, 60, 238))
    outcome = no_worse(0.02).verdict(score, baseline)
    assert outcome.floor_text == "no more than 2 points above the baseline"
    assert outcome.reason.startswith("the whole interval [+8.")
    assert outcome.reason.endswith("lies above +2.00 points")
    outcome = better(0.02).verdict(baseline, score)
    assert outcome.floor_text == "more than 2 points below the baseline"
    assert outcome.reason.endswith("lies below -2.00 points")
    assert no_worse(0.02).verdict(None, baseline).floor_text == "no more than 2 points above the baseline"
    assert within(5).describe(False) == "no more than 5 % of its value above the baseline"


def test_a_metric_that_changed_its_direction_is_not_comparable():
    score, baseline = flips(10, 1, 1, 1)
    outcome = no_worse(0.02).verdict(score, replace(baseline, higher_is_better=False))
    assert outcome.verdict is Verdict.INCOMPARABLE
    assert "higher_is_better (True here, False in the baseline)" in outcome.reason


def test_a_comparison_made_before_gets_the_same_verdict():
    score, baseline = flips(300, 6, 22, 172)
    outcome = no_worse(0.02).verdict(score, baseline)
    assert no_worse(0.02).judge(compare(score, baseline)) == (outcome.verdict, outcome.reason)
    with pytest.raises(ValueError, match="use verdict"):
        at_least(0.5).judge(compare(score, baseline))
