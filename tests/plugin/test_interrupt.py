from __future__ import annotations

import signal

from harness.gating.baselines import load_baselines

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


def test_an_interrupted_run_reports_what_was_done(ablate, latest, pytester):
    result = ablate(suite=INTERRUPTED)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["report: *report.md", "*KeyboardInterrupt*"])
    assert [case.case_id for case in latest().cases] == ["method/layer-swap", "transition/first"]
    assert load_baselines(pytester.path / "reports" / "latest" / "scores.json").scores.keys() == {"transition/first"}


def test_a_run_that_stops_at_the_first_failure_reports_it(ablate, latest):
    stopping = INTERRUPTED.replace("raise KeyboardInterrupt", "pytest.fail('on purpose')")
    assert ablate("-x", suite=stopping).ret == 1
    assert [case.case for case in latest().cases] == ["layer-swap", "first"]


def test_the_shared_folder_is_gone_after_the_run(ablate, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ablate(suite=INTERRUPTED)
    assert not list(tmp_path.glob("layerswap-*"))


def test_sigterm_ends_a_run_as_ctrl_c_does_with_a_status_of_its_own(ablate, latest, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killing = INTERRUPTED.replace("raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
    result = ablate(suite="import os, signal, time\n" + killing)
    assert result.ret == 143
    result.stdout.fnmatch_lines(["report: *report.md", "!* harness.stopping.Terminated: ended by SIGTERM !*"])
    assert [case.case_id for case in latest().cases] == ["method/layer-swap", "transition/first"]
    assert not list(tmp_path.glob("layerswap-*"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_interrupted_run_computes_nothing_for_its_report(ablate, latest, monkeypatch):
    def compute(*_: object) -> None:
        raise AssertionError("torch would be imported again, whose import may be what was interrupted")

    monkeypatch.setattr("harness.runlog.parameter_changes", compute)
    assert ablate(suite=INTERRUPTED).ret == 2
    assert [case.case_id for case in latest().cases] == ["method/layer-swap", "transition/first"]


def test_an_interrupted_run_accepts_nothing(ablate, pytester):
    result = ablate("--ablation-save-baseline=accepted.json", suite=INTERRUPTED, limit=None)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["nothing was accepted: the run was interrupted", "report: *"])
    assert not (pytester.path / "accepted.json").exists()


def test_ctrl_c_while_the_report_is_written_leaves_none_of_it(ablate, pytester, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    ablate()
    before = sorted(path.name for path in (pytester.path / "reports").iterdir())
    monkeypatch.setattr("harness.reporting.report.render_report", interrupted)
    result = ablate()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["interrupted: the report that was being written is not there"])
    assert sorted(path.name for path in (pytester.path / "reports").iterdir()) == before


def test_a_report_that_cannot_be_written_after_an_interrupt_is_said_in_a_line(ablate, monkeypatch):
    def half_imported(*_: object) -> None:
        raise AttributeError("partially initialized module 'torch' has no attribute 'library'")

    monkeypatch.setattr("harness.reporting.report.render_report", half_imported)
    result = ablate(suite=INTERRUPTED)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["interrupted: no report can be written any more: partially initialized*"])
    assert "INTERNALERROR" not in result.stdout.str()
