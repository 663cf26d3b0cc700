"""What weights compute, as digests: equal identities mean equal weights, whatever they are called or lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from harness.plan import Mix, Plan

# What may differ between two configs without a change in what the weights compute.
_CONFIG_IGNORED = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "hidden_dropout",
        "initializer_range",
        "max_position_embeddings",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


class Digested(Protocol):
    """What :func:`identity` needs to know of an expert; a record of an earlier load will do."""

    @property
    def slot_digests(self) -> Mapping[str, str]:
        """SHA-256 (hex) of each slot's weights."""

    @property
    def config_digest(self) -> str:
        """SHA-256 (hex) of the architecture: the part of the config that changes what weights compute."""


def identity(plan: Plan, experts: Mapping[str, Digested], dtype: str) -> str:
    """SHA-256 (hex) of the weights that ``plan`` would give: equal weights under other names are equal.

    Each slot counts as its mix's text with names replaced by digests, so that a copied slot is just its digest.
    """
    lines = [f"{slot}: {text}" for (slot, _), text in zip(plan.mixes, slot_identities(plan, experts), strict=True)]
    configs = sorted({experts[name].config_digest for name in plan.experts})
    return _sha256("\n".join([f"dtype: {dtype}", f"configs: {' '.join(configs)}", *lines]).encode())


def slot_identities(plan: Plan, experts: Mapping[str, Digested]) -> tuple[str, ...]:
    """What each slot would hold, in the order of slots: equal texts mean equal weights."""
    return tuple(_anonymous(slot, mix, experts).text for slot, mix in plan.mixes)


def _anonymous(slot: str, mix: Mix, experts: Mapping[str, Digested]) -> Mix:
    def digest(name: str) -> str:
        if mix.parameter("trim") == "model":  # the threshold depends on every slot
            whole = _sha256(json.dumps(sorted(experts[name].slot_digests.items())).encode())
            return f"{experts[name].slot_digests[slot]}/{whole}"
        if mix.operation == "dare_ties":  # the masks depend on the name
            return f"{experts[name].slot_digests[slot]}/{name}"
        return experts[name].slot_digests[slot]

    parameters = tuple((key, digest(str(value)) if key == "base" else value) for key, value in mix.parameters)
    return replace(mix, sources=tuple((digest(name), weight) for name, weight in mix.sources), parameters=parameters)


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a config without what does not change the computation (paths, versions, token ids, dtype)."""
    return _sha256(json.dumps(relevant_config(config), sort_keys=True, default=str).encode())


def relevant_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config that change what weights compute; nested configs likewise."""
    kept = {key: value for key, value in config.items() if key not in _CONFIG_IGNORED}
    return {key: relevant_config(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def folder_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a checkpoint folder's configs and weights, read from disk without torch: a key for caches."""
    digest = hashlib.sha256()
    files = [file for pattern in ("*config.json", "*.safetensors") for file in Path(path).glob(pattern)]
    for file in sorted(files):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
