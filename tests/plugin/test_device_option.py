from __future__ import annotations

import pytest
import torch


def test_the_device_is_used_and_reported(ablate, latest, pytester):
    pytester.makeini("[pytest]\nablation_device = cpu:0\n")
    assert ablate().ret == 0
    assert latest().header["device"] == "cpu:0"
    assert ablate("--ablation-device=cpu").ret == 0
    assert latest().header["device"] == "cpu"


def test_a_device_that_says_what_it_has_free_divides_it_and_changes_no_score(ablate, latest, monkeypatch):
    assert ablate("--ablation-no-cache", "--ablation-device=cpu").ret == 0
    plain = latest()
    # Main memory under another name: weights are copied to it as they would be to an accelerator.
    monkeypatch.setattr("harness.evaluation.room.free_bytes", lambda device: 8 * 10**9)
    assert ablate("--ablation-no-cache", "--ablation-device=cpu:0").ret == 0
    divided = latest()
    assert "16,384 tokens a pass" in divided.provenance["device memory"]
    assert "device memory" not in plain.provenance
    scores = [
        {(c.case_id, name): column.value for c in run.cases for name, column in c.columns.items()}
        for run in (plain, divided)
    ]
    assert scores[0] == scores[1]


def test_a_device_with_too_little_free_fails_with_one_sentence(ablate, monkeypatch):
    monkeypatch.setattr("harness.evaluation.room.free_bytes", lambda device: 10**9)
    result = ablate("--ablation-no-cache", "--ablation-device=cpu:0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["the device has 1.0 GB free; a variant takes *: take a smaller dtype, or *"])
    assert "harness/evaluation" not in result.stdout.str()


@pytest.mark.parametrize(
    ("device", "hint"), [("toaster", ""), ("cudda:0", " (did you mean cuda?)"), ("cuda:", ""), ("cpu:first", "")]
)
def test_what_is_no_device_is_refused_at_the_start(ablate, device, hint):
    result = ablate(f"--ablation-device={device}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = f"ERROR: device '{device}' is none that torch knows{hint}: expected one such as cpu, cuda or cuda:1"
    result.stderr.fnmatch_lines([message])


def test_a_device_that_is_not_here_fails_with_one_sentence(ablate):
    missing = next(name for name in ("mps", "cuda", "xpu") if not getattr(torch, name).is_available())
    result = ablate(f"--ablation-device={missing}")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"device '{missing}' cannot be used here: *: give another --ablation-device, such as cpu"]
    )
    assert "Error" not in result.stdout.str().replace("LayerswapError", "")
    assert "harness/" not in result.stdout.str()
