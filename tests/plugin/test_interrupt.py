from __future__ import annotations

INTERRUPTED = """
import pytest
from harness.recipes import Expert, LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu")
@pytest.mark.parametrize(
    "recipe", [case("first", LayerSwap(transition=0)), case("second", Expert("base")), case("third", Expert("math"))]
)
def test_transition(ablation, recipe, benchmark_name):
    if recipe == Expert("base"):
        raise KeyboardInterrupt
    ablation(recipe).check(benchmark_name)
"""


def test_an_interrupted_run_reports_what_was_done(ablate, latest):
    result = ablate(suite=INTERRUPTED)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["report: *report.md", "*KeyboardInterrupt*"])
    assert [case.case_id for case in latest().cases] == ["method/layer-swap", "transition/first"]


def test_a_run_that_stops_at_the_first_failure_reports_it(ablate, latest):
    stopping = INTERRUPTED.replace("raise KeyboardInterrupt", "pytest.fail('on purpose')")
    assert ablate("-x", suite=stopping).ret == 1
    assert [case.case for case in latest().cases] == ["layer-swap", "first"]


def test_the_shared_folder_is_gone_after_the_run(ablate, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ablate(suite=INTERRUPTED)
    assert not list(tmp_path.glob("layerswap-*"))
