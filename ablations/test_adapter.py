"""Experts tuned with low-rank adapters instead of all weights."""

from __future__ import annotations

from harness.recipes import Expert, LayerSwap, Soup
from harness.suite import ablations, case


@ablations(
    case("lora", LayerSwap(math="math-lora", language="language-lora")),
    case("lora-soup", Soup(weights=(("math-lora", 0.5), ("language-lora", 0.5)))),
    case("lora-math-alone", Expert("math-lora")),
    case("lora-language-alone", Expert("language-lora")),
)
def test_adapter(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
