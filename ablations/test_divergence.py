"""A math expert that has moved further from the base: tuned longer, or at a higher rate."""

from __future__ import annotations

from harness.recipes import Expert, LayerSwap
from harness.suite import ablations, case


@ablations(
    case("longer", LayerSwap(math="math-long")),
    case("longer-alone", Expert("math-long")),
    case("hotter", LayerSwap(math="math-hot")),
    case("hotter-alone", Expert("math-hot")),
)
def test_divergence(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
