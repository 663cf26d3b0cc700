from __future__ import annotations

import pytest

MANY = """
import pytest
from harness.gating.floors import at_least
from harness.recipes import LayerSwap
from harness.suite import case

@pytest.mark.parametrize("recipe", [case(f"c{i}", LayerSwap(transition=0)) for i in range(12)])
def test_transition(ablation, recipe):
    ablation(recipe).check("mmlu", at_least(0.99))
"""


def test_the_step_summary_gets_the_short_report(ablate, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ablate()
    text = summary.read_text("utf-8")
    assert text.startswith("before\n## Ablations of layer swapping: ")
    assert "**1 passed, 0 failed: 1 floor in 1 case**" in text
    assert "<details><summary>transition</summary>" in text


def test_at_most_ten_failed_items_are_marked(ablate, monkeypatch):
    result = ablate(suite=MANY)
    assert "::error" not in result.stdout.str()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = ablate(suite=MANY)
    lines = [line for line in result.outlines if line.startswith("::error")]
    assert len(lines) == 10
    assert lines[0].startswith("::error file=test_suite_of_ablations.py,line=6,title=test_transition[c0]::FAIL: ")
    assert "%0A  floor        at least 99 points%0A" in lines[0]


@pytest.mark.parametrize("size", [899 * 1024, 1000 * 1024])
def test_a_full_summary_is_not_overrun(ablate, tmp_path, monkeypatch, size):
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"x" * size)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ablate()
    assert summary.stat().st_size <= max(size, 900 * 1024)
    if size > 900 * 1024:
        assert summary.stat().st_size == size
