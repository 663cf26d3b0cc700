"""Tiny random models of many architectures, and what a model by itself says: for tests of the shared engine."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.evaluation.sharing import Variant
from harness.experts import LoadedExpert
from harness.identity import slot_identities
from harness.merging.assemble import Assembler
from harness.plan import Plan
from harness.recipes import Expert, LayerSwap, Recipe, Soup
from tests.merging.models import LAYERS, NAMES

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 5}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8}),
    "phi3": ("phi3", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {"n_layer": LAYERS, "n_embd": 32, "n_head": 4, "n_positions": 96, "tie_word_embeddings": True}),
    "gpt_neo": (
        "gpt_neo",
        {
            "num_layers": LAYERS,
            "num_heads": 4,
            "attention_types": [[["global", "local"], LAYERS // 2]],
            "window_size": 20,
        },
    ),
    "bloom": ("bloom", {"n_layer": LAYERS, "n_head": 4}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "falcon": ("falcon", {"alibi": False, "new_decoder_architecture": False}),
}
# Token trees are for these; whatever the others say, answers must be right.
BRANCHING = {"llama", "llama-tied", "qwen2", "qwen2-window", "qwen3", "mistral", "gemma2", "gemma3", "phi3"}


def config_of(name: str) -> Any:
    from transformers import CONFIG_MAPPING

    architecture, changes = MODELS[name]
    return CONFIG_MAPPING[architecture](**({"tie_word_embeddings": False} | SIZES | changes))


@cache
def model_of(name: str, seed: int = 0) -> Any:
    """A random model; those of other seeds are near that of seed 0."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name))
    first, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=other)
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=first) + (0.1 * noise if seed else 0))
    return model.eval().requires_grad_(False)


@cache
def experts_of(name: str) -> dict[str, LoadedExpert]:
    from harness.experts import as_expert

    return {expert: as_expert(expert, model_of(name, seed)) for seed, expert in enumerate(NAMES)}


RECIPES: tuple[Recipe, ...] = (
    LayerSwap(),
    LayerSwap(top=0),
    LayerSwap(transition=0),
    LayerSwap(bottom=2, top=1, outer="math"),
    LayerSwap(outer="language"),
    Expert("math"),
    Expert("language"),
    Soup(),
)


def variants_of(name: str, recipes: tuple[Recipe, ...] = RECIPES) -> tuple[dict[str, Any], list[Variant]]:
    """Variants of three experts, and the model of each."""
    import threading

    experts = experts_of(name)
    assembler, building = Assembler(experts), threading.Lock()

    def variant(plan: Plan) -> Variant:
        def build() -> Any:
            with building:
                return assembler.build(plan)

        return Variant(plan.digest, slot_identities(plan, experts), build)

    found = {plan.digest: variant(plan) for plan in (recipe.plan(LAYERS) for recipe in recipes)}
    return {identity: v.build() for identity, v in found.items()}, list(found.values())


def logits_of(model: Any, tokens: list[int]) -> Any:
    """A plain forward of one sequence."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def close(ours: Any, theirs: Any) -> bool:
    """Equal but for rounding, with the same likeliest tokens."""
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()) and bool(
        (ours.argmax(-1) == theirs.argmax(-1)).all()
    )
