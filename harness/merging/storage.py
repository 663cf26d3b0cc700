"""Checkpoints as tensors on disk: reading one tensor at a time, and writing safetensors the same way."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import LayerswapError
from harness.experts import LoadedExpert, canonical_names, folder_digest, layers_prefix, slots_of
from harness.plan import OUTER_SLOTS, layer_slot

if TYPE_CHECKING:
    import torch

Source = str | Path | LoadedExpert

# safetensors' names of element types, and torch's.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Stored:
    """A checkpoint whose tensors can be read one by one.

    ``tensors`` gives dtype (torch's name) and shape by name, ``shards`` the file that a tensor lies in, ``dtype`` what
    the config says the weights are, ``digest`` is SHA-256 (hex) of config and weights, ``indexed`` whether an index
    names the shards; ``folder`` is where tokenizer files lie, if anywhere.
    """

    folder: Path | None
    config: dict[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    shards: Mapping[str, str]
    indexed: bool
    dtype: str
    digest: str
    read: Callable[[str], torch.Tensor]
    model_config: Any


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its dtype (torch's name), its shape, and what makes it."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Places:
    """Where stored tensors belong: (slot, canonical name in the model) by stored name, in stored order.

    ``tied`` gives, for a stored tensor, the further names under which the model uses it.
    """

    layers: int
    tensors: Mapping[str, tuple[str, str]]
    tied: Mapping[str, tuple[str, ...]]


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype (torch's name) and shape of every tensor in a safetensors file, in the order of their bytes; no torch."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > path.stat().st_size:
            raise LayerswapError(f"{str(path)!r} is cut off or no safetensors file")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return {name: (_DTYPES.get(e["dtype"], e["dtype"]), tuple(e["shape"])) for name, e in entries}


def read_headers(folder: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
    """Dtypes and shapes of a folder's tensors, and the file of each; only files of the index if there is one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    else:
        files = sorted(file.name for file in folder.glob("*.safetensors"))
    if not files:
        raise LayerswapError(f"{str(folder)!r} has no safetensors weights")
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise LayerswapError(f"{str(folder)!r} lacks {missing[0]}, which its index names")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    shards: dict[str, str] = {}
    for file in files:
        header = read_header(folder / file)
        tensors |= header
        shards |= dict.fromkeys(header, file)
    return tensors, shards


def read_config(folder: Path) -> Any:
    """A folder's configuration as transformers reads it, with its defaults filled in; raises if there is none."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise LayerswapError(f"{str(folder)!r} has no config.json, so it is no model")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise LayerswapError(f"the config in {str(folder)!r} cannot be read: {error}") from error


def open_source(source: Source) -> Stored:
    """A folder, or an expert in memory, for reading tensor by tensor."""
    return _open_model(source) if isinstance(source, LoadedExpert) else _open_folder(Path(source))


def place_tensors(donor: Stored) -> Places:
    """The slot of every stored tensor; tensors that the architecture does not know (it ignores them) are left out."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(donor.model_config, trust_remote_code=False)
    slots, canonical = slots_of(model), canonical_names(model)
    slot_of = {name: slot for slot, names in slots.items() for name in names}
    base, layers = f"{model.base_model_prefix}.", layers_prefix(model)
    named = {stored: _model_name(stored, slot_of, base) for stored in donor.tensors}
    in_layers = {stored: _layer_of(stored, (layers, layers.removeprefix(base))) for stored in donor.tensors}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if canonical[name] == name}
    named |= _renamed(donor, [s for s, name in named.items() if name is None and in_layers[s] is None], named, shapes)
    present = {name for name in named.values() if name is not None}
    tensors: dict[str, tuple[str, str]] = {}
    for stored, name in named.items():
        if name is not None:
            # Of tied tensors a file may hold several; the first one stands for all.
            if canonical[name] == name or canonical[name] not in present:
                tensors[stored] = (slot_of[canonical[name]], canonical[name])
        elif (layer := in_layers[stored]) is not None:
            # Inside of a layer the file's layout may differ from the model's (experts that are fused on loading).
            tensors[stored] = (layer_slot(layer), stored)
    tied = {
        stored: tuple(alias for alias, first in canonical.items() if first == name and alias != name)
        for stored, (_, name) in tensors.items()
    }
    return Places(len(slots) - len(OUTER_SLOTS), tensors, tied)


def write_tensors(path: Path, tensors: Mapping[str, Planned]) -> int:
    """Writes a safetensors file, making each tensor when its turn comes; returns the bytes of all tensors."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * torch_dtype(tensor.dtype).itemsize
        kind = next(stored for stored, known in _DTYPES.items() if known == tensor.dtype)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, planned in tensors.items():
            made = planned.make()
            if made.dtype != torch_dtype(planned.dtype) or tuple(made.shape) != planned.shape:
                raise LayerswapError(f"{name}: got {made.dtype} {list(made.shape)}, planned {planned}")
            stream.write(made.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return end


def torch_dtype(name: str) -> torch.dtype:
    """The element type called ``name`` in torch (``"bfloat16"``)."""
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise LayerswapError(f"unknown dtype {name!r}: expected float32, bfloat16 or float16")
    return dtype


def _open_folder(folder: Path) -> Stored:
    if (folder / "adapter_config.json").is_file():
        raise LayerswapError(
            f"{str(folder)!r} is an adapter: load it with its base, and give the loaded expert instead"
        )
    model_config = read_config(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors, shards = read_headers(folder)

    def read(name: str) -> torch.Tensor:
        from safetensors import safe_open

        # Opened anew each time: pages of a closed mapping no longer count as this process's memory.
        with safe_open(folder / shards[name], framework="pt") as file:
            return cast("torch.Tensor", file.get_tensor(name))

    indexed = (folder / "model.safetensors.index.json").is_file()
    first = next((dtype for dtype, _ in tensors.values() if "float" in dtype), "float32")
    named = config.get("dtype") or config.get("torch_dtype") or first
    return Stored(folder, config, tensors, shards, indexed, named, folder_digest(folder), read, model_config)


def _open_model(expert: LoadedExpert) -> Stored:
    canonical = canonical_names(expert.model)
    state = {name: t for name, t in expert.model.state_dict().items() if canonical[name] == name}
    tensors = {name: (_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in state.items()}
    config = json.loads(expert.model.config.to_json_string())
    config |= {"architectures": [type(expert.model).__name__], "dtype": _dtype_name(expert.model)}
    digest = hashlib.sha256(json.dumps([expert.config_digest, dict(expert.slot_digests)]).encode()).hexdigest()
    shards = dict.fromkeys(tensors, "model.safetensors")
    folder = expert.path if expert.path.is_dir() else None
    return Stored(
        folder, config, tensors, shards, False, config["dtype"], digest, state.__getitem__, expert.model.config
    )


def _dtype_name(of: Any) -> str:
    return str(of.dtype).removeprefix("torch.")


def _model_name(stored: str, known: Mapping[str, str], base: str) -> str | None:
    """The model's own name of a stored tensor, with or without the prefix of the model without its head."""
    return next((name for name in (stored, base + stored, stored.removeprefix(base)) if name in known), None)


def _renamed(
    donor: Stored, unknown: list[str], named: Mapping[str, str | None], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Stored names outside of the layers that loading renames (GPT-NeoX's head): the only ones of their shape."""
    filled = set(named.values())
    open_names = [name for name in shapes if name not in filled]
    found = {}
    for stored in unknown:
        shape = donor.tensors[stored][1]
        fitting = [name for name in open_names if shapes[name] == shape]
        if len(fitting) == 1 and sum(donor.tensors[other][1] == shape for other in unknown) == 1:
            found[stored] = fitting[0]
    return found


def _layer_of(stored: str, prefixes: tuple[str, ...]) -> int | None:
    for prefix in prefixes:
        index = stored.removeprefix(prefix).split(".", 1)[0]
        if stored.startswith(prefix) and index.isdigit():
            return int(index)
    return None
