"""Who fills embeddings, final norm and output head."""

from __future__ import annotations

from harness.recipes import LayerSwap
from harness.suite import ablations, case


@ablations(
    case("average", LayerSwap(outer="average")),
    case("language", LayerSwap(outer="language")),
    case("math", LayerSwap(outer="math")),
    case("base", LayerSwap(outer="base")),
)
def test_outer(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
