"""Tiny random models of several architectures, for every test that merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experts import LoadedExpert, as_expert

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = ("base", "math", "language")
LAYERS = 6
VOCABULARY = 61
ARCHITECTURES = ("llama", "qwen2", "mistral", "gemma", "gpt_neox", "gpt2")


def tiny_config(architecture: str, tied: bool, **changes: Any) -> Any:
    from transformers import CONFIG_MAPPING

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS, "hidden_size": 32}
    sizes |= {"num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
    if architecture in ("llama", "qwen2", "mistral", "gemma"):
        sizes |= {"num_key_value_heads": 2}
    if architecture == "gemma":
        sizes |= {"head_dim": 8}
    if architecture == "gpt2":
        sizes = {"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_embd": 32, "n_head": 4, "n_positions": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return CONFIG_MAPPING[architecture](**(sizes | tokens | {"tie_word_embeddings": tied} | changes))


def tiny_model(architecture: str, tied: bool, seed: int = 0, near: float = 1.0, **changes: Any) -> PreTrainedModel:
    """A random model. ``near`` below 1 keeps it that close to the model of seed 0, as fine-tuning does."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config(architecture, tied, **changes))
    start, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            first = torch.randn(parameter.shape, generator=start) * 0.2
            other = torch.randn(parameter.shape, generator=noise) * 0.2
            parameter.copy_(first + near * other if seed else first)
    return model.eval()


def tiny_experts(
    architecture: str = "llama", tied: bool = True, near: float = 0.2, dtype: str = "float32", **changes: Any
) -> dict[str, LoadedExpert]:
    import torch

    models = {name: tiny_model(architecture, tied, seed, near, **changes) for seed, name in enumerate(NAMES)}
    return {name: as_expert(name, model.to(getattr(torch, dtype))) for name, model in models.items()}


def save_experts(experts: dict[str, LoadedExpert], folder: Path, **options: Any) -> dict[str, Path]:
    for name, expert in experts.items():
        expert.model.save_pretrained(folder / name, **options)
        write_tokenizer(folder / name)
    return {name: folder / name for name in experts}


def write_tokenizer(folder: Path, words: int = VOCABULARY) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
