from __future__ import annotations

from dataclasses import replace

import pytest

from harness.gating.baselines import load_baselines, save_baselines


@pytest.fixture
def perfect(ablate, pytester):
    """Accepted results in which every answer was right, of the suite's case and of one that it has not."""
    ablate("--ablation-save-baseline=tiny", limit=None)
    path = pytester.path / "ablations" / "baselines" / "tiny.json"
    score = load_baselines(path).get("transition/removed", "mmlu")
    score = replace(score, values=(1.0,) * score.n)
    save_baselines(path, {"transition/removed": {"mmlu": score}, "other/case": {"mmlu": score}}, {"device": "x"})
    return path


def test_only_the_selected_cases_are_accepted_and_old_and_new_are_printed(ablate, perfect):
    assert ablate(limit=None).ret == 1
    result = ablate("--ablation-update", limit=None)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "accepted results: 1 change, 0 stay",
            "  transition/removed on mmlu: 100.00 (n=*) → * (n=*)",
            f"accepted: 1 cases in {perfect}",
        ]
    )
    after = load_baselines(perfect)
    assert after.get("other/case", "mmlu").value == 1.0
    assert after.get("transition/removed", "mmlu").value < 1.0
    assert ablate(limit=None).ret == 0
    text = perfect.read_text("utf-8")
    result = ablate("--ablation-update", limit=None)
    result.stdout.fnmatch_lines(["accepted results: 0 change, 1 stay"])
    assert perfect.read_text("utf-8") == text


def test_it_is_refused_where_nobody_would_see_it(ablate, perfect, monkeypatch):
    monkeypatch.setenv("CI", "true")
    before = perfect.read_text("utf-8")
    result = ablate("--ablation-update", limit=None)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-update while CI is set *add --ablation-force"])
    assert perfect.read_text("utf-8") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ablation-limit=4",), "--ablation-update with --ablation-limit would accept*"),
        (("--ablation-save-baseline=x",), "--ablation-update and --ablation-save-baseline both accept*"),
        (("--ablation-baseline=none",), "--ablation-update with --ablation-baseline=none*"),
    ],
)
def test_what_does_not_go_with_it_is_named(ablate, pytester, options, message):
    result = ablate("--ablation-update", *options, limit=None)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not (pytester.path / "ablations").exists()
