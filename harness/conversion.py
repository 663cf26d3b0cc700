"""GGUF files as plain checkpoints: converted once into the user's cache folder, by transformers' own reader."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, overload

from filelock import FileLock

from harness.errors import LayerswapError
from harness.files import atomic_folder, cache_folder
from harness.versions import version_of


def weights_folder(name: str, facts: object) -> Path:
    """The folder in the user's cache for weights made from ``facts``; it is there once they have been made."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / "weights" / f"{name}-{digest}"


def lock_of(target: Path) -> FileLock:
    """What a process holds while it makes ``target``."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LayerswapError(
            f"cannot keep converted weights in {str(target.parent)!r} ({error.strerror}): "
            "LAYERSWAP_CACHE names another folder"
        ) from error
    return FileLock(target.with_name(f".{target.name}.lock"))


@overload
def converted(file: Path, dtype: str = ..., make: Literal[True] = ...) -> Path: ...


@overload
def converted(file: Path, dtype: str, make: bool) -> Path | None: ...


def converted(file: Path, dtype: str = "float32", make: bool = True) -> Path | None:
    """The folder of a plain checkpoint (safetensors, config, tokenizer) with the weights of a GGUF file.

    None if it has yet to be made and ``make`` is false. Quantised weights are widened to ``dtype`` (``auto`` is
    bfloat16). The file counts as the same while its path, size and time of change are.
    Raises :class:`LayerswapError` if it is missing, or no model that transformers can read.
    """
    if not file.is_file():
        raise LayerswapError(f"there is no file {str(file)!r}")
    dtype = "bfloat16" if dtype == "auto" else dtype
    seen = file.stat()
    target = weights_folder(
        file.stem, [str(file.resolve()), seen.st_size, seen.st_mtime_ns, dtype, version_of("transformers")]
    )
    if target.is_dir():
        return target
    if find_spec("gguf") is None:
        raise LayerswapError(f"{str(file)!r} is a GGUF file: install gguf to read it (pip install gguf)")
    if not make:
        return None
    with lock_of(target):
        if not target.is_dir():
            _convert(file, dtype, target)
    return target


def _convert(file: Path, dtype: str, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        quantized = AutoModelForCausalLM.from_pretrained(file.parent, dtype=getattr(torch, dtype), **given)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
    except Exception as error:  # the readers of the format raise whatever comes
        reason = (str(error).splitlines() or [""])[0]
        raise LayerswapError(f"{str(file)!r} cannot be read as GGUF: {type(error).__name__}: {reason}") from error
    # The loaded object counts as quantised and refuses to be saved: a fresh one takes its tensors.
    config = quantized.config
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantized.generation_config
    with atomic_folder(target, flush=False) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
