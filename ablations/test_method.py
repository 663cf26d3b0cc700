"""The un-ablated method beside what it could be replaced by: no merge at all, and other ways of merging."""

from __future__ import annotations

from harness.recipes import DareTies, Expert, LayerSwap, Slerp, Soup, TaskArithmetic, Ties
from harness.suite import ablations, case


@ablations(
    case("layer-swap", LayerSwap()),
    case("base", Expert("base")),
    case("math", Expert("math")),
    case("language", Expert("language")),
    case("soup", Soup()),
    case("soup-75-25", Soup(weights=(0.75, 0.25))),
    case("ties-20", Ties(density=0.2)),
    case("ties-50", Ties(density=0.5)),
    case("ties-50-model", Ties(density=0.5, trim="model")),
    case("dare-ties-50", DareTies(density=0.5)),
    case("slerp", Slerp(t=0.5)),
    case("task-arithmetic", TaskArithmetic()),
)
def test_method(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
