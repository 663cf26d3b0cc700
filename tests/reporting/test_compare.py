from __future__ import annotations

from dataclasses import replace

import pytest

from harness.cli import main
from harness.errors import LayerswapError
from harness.gating.baselines import Baselines, save_baselines
from harness.gating.floors import Verdict, no_worse
from harness.reporting.compare import compare_runs, load_saved, render_comparison
from tests.reporting.conftest import make_score

BEFORE = {
    "method/base": {"mgsm sw": make_score("mgsm sw", 0.6, 1), "mmlu": make_score("mmlu", 0.6, 1)},
    "count/gone": {"mmlu": make_score("mmlu", 0.6, 1)},
}
AFTER = {
    "method/base": {"mgsm sw": make_score("mgsm sw", 0.4, 2), "mmlu": make_score("mmlu", 0.6, 1)},
    "count/come": {"mmlu": make_score("mmlu", 0.6, 1)},
}


@pytest.fixture
def runs(tmp_path):
    """Two saved runs: a report's folder and a file of accepted results."""
    save_baselines(tmp_path / "one" / "scores.json", BEFORE, {})
    save_baselines(tmp_path / "two.json", AFTER, {})
    return tmp_path / "one", tmp_path / "two.json"


def test_every_case_of_either_run_gets_a_verdict(runs, tmp_path):
    rows = compare_runs(load_saved(str(runs[0])), load_saved(str(runs[1])), no_worse(0.02))
    assert {(row.case, row.column): row.verdict for row in rows} == {
        ("count/come", "mmlu"): Verdict.NEW,
        ("count/gone", "mmlu"): Verdict.MISSING,
        ("method/base", "mgsm sw"): Verdict.FAIL,
        ("method/base", "mmlu"): Verdict.PASS,
    }
    text = render_comparison(rows, no_worse(0.02))
    assert text.startswith(
        "**1 PASS, 1 FAIL, 1 NEW, 1 MISSING** (floor: no more than 2 points below the baseline; 1 of 4 "
    )
    cells = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ")]
    assert [cell[0].strip() for cell in cells] == ["verdict", "FAIL", "MISSING", "NEW"]
    assert len(render_comparison(rows, no_worse(0.02), everything=True).splitlines()) == len(text.splitlines()) + 1


def test_p_values_are_adjusted_over_a_family():
    def run(skill: float) -> Baselines:
        score = make_score("mmlu", skill, 1 if skill == 0.6 else 2)
        return Baselines(None, {f"method/{i}": {"mmlu": score} for i in range(4)})  # type: ignore[arg-type]

    rows = compare_runs(run(0.6), run(0.52), no_worse(0.02))
    assert all(row.p_holm == pytest.approx(min(1.0, 4 * row.comparison.p)) for row in rows)


def test_other_documents_are_incomparable_and_the_field_is_said():
    before = Baselines(None, {"m/b": {"mmlu": make_score("mmlu", 0.6, 1)}})  # type: ignore[arg-type]
    other = replace(make_score("mmlu", 0.6, 1), fingerprint={"task": "2"})
    (row,) = compare_runs(before, Baselines(None, {"m/b": {"mmlu": other}}), no_worse(0.02))  # type: ignore[arg-type]
    assert row.verdict is Verdict.INCOMPARABLE
    assert "task (2 here, 1 in the baseline)" in row.reason
    assert "task (2 here, 1 in the baseline)" in render_comparison([row], no_worse(0.02))


def test_the_command_prints_the_table_and_fails_only_if_asked(runs, capsys):
    assert main(["compare", str(runs[0]), str(runs[1])]) == 0
    assert main(["compare", str(runs[0]), str(runs[1]), "--fail"]) == 1
    assert main(["compare", str(runs[0]), str(runs[0]), "--fail"]) == 0
    assert "FAIL" in capsys.readouterr().out


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(LayerswapError, match="no such run"):
        load_saved("nowhere")
    with pytest.raises(LayerswapError, match=r"no scores\.json in it"):
        load_saved(str(tmp_path))
