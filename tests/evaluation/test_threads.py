"""A grid that evaluates in several threads, as it does with small models on more than one core."""

from __future__ import annotations

from pathlib import Path

from harness.evaluation.grid import Grid, Settings
from harness.evaluation.workers import threads_per_operation
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap, Soup


def test_two_threads_score_as_one_does(tiny_profile: Path, tmp_path: Path) -> None:
    profile = load_profile(str(tiny_profile))
    found = []
    for threads in (1, 2):
        with threads_per_operation(threads):
            grid = Grid(Settings(profile, "cpu", "float32", limit=20), tmp_path / str(threads))
            plans = [r.plan(grid.layers, profile.sizes) for r in (LayerSwap(), Soup(), Expert("math"))]
            for benchmark in ("mgsm", "mmlu"):
                grid.expect(benchmark, plans)
            found.append([grid.cell(plan, b).scores for b in ("mgsm", "mmlu") for plan in plans])
    assert found[0] == found[1]
