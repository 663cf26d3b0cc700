from __future__ import annotations

import pytest

from harness.gating.baselines import load_baselines


@pytest.mark.parametrize("option", ["--ablation-update", "--ablation-missing=record"])
def test_results_are_accepted_under_ci_if_that_is_meant(ablate, pytester, monkeypatch, option):
    monkeypatch.setenv("CI", "true")
    path = pytester.path / "ablations" / "baselines" / "tiny.json"
    assert ablate(option, limit=None).ret == 4
    assert not path.exists()
    assert ablate(option, "--ablation-force", limit=None).ret == 0
    assert load_baselines(path).get("transition/removed", "mmlu").n > 100
