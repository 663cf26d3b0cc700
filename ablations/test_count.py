"""How many layers are swapped: a sweep over shares of the depth, so that it fits a model of any depth."""

from __future__ import annotations

from harness.recipes import LayerSwap
from harness.suite import ablations, case

# (bottom, top) in percent of the depth; transitions as in the default swap.
SHARES = ((0, 0), (10, 10), (20, 20), (30, 10), (30, 30), (50, 20))


@ablations(*(case(f"b{b}-u{u}", LayerSwap(bottom=b / 100, top=u / 100)) for b, u in SHARES))
def test_count(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
