"""Exact controls: merges whose result is known bit for bit."""

from __future__ import annotations

import pytest

from harness.recipes import LayerSwap
from harness.suite import BENCHMARKS, benchmarks


@benchmarks(*BENCHMARKS)
@pytest.mark.parametrize(
    ("recipe", "expert"),
    [
        pytest.param(LayerSwap(bottom=0, top=0, outer="math"), "math", id="swap-nothing"),
        pytest.param(LayerSwap(bottom=1.0, outer="language"), "language", id="swap-everything"),
        pytest.param(LayerSwap(language="math"), "math", id="equal-experts"),
    ],
)
def test_control(ablation, recipe, expert, benchmark_name):
    ablation(recipe).equals(expert, benchmark_name)
