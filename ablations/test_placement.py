"""The language expert's layers elsewhere: the middle only, non-contiguous, at random, or with roles exchanged."""

from __future__ import annotations

from harness.recipes import Placement
from harness.suite import ablations, case


@ablations(
    case("middle", Placement("middle")),
    case("every-other", Placement("every-other")),
    case("ends", Placement("ends")),
    case("random-0", Placement("random", seed=0)),
    case("random-2", Placement("random", seed=2)),
    case("random-4", Placement("random", seed=4)),
    case("exchanged", Placement("exchanged")),
)
def test_placement(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
