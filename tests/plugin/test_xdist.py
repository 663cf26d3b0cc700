from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.reporting.report import read_results

pytest.importorskip("xdist")
ROOT = Path(__file__).parents[2]
SUITE = """
import pytest
from harness.gating.floors import at_least, no_worse
from harness.recipes import Expert, LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu", "flores")
@pytest.mark.parametrize("recipe", [case("removed", LayerSwap(transition=0)), case("base", Expert("base"))])
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name, at_least(0.99) if recipe == Expert("base") else no_worse(1.0))

@pytest.mark.parametrize("number", [1, 2])
def test_plain(number):
    pass
"""


def _tables(folder: Path) -> tuple[list[object], str]:
    run = read_results(folder)
    cells = [
        (case.case_id, case.identity, name, column.value, column.verdict, column.versus_method)
        for case in run.cases
        for name, column in case.columns.items()
    ]
    families = (folder / "report.md").read_text("utf-8").partition("## Families")[2].partition("\n## ")[0]
    return cells, families


def test_two_workers_give_the_verdicts_tables_and_exit_code_of_one(ablate, pytester, tiny_profile, monkeypatch):
    alone = ablate("--ablation-report=alone", suite=SUITE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shared = pytester.runpytest_subprocess(
        "-p", "harness.plugin", "-n2", f"--ablation-profile={tiny_profile}", "--ablation-limit=8", "--junitxml=j.xml"
    )  # fmt: skip
    assert (alone.ret, shared.ret) == (1, 1)
    # Libraries warn once a process, so only the warnings' count may differ.
    counted = [{k: v for k, v in run.parseoutcomes().items() if k != "warnings"} for run in (alone, shared)]
    assert counted == [{"failed": 2, "passed": 4}] * 2
    assert _tables(pytester.path / "reports" / "latest") == _tables(pytester.path / "alone" / "latest")

    printed = sorted(line.split()[1] for line in shared.outlines if line.startswith("FAILED "))
    (suite,) = ElementTree.parse(pytester.path / "j.xml").getroot().iter("testsuite")
    failed = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert printed == sorted(f"test_suite_of_ablations.py::{case.get('name')}" for case in failed)
    assert len(printed) == int(suite.get("failures")) == 2
    shared.stdout.fnmatch_lines(
        ["ablations: profile tiny, cpu, float32, 8 documents a task,*", "  transition/* *[[]4/4[]]*"]
    )
    assert len([line for line in shared.outlines if line.startswith("report: ")]) == 1


def test_a_mistake_in_an_option_is_said_once_and_runs_nothing(pytester, tiny_profile, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(test_suite_of_ablations=SUITE)
    pytester.makeini(f"[pytest]\nablation_limit = many\nablation_profile = {tiny_profile}\n")
    result = pytester.runpytest_subprocess("-p", "harness.plugin", "-n2")
    assert result.ret == 4
    assert (result.stdout.str() + result.stderr.str()).count("--ablation-limit is 'many'") == 1
    assert "INTERNALERROR" not in result.stdout.str()


DYING = (
    SUITE
    + """
import os, signal, time
from pathlib import Path

def test_dying():
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
"""
)


def test_a_worker_that_dies_fails_what_it_did_and_the_rest_goes_on(pytester, tiny_profile, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(test_suite_of_ablations=DYING)
    result = pytester.runpytest_subprocess(
        "-p", "harness.plugin", "-n2", f"--ablation-profile={tiny_profile}", "--ablation-limit=8"
    )
    assert result.ret == 1
    assert "INTERNALERROR" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*worker 'gw*' crashed while running *test_dying*"])
    (report,) = [line for line in result.outlines if line.startswith("report: ")]
    cases = {case.case_id: set(case.columns) for case in read_results(Path(report.split(": ", 1)[1]).parent).cases}
    assert {"transition/removed", "transition/base"} <= cases.keys()
    assert all(len(cases[name]) == 3 for name in ("transition/removed", "transition/base"))
