"""Checkpoints as tensors on disk or in memory, read one at a time, and the slots they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import LayerswapError, one_line
from harness.experts import LoadedExpert, canonical_names, layers_prefix, slots_of
from harness.files import inside, read_object, shortened
from harness.merging.headers import DTYPES, INDEX, Range, kinds, read_folder
from harness.merging.layout import Places, known_depth, known_places, raw_config
from harness.plan import DEEPEST, OUTER_SLOTS, layer_slot

if TYPE_CHECKING:
    import torch

Source = str | Path | LoadedExpert
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True)
class Stored:
    """A checkpoint whose tensors can be read one by one.

    ``tensors`` gives dtype (torch's name) and shape by name, ``shards`` the file that a tensor lies in, ``dtype`` what
    the config says the weights are, ``digest()`` is SHA-256 (hex) of config and weights, ``indexed`` whether an index
    names the shards; ``folder`` is where tokenizer files lie, if anywhere. ``ranges`` says where in its files each
    tensor lies (nowhere, for a model in memory); ``model_config()`` is transformers' view of the config.
    """

    folder: Path | None
    config: dict[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    shards: Mapping[str, str]
    indexed: bool
    dtype: str
    ranges: Mapping[str, Range]
    digest: Callable[[], str]
    read: Callable[[str], torch.Tensor]
    model_config: Callable[[], Any]


def read_config(folder: Path) -> Any:
    """A folder's configuration as transformers reads it, with its defaults filled in; raises if there is none."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise LayerswapError(f"{str(folder)!r} has no config.json, so it is no model")
    raw = read_object(inside(folder, "config.json"))
    for part in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        for key in _DEPTHS:  # transformers makes lists as long
            if isinstance(depth := part.get(key), int) and depth > DEEPEST:
                raise _wrong_depth(folder, key, depth)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of a config from anywhere
        raise LayerswapError(f"the config in {str(folder)!r} cannot be read: {one_line(error)}") from error


def read_depth(folder: Path) -> int:
    """A model's number of decoder layers, from its config alone; transformers is asked about unknown architectures."""
    config = raw_config(folder)
    depth = None if config is None else known_depth(config)
    if depth is None:
        depth = getattr(read_config(folder).get_text_config(), "num_hidden_layers", None)
    if type(depth) is not int or not 0 < depth <= DEEPEST:
        raise _wrong_depth(folder, "num_hidden_layers", depth)
    return depth


def _wrong_depth(folder: Path, key: str, depth: object) -> LayerswapError:
    path = str(folder / "config.json")
    return LayerswapError(f"{path!r}: {key} is {shortened(depth)}: expected 1 to {DEEPEST:,}")


def open_source(source: Source, digest: Callable[[Path], Callable[[], str]]) -> Stored:
    """A folder, or an expert in memory, for reading tensor by tensor; ``digest`` gives what gives that of a folder."""
    if isinstance(source, LoadedExpert):
        return _open_model(source)
    folder = Path(source)
    return _open_folder(folder, digest(folder))


def place_tensors(donor: Stored) -> Places:
    """The slot of every stored tensor; tensors that the architecture does not know (it ignores them) are left out."""
    config = None if donor.folder is None or not donor.ranges else raw_config(donor.folder)
    known = None if config is None else known_places(config, donor.tensors)
    if known is not None:
        return known
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(donor.model_config(), trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of a config from anywhere
        reason = one_line(str(error).split("\n")[0])
        raise LayerswapError(
            f"{str(donor.folder)!r} is no language model that transformers can build from its config: {reason}"
        ) from error
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


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's own bytes, as safetensors stores them."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def torch_dtype(name: str) -> torch.dtype:
    """The element type called ``name`` in torch (``"bfloat16"``)."""
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise LayerswapError(f"unknown dtype {name!r}: expected float32, bfloat16 or float16")
    return dtype


def _open_folder(folder: Path, digest: Callable[[], str]) -> Stored:
    if (folder / "adapter_config.json").is_file():
        raise LayerswapError(
            f"{str(folder)!r} is an adapter: load it with its base, and give the loaded expert instead"
        )
    if raw_config(folder) is None:
        read_config(folder)  # which says what is wrong with it
    config = read_object(inside(folder, "config.json"))
    ranges = read_folder(folder)
    tensors = kinds(ranges)
    shards = {name: part.path.name for name, part in ranges.items()}

    def read(name: str) -> torch.Tensor:
        from safetensors import safe_open

        # Opened anew each time: pages of a closed mapping no longer count as this process's memory.
        with safe_open(folder / shards[name], framework="pt") as file:
            return cast("torch.Tensor", file.get_tensor(name))

    indexed = (folder / INDEX).is_file()
    first = next((dtype for dtype, _ in tensors.values() if "float" in dtype), "float32")
    named = config.get("dtype") or config.get("torch_dtype") or first
    if not isinstance(named, str) or named not in DTYPES.values():
        raise LayerswapError(f"{str(folder / 'config.json')!r}: dtype is {shortened(named)}: expected such as bfloat16")
    model_config = partial(read_config, folder)
    return Stored(folder, config, tensors, shards, indexed, named, ranges, digest, read, model_config)


def _open_model(expert: LoadedExpert) -> Stored:
    canonical = canonical_names(expert.model)
    state = {name: t for name, t in expert.model.state_dict().items() if canonical[name] == name}
    tensors = {name: (_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in state.items()}
    config = json.loads(expert.model.config.to_json_string())
    config |= {"architectures": [type(expert.model).__name__], "dtype": _dtype_name(expert.model)}
    digest = hashlib.sha256(json.dumps([expert.config_digest, dict(expert.slot_digests)]).encode()).hexdigest()
    shards = dict.fromkeys(tensors, "model.safetensors")
    folder = expert.path if expert.path.is_dir() else None
    read, model_config = state.__getitem__, expert.model.config
    return Stored(
        folder, config, tensors, shards, False, config["dtype"], {}, lambda: digest, read, lambda: model_config
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
