from __future__ import annotations

import ast
from pathlib import Path
from xml.etree import ElementTree

from harness import suite

BROKEN = """
import pytest
from harness.gating.floors import at_least
from harness.recipes import LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu", "flores")
@pytest.mark.parametrize("recipe", [case("removed", LayerSwap(transition=0)), case("kept", LayerSwap())])
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name, at_least(0.99 if recipe.transition == 0 else 0.0))
"""


def test_a_broken_floor_is_a_failed_item_with_a_readable_block(ablate, latest, pytester):
    result = ablate("--junitxml=junit.xml", suite=BROKEN)
    assert result.ret == 1
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(
        [
            "  transition/removed  *mmlu *FAIL  flores * FAIL   [[]2/4[]]",
            "  transition/kept  *[[]4/4[]]",
            "FAIL: transition/removed on mmlu (acc)",
            "  this case * points",
            "  un-ablated * points",
            "  difference * 95 % interval *",
            "  documents * better, * worse *",
            "  floor        at least 99 points",
            "  because *",
            "  reproduce    pytest '*::test_transition[[]removed-mmlu[]]' --ablation-profile *tiny.toml *",
            "FAIL: transition/removed on flores en-sw (chrf)",
            "FAIL: transition/removed on flores sw-en (chrf)",
            "FAILED *::test_transition[[]removed-flores[]]*",
        ]
    )
    output = result.stdout.str()
    assert not [name for name in ("Traceback", "suite.py:", "grid.py", "def _check", "pytest.fail") if name in output]
    assert [str(latest().case("transition/removed").columns[c].verdict) for c in ("mmlu", "flores en-sw")] == [
        "FAIL",
        "FAIL",
    ]

    (suite,) = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "0")
    failed = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["test_transition[removed-mmlu]", "test_transition[removed-flores]"]
    properties = {p.get("name"): p.get("value") for p in failed[0].iter("property")}
    assert (properties["ablation"], properties["benchmark"], properties["verdict"]) == (
        "transition/removed",
        "mmlu",
        "FAIL",
    )
    assert 0 <= float(properties["mmlu value"]) < 0.99


def test_the_marker_selects_ablations_and_a_verbose_run_has_a_line_an_item(ablate):
    plain = BROKEN + "\ndef test_plain():\n    pass\n"
    ablate("-m", "not ablation", suite=plain).assert_outcomes(passed=1, deselected=4)
    result = ablate("-m", "ablation", "-k", "kept", "-v", suite=plain)
    result.assert_outcomes(passed=2, deselected=3)
    result.stdout.fnmatch_lines(["*::test_transition[[]kept-mmlu[]] PASSED*", "*[[]kept-flores[]] PASSED*"])


CONTROL = """
import pytest
from harness.recipes import LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu")
@pytest.mark.parametrize("recipe", [case("swap-something", LayerSwap())])
def test_control(ablation, recipe, benchmark_name):
    ablation(recipe).equals("math", benchmark_name)
"""


def test_a_broken_control_fails_and_by_no_assert_that_python_leaves_out_under_o(ablate):
    result = ablate(suite=CONTROL)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["* tensors differ from math's, the first is *"])
    source = ast.parse(Path(suite.__file__).read_text("utf-8"))
    assert not [node for node in ast.walk(source) if isinstance(node, ast.Assert)]
