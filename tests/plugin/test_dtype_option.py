from __future__ import annotations

from harness.gating.baselines import load_baselines


def test_the_dtype_is_used_and_is_part_of_what_is_comparable(ablate, latest, pytester):
    ablate("--ablation-save-baseline=accepted", limit=None)
    result = ablate("--ablation-dtype=bfloat16", "--ablation-baseline=accepted", limit=None)
    assert latest().header["dtype"] == "bfloat16"
    accepted = load_baselines(pytester.path / "ablations" / "baselines" / "accepted.json")
    assert accepted.get("transition/removed", "mmlu").fingerprint["dtype"] == "float32"
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["INCOMPARABLE: transition/removed on mmlu*", "*dtype*bfloat16*"])


def test_the_ini_twin_sets_the_dtype(ablate, latest, pytester):
    pytester.makeini("[pytest]\nablation_dtype = bfloat16\n")
    assert ablate().ret == 0
    assert latest().header["dtype"] == "bfloat16"


def test_an_unknown_dtype_is_refused(ablate):
    result = ablate("--ablation-dtype=float8")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-dtype is 'float8': expected float32,*"])
