from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.evaluation.scores import Sample, Score
from harness.gating.floors import Verdict, at_least, better, failure_text, no_worse, within


def flips(both: int, gained: int, lost: int, neither: int) -> tuple[Score, Score]:
    """A score and its baseline with this many documents right in both, gained, lost, and right in neither."""
    ours = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    theirs = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    return build(ours), build(theirs)


def build(values, **other) -> Score:
    n = len(values)
    fields = {
        "benchmark": "mgsm",
        "column": "mgsm sw",
        "metric": "exact_match",
        "graded": False,
        "documents": tuple(f"d{i:04}" for i in range(n)),
        "fingerprint": {"task": "1"},
    }
    return Score(values=tuple(values), **(fields | other))


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


def with_samples(score: Score, answer: str) -> Score:
    samples = tuple(
        Sample(prompt=f"Examples.\n\nSwali: {'maneno ' * 40}mangapi {i}?\nJibu:", answer=f"{answer} {i}", target=str(i))
        for i in range(score.n)
    )
    return build(score.values, samples=samples)


def test_failure_text_is_a_short_readable_block():
    score, baseline = (with_samples(s, word) for s, word in zip(flips(200, 2, 60, 238), ("new", "old"), strict=True))
    text = failure_text(
        no_worse(0.02).verdict(score, baseline),
        score,
        baseline,
        case="transition/removed",
        command="pytest 'ablations/test_transition.py::test_transition[removed-mgsm]'",
        baseline_name="un-ablated",
    )
    lines = text.splitlines()
    assert len(lines) < 25
    assert max(map(len, lines)) < 200
    assert lines[0] == "FAIL: transition/removed on mgsm sw (exact_match)"
    assert lines[1].split() == ["this", "case", "40.40", "points"]
    assert lines[2].split() == ["un-ablated", "52.00", "points"]
    assert "-11.60 points, 95 % interval [" in lines[3]
    assert "n=500" in lines[3]
    assert "2 better, 60 worse" in lines[4]
    assert "no more than 2 points below the baseline" in text
    assert text.count("right to wrong") == 3
    assert "mangapi 202? Jibu:   (expected: 202)" in text
    assert "baseline   old 202" in text
    assert "this case  new 202" in text
    assert lines[-1].endswith("test_transition[removed-mgsm]'")


def test_failure_text_without_samples_names_documents():
    score, baseline = flips(200, 2, 60, 238)
    text = failure_text(no_worse(0.0).verdict(score, baseline), score, baseline, case="c", command="pytest")
    assert "right to wrong: document d0202" in text
    half = failure_text(
        no_worse(0.0).verdict(score, baseline), with_samples(score, "new"), baseline, case="c", command="pytest"
    )
    assert "(answer not stored)" in half


def test_failure_text_of_graded_and_missing_comparisons():
    now = build([0.1, 0.5, 0.3] * 30, graded=True)
    base = build([0.2, 0.5, 0.9] * 30, graded=True)
    text = failure_text(no_worse(0.01).verdict(now, base), now, base, case="c", command="pytest")
    assert "from 90.00 to 30.00" in text
    alone = failure_text(at_least(0.9).verdict(now), now, None, case="c", command="pytest")
    assert "at least 90 points" in alone
    assert "difference" not in alone
