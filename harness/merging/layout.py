"""Where the stored tensors of well-known architectures belong, without building a model: no torch, no transformers.

What is not exactly as expected here is not guessed at: the functions return None, and callers ask transformers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.plan import layer_slot

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True)
class Places:
    """Where stored tensors belong: (slot, canonical name in the model) by stored name, in stored order.

    ``tied`` gives, for a stored tensor, the further names under which the model uses it.
    """

    layers: int
    tensors: Mapping[str, tuple[str, str]]
    tied: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Outer:
    """The stored names of input embeddings and output head, and the config's key for how wide both are."""

    embed: str
    head: str
    width: str


@dataclass(frozen=True)
class _Architecture:
    """How an architecture names its tensors. ``weights`` have a weight, ``biased`` a bias too, in every layer.

    ``flags`` name the modules that have a bias if the config sets that key (it is off unless the config says so).
    ``tied`` is the default of ``tie_word_embeddings``. ``head`` is the model's name, ``stored_head`` the file's.
    """

    weights: tuple[str, ...]
    biased: tuple[str, ...] = ()
    flags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tied: bool = False
    layers: str = "model.layers."
    depth: str = "num_hidden_layers"
    embed: tuple[str, ...] = ("model.embed_tokens.weight",)
    width: str = "hidden_size"
    norm: tuple[str, ...] = ("model.norm.weight",)
    head: str = "lm_head.weight"
    stored_head: str = "lm_head.weight"

    def layer(self, config: Mapping[str, Any]) -> set[str]:
        """Names of the tensors of a layer, after the prefix and the index."""
        biased = [*self.biased, *(name for key, names in self.flags if config.get(key) for name in names)]
        return {f"{name}.weight" for name in self.weights} | {f"{name}.bias" for name in biased}


def _llama(*extra: str, **settings: Any) -> _Architecture:
    settings.setdefault("flags", (("attention_bias", _ATTENTION),))
    return _Architecture((*_ATTENTION, *_MLP, *_NORMS, *extra), **settings)


def _architecture(model_type: object) -> _Architecture | None:
    both = (("attention_bias", _ATTENTION), ("mlp_bias", _MLP))
    gpt2 = ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    neox = (*_NORMS, "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    known = {
        "llama": lambda: _llama(flags=both),
        "mistral": lambda: _llama(flags=()),
        "qwen2": lambda: _llama(biased=_ATTENTION[:3], flags=()),
        "qwen3": lambda: _llama(*_QK_NORMS),
        "gemma": lambda: _llama(tied=True),
        "gemma2": lambda: _llama("pre_feedforward_layernorm", "post_feedforward_layernorm", tied=True),
        "gpt2": lambda: _Architecture(
            gpt2,
            gpt2,
            tied=True,
            layers="transformer.h.",
            depth="n_layer",
            width="n_embd",
            embed=("transformer.wte.weight", "transformer.wpe.weight"),
            norm=("transformer.ln_f.weight", "transformer.ln_f.bias"),
        ),
        "gpt_neox": lambda: _Architecture(
            neox,
            neox,
            layers="gpt_neox.layers.",
            embed=("gpt_neox.embed_in.weight",),
            norm=("gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias"),
            stored_head="embed_out.weight",
        ),
    }
    return known[model_type]() if isinstance(model_type, str) and model_type in known else None


def raw_config(folder: Path) -> dict[str, Any] | None:
    """A folder's config.json as it stands, of a known architecture and not quantised; None otherwise."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(config, dict) and _architecture(config.get("model_type")) is not None
    return config if known and "quantization_config" not in config and known_depth(config) else None


def known_depth(config: Mapping[str, Any]) -> int | None:
    """Number of decoder layers that the config of a known architecture gives, or None."""
    architecture = _architecture(config.get("model_type"))
    depth = config.get(architecture.depth) if architecture else None
    return depth if isinstance(depth, int) and not isinstance(depth, bool) and depth > 0 else None


def outer_of(config: Mapping[str, Any]) -> Outer | None:
    """Where a known architecture keeps its embeddings."""
    architecture = _architecture(config.get("model_type"))
    return None if architecture is None else Outer(architecture.embed[0], architecture.stored_head, architecture.width)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether a known architecture's output head is its input embeddings."""
    architecture = _architecture(config.get("model_type"))
    return bool(config.get("tie_word_embeddings", architecture is not None and architecture.tied))


def known_places(config: Mapping[str, Any], stored: Collection[str]) -> Places | None:
    """The slot of every tensor named in ``stored``, if those are exactly the tensors that the config calls for."""
    architecture, depth = _architecture(config.get("model_type")), known_depth(config)
    if architecture is None or depth is None:
        return None
    tied, layer = is_tied(config), architecture.layer(config)
    expected = {name: ("embed", name) for name in architecture.embed}
    for index in range(depth):
        names = (f"{architecture.layers}{index}.{suffix}" for suffix in layer)
        expected |= {name: (layer_slot(index), name) for name in names}
    expected |= {name: ("norm", name) for name in architecture.norm}
    if not tied:
        expected[architecture.stored_head] = ("head", architecture.head)
    if expected.keys() != set(stored):
        return None
    aliases = {name: (architecture.head,) if tied and name == architecture.embed[0] else () for name in stored}
    return Places(depth, {name: expected[name] for name in stored}, aliases)
