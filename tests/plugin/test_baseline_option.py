from __future__ import annotations

from dataclasses import replace

import pytest

from harness.gating.baselines import load_baselines, save_baselines


@pytest.fixture
def perfect(ablate, pytester):
    """Accepted results in which every answer was right."""
    ablate("--ablation-save-baseline=perfect", limit=None)
    path = pytester.path / "ablations" / "baselines" / "perfect.json"
    scores = {
        case: {name: replace(score, values=(1.0,) * score.n) for name, score in columns.items()}
        for case, columns in load_baselines(path).scores.items()
    }
    save_baselines(path, scores, {"device": "somewhere else"})
    return path


def test_a_case_is_held_to_its_accepted_result(ablate, latest, perfect):
    result = ablate("--ablation-baseline=perfect")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ablations:*, 1 accepted cases", "FAIL: transition/removed on mmlu*", "*accepted*"])
    column = latest().case("transition/removed").columns["mmlu"]
    assert column.versus_accepted.baseline == 1.0
    assert column.versus_accepted.n == 8  # accepted on all documents, compared on those of the limit


def test_accepted_results_are_found_by_path_by_ini_twin_and_by_the_profile_name(ablate, pytester, perfect):
    assert ablate(f"--ablation-baseline={perfect}").ret == 1
    perfect.rename(perfect.with_name("tiny.json"))
    assert ablate().ret == 1
    assert ablate("--ablation-baseline=none").ret == 0
    pytester.makeini("[pytest]\nablation_baseline = none\n")
    assert ablate().ret == 0


def test_accepted_results_that_are_not_there_or_damaged_are_refused(ablate, pytester):
    result = ablate("--ablation-baseline=missing")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *missing.json: no such file*"])
    (pytester.path / "damaged.json").write_text("{", encoding="utf-8")
    result = ablate("--ablation-baseline=damaged.json")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *damaged.json: not JSON*"])
