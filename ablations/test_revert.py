"""Controls: an expert with the part of it that the swap discards reset to the base."""

from __future__ import annotations

from harness.recipes import LayerSwap, Revert
from harness.suite import ablations, case


@ablations(
    case("math-middle-only", Revert("math", "outer-blocks")),
    case("language-blocks-only", Revert("language", "middle")),
    case("base-outer", LayerSwap(language="base")),
)
def test_revert(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
