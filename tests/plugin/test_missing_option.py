from __future__ import annotations

import pytest

from harness.gating.baselines import load_baselines

TWO = """
import pytest
from harness.recipes import LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu")
@pytest.mark.parametrize("recipe", [case("removed", LayerSwap(transition=0)), case("wide", LayerSwap(transition=1))])
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
"""


@pytest.fixture
def accepted(ablate, pytester):
    """Accepted results of one of the two cases."""
    ablate("--ablation-save-baseline=tiny", limit=None)
    return pytester.path / "ablations" / "baselines" / "tiny.json"


def test_a_case_without_accepted_result_fails_under_ci_and_says_how_to_accept_one(
    ablate, latest, accepted, monkeypatch
):
    monkeypatch.setenv("CI", "true")
    result = ablate(suite=TWO)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "MISSING: transition/wide on mmlu (acc)",
            f"  because      {accepted} has no accepted result for it: accept one with --ablation-update",
            "  reproduce    pytest '*::test_transition[[]wide-mmlu[]]' *",
        ]
    )
    assert str(latest().case("transition/wide").columns["mmlu"].verdict) == "MISSING"


@pytest.mark.parametrize("option", [(), ("--ablation-missing=warn",)])
def test_elsewhere_it_is_new_and_held_to_the_method(ablate, latest, accepted, option):
    assert ablate(*option, suite=TWO).ret == 0
    assert latest().case("transition/wide").columns["mmlu"].versus_method is not None


def test_under_ci_without_any_accepted_results_nothing_is_missing(ablate, monkeypatch):
    monkeypatch.setenv("CI", "1")
    assert ablate(suite=TWO).ret == 0


def test_fail_can_be_asked_for_and_warn_too(ablate, accepted, monkeypatch, pytester):
    assert ablate("--ablation-missing=fail", suite=TWO).ret == 1
    monkeypatch.setenv("CI", "true")
    assert ablate("--ablation-missing=warn", suite=TWO).ret == 0
    pytester.makeini("[pytest]\nablation_missing = warn\n")
    assert ablate(suite=TWO).ret == 0


def test_record_accepts_the_missing_ones_and_holds_the_others(ablate, accepted):
    before = load_baselines(accepted)
    result = ablate("--ablation-missing=record", suite=TWO, limit=None)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"accepted: 1 cases in {accepted}"])
    after = load_baselines(accepted)
    assert sorted(after.scores) == ["transition/removed", "transition/wide"]
    assert after.get("transition/removed", "mmlu") == before.get("transition/removed", "mmlu")


def test_record_begins_a_file(ablate, pytester):
    ablate("--ablation-missing=record", "--ablation-baseline=new", suite=TWO, limit=None)
    assert len(load_baselines(pytester.path / "ablations" / "baselines" / "new.json").scores) == 2


def test_a_mistake_is_named(ablate):
    result = ablate("--ablation-missing=ignore")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-missing is 'ignore': expected fail, warn or record"])
