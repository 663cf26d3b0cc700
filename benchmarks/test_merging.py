"""How long it takes to build a variant in memory, on a model of the shape of SmolLM2-135M with random weights."""

from __future__ import annotations

from typing import Any

import pytest

from harness.experts import LoadedExpert
from harness.merging.assemble import Assembler
from harness.recipes import LayerSwap, OneSide, Placement, Recipe

LAYERS = 30
BAR_SECONDS = 0.005


@pytest.fixture(scope="module")
def experts() -> dict[str, LoadedExpert]:
    """Two experts of 135M parameters in bfloat16 with tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    from harness.experts import as_expert

    torch.manual_seed(0)
    return {name: as_expert(name, LlamaForCausalLM(config).bfloat16()) for name in ("math", "language")}


@pytest.mark.parametrize(
    "recipe",
    [LayerSwap(outer="math"), LayerSwap(transition=0, outer="language"), OneSide("top"), Placement("random", 1)],
    ids=lambda recipe: recipe.title,
)
def test_building_a_swap_takes_under_5_ms(benchmark: Any, experts: dict[str, LoadedExpert], recipe: Recipe) -> None:
    """Averaged slots are computed before: every variant after the first shares them."""
    plan, assembler = recipe.plan(LAYERS), Assembler(experts)
    assembler.build(plan)
    variant = benchmark(assembler.build, plan)
    state = variant.state_dict(keep_vars=True)
    states = {name: expert.model.state_dict(keep_vars=True) for name, expert in experts.items()}
    for index in range(LAYERS):
        mix = plan[f"layers.{index}"]
        if mix.is_copy:
            names = [name for name in state if name.startswith(f"model.layers.{index}.")]
            assert names
            assert all(state[name].data_ptr() == states[mix.sources[0][0]][name].data_ptr() for name in names)
    assert benchmark.stats.stats.median < BAR_SECONDS


def test_the_first_swap_without_averages(benchmark: Any, experts: dict[str, LoadedExpert]) -> None:
    """Nothing is computed and nothing cached: only the skeleton is made."""
    plan, assembler = LayerSwap(transition=0, outer="math").plan(LAYERS), Assembler(experts)
    benchmark.pedantic(assembler.build, (plan,), setup=assembler.clear, rounds=20)
    assert benchmark.stats.stats.median < BAR_SECONDS


def test_the_first_default_swap_averages_embeddings_and_transitions(benchmark: Any, experts: Any) -> None:
    """Once for each pair of experts: 28M embeddings and two layers are averaged."""
    plan, assembler = LayerSwap().plan(LAYERS), Assembler(experts)
    benchmark.pedantic(assembler.build, (plan,), setup=assembler.clear, rounds=5)
