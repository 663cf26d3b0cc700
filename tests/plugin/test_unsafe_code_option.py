from __future__ import annotations

import pytest

from harness.evaluation import sandbox, sandbox_command
from harness.evaluation.sandbox import Sandbox

SUITE = """
import pytest
from harness.recipes import LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mbpp", "mmlu")
@pytest.mark.parametrize("recipe", [case("removed", LayerSwap(transition=0))])
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
"""


@pytest.fixture
def nowhere(monkeypatch):
    """A machine whose kernel makes no namespaces: bubblewrap ends at once."""
    monkeypatch.setattr(sandbox_command, "bubblewrap", lambda: sandbox_command.Bubblewrap("/bin/false", "0"))
    sandbox.no_sandbox.cache_clear()
    yield
    sandbox.no_sandbox.cache_clear()


@pytest.fixture
def confined(monkeypatch):
    """Whether each sandbox that has judged a program was one."""
    found: list[bool] = []
    run = Sandbox.run

    def noting(self, *asked):
        found.append(not self.unsafe)
        return run(self, *asked)

    monkeypatch.setattr(Sandbox, "run", noting)
    return found


def test_without_a_sandbox_code_benchmarks_are_skipped_with_the_reason(ablate, nowhere, confined, latest):
    result = ablate("--ablation-no-cache", "-rs", suite=SUITE)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*mbpp runs generated programs. *ends at once*--ablation-unsafe-code runs them unconfined"]
    )
    assert confined == []
    assert set(latest().case("transition/removed").columns) == {"mmlu"}


def test_the_option_and_its_ini_twin_run_them_all_the_same(ablate, nowhere, confined, latest, pytester):
    ablate("--ablation-no-cache", "--ablation-unsafe-code", suite=SUITE).assert_outcomes(passed=2)
    value = latest().case("transition/removed").columns["mbpp"].value
    assert set(confined) == {False}
    pytester.makeini("[pytest]\nablation_unsafe_code = true\n")
    ablate("--ablation-no-cache", suite=SUITE).assert_outcomes(passed=2)
    assert latest().case("transition/removed").columns["mbpp"].value == value
    assert set(confined) == {False}


@pytest.mark.skipif(bool(sandbox.no_sandbox()), reason=sandbox.no_sandbox())
def test_where_there_is_a_sandbox_it_is_used_with_the_option_too(ablate, confined):
    ablate("--ablation-no-cache", "--ablation-unsafe-code", suite=SUITE).assert_outcomes(passed=2)
    assert set(confined) == {True}
