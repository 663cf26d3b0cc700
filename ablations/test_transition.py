"""Transition zones removed, filled by one expert alone, weighted otherwise, or wider."""

from __future__ import annotations

from harness.recipes import LayerSwap
from harness.suite import ablations, case


@ablations(
    case("removed", LayerSwap(transition=0)),
    case("math-instead", LayerSwap(transition="math")),
    case("language-instead", LayerSwap(transition="language")),
    case("weights-25-75", LayerSwap(weights=(0.25, 0.75))),
    case("weights-75-25", LayerSwap(weights=(0.75, 0.25))),
    case("width-2", LayerSwap(transition=2)),
    case("width-3", LayerSwap(transition=3)),
)
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
