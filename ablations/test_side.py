"""Only the bottom block swapped, or only the top block."""

from __future__ import annotations

from harness.recipes import OneSide
from harness.suite import ablations, case


@ablations(case("bottom-only", OneSide("bottom")), case("top-only", OneSide("top")))
def test_side(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
