from __future__ import annotations


def test_the_device_is_used_and_reported(ablate, latest, pytester):
    pytester.makeini("[pytest]\nablation_device = cpu:0\n")
    assert ablate().ret == 0
    assert latest().header["device"] == "cpu:0"
    assert ablate("--ablation-device=cpu").ret == 0
    assert latest().header["device"] == "cpu"


def test_an_unknown_device_fails_with_one_sentence(ablate):
    result = ablate("--ablation-device=toaster")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["device 'toaster' cannot hold the experts: *"])
    assert "harness/evaluation" not in result.stdout.str()
