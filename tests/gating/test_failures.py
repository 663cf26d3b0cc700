from __future__ import annotations

from dataclasses import replace

from harness.evaluation.scores import Sample, Score
from harness.gating.failures import failure_text
from harness.gating.floors import at_least, no_worse
from tests.gating.scores import build, flips


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


def test_failure_text_of_errors_calls_a_rise_a_loss():
    score, baseline = (
        replace(s, values=tuple(1 - v for v in s.values), higher_is_better=False) for s in flips(200, 2, 60, 238)
    )
    text = failure_text(no_worse(0.02).verdict(score, baseline), score, baseline, case="c", command="pytest")
    assert "+11.60 points, 95 % interval" in text
    assert "2 better, 60 worse" in text
    assert "from 0.00 to 100.00: document d0202" in text
