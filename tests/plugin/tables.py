"""A family of three ablations, and what its report says."""

from __future__ import annotations

from pathlib import Path

from harness.reporting.report import read_results

FAMILY = """
import pytest
from harness.recipes import Expert, LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu")
@pytest.mark.parametrize(
    "recipe", [case("removed", LayerSwap(transition=0)), case("top", LayerSwap(top=0)), case("math", Expert("math"))]
)
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
"""


def values(folder: Path) -> list[object]:
    """Every cell of a report, and what it came to."""
    return [
        (case.case_id, case.identity, name, column.value, column.verdict, column.versus_method)
        for case in read_results(folder).cases
        for name, column in case.columns.items()
    ]
