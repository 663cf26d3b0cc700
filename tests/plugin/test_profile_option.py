from __future__ import annotations

SKIPPING = """
from harness.recipes import Expert, LayerSwap

def test_benchmark(ablation):
    ablation(LayerSwap()).check("no-such-benchmark")

def test_expert(ablation):
    ablation(Expert("math-long")).check("mmlu")

def test_experts_are_loaded_once(experts, ablation_context):
    assert list(experts) == ["base", "math", "language"]
    before = dict(experts)
    ablation_context.grid.load(["math"])
    assert all(ablation_context.grid.experts[name] is expert for name, expert in before.items())
"""


def test_a_profile_is_given_as_a_file(ablate, latest):
    result = ablate()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ablations: profile tiny, cpu, float32, 8 documents a task, no accepted results"])
    run = latest()
    assert run.profile == "tiny experts"
    assert set(run.experts) == {"base", "math", "language"}  # the base to measure changes from
    assert [case.case_id for case in run.cases] == ["method/layer-swap", "transition/removed"]


def test_the_ini_twin_names_the_profile_too(ablate, pytester, tiny_profile):
    pytester.makeini(f"[pytest]\nablation_profile = {tiny_profile}\n")
    ablate("--collect-only", profile=None)
    result = ablate(profile=None)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ablations: profile tiny,*"])


def test_an_unknown_profile_ends_the_run_with_the_nearest_name(ablate):
    result = ablate(profile="embeded")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: no profile 'embeded'*embedded*did you mean 'embedded'?*"])
    assert "Traceback" not in result.stderr.str()


def test_what_the_profile_lacks_is_skipped(ablate):
    result = ablate("-rs", suite=SKIPPING)
    result.assert_outcomes(skipped=2, passed=1)
    result.stdout.fnmatch_lines(
        ["*profile tiny has no benchmark no-such-benchmark", "*profile tiny has no expert math-long"]
    )
