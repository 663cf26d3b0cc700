"""Experts: from a name and a folder to checked, memory-mapped weights with a digest for every slot.

Weights are read from safetensors only (a pickled checkpoint can run code when it is opened), never from the network,
and no code of the checkpoint is run. Importing this module imports no torch; loading does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import LayerswapError, one_line
from harness.files import inside, read_object
from harness.identity import Digested, config_digest
from harness.plan import layer_slot, slot_names

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class LoadedExpert:
    """A checkpoint in memory, in evaluation mode and without gradients.

    ``slot_digests`` are SHA-256 (hex) over dtype, shape and bytes of each slot's tensors, as loaded.
    """

    name: str
    path: Path
    model: PreTrainedModel
    slot_digests: Mapping[str, str]
    config_digest: str

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.slot_digests) - 3


def load_expert(
    name: str,
    path: str | Path,
    dtype: str = "auto",
    base_path: str | Path | None = None,
    known: Digested | None = None,
) -> LoadedExpert:
    """The causal LM in the local folder ``path``, its weights memory-mapped where ``dtype`` is the stored one.

    ``dtype`` is one of :data:`DTYPES`; ``auto`` keeps the stored one. If the folder holds a PEFT adapter, it is merged
    into the model in ``base_path`` (or into the base that the adapter names, if that is a local folder). ``known`` are
    the digests of these very files, if somebody has read and checked all of their weights: nobody does so again. Raises
    :class:`LayerswapError` if the folder, its config or its safetensors are missing, or if weights are.
    """
    if dtype not in DTYPES:
        raise LayerswapError(f"unknown dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    folder = Path(path)
    if not folder.is_dir():
        raise LayerswapError(f"expert {name!r}: there is no folder {str(folder)!r}")
    if (folder / "adapter_config.json").is_file():
        model = _with_adapter(name, folder, dtype, base_path)
    else:
        model = _from_folder(name, folder, dtype)
    if known is None:
        return as_expert(name, model, folder)
    model.eval().requires_grad_(False)
    return LoadedExpert(name, folder, model, known.slot_digests, known.config_digest)


def as_expert(name: str, model: PreTrainedModel, path: str | Path = "") -> LoadedExpert:
    """A model that is already in memory, as an expert; puts it into evaluation mode and turns gradients off."""
    model.eval().requires_grad_(False)
    check_numbers(name, path, model)
    return LoadedExpert(name, Path(path), model, slot_digests(model), config_digest(model.config.to_diff_dict()))


def check_numbers(name: str, path: str | Path, model: PreTrainedModel) -> None:
    """Raises :class:`LayerswapError` naming the first tensor of ``model`` with NaN or infinite values."""
    import torch

    for tensor, value in model.state_dict().items():
        if not value.is_floating_point() or value.device.type == "meta":
            continue
        # A sum is infinite or NaN if a value is, and takes half the time; it may be so of large values, too.
        if not torch.isfinite(value.sum(dtype=torch.float32)) and not torch.isfinite(value).all():
            place = f" ({str(path)!r})" if str(path) else ""
            raise LayerswapError(f"expert {name!r}{place}: {tensor} holds NaN or infinite values")


def slots_of(model: PreTrainedModel) -> Mapping[str, tuple[str, ...]]:
    """The names of the tensors in ``model``'s state by slot; of tied tensors every name is listed in its own slot.

    The layers are the module list as long as the config is deep; input embeddings, and whatever comes before the layers
    in module order (position embeddings, embedding norms), are ``embed``; the output embeddings are ``head``; the rest
    is ``norm``. Raises :class:`LayerswapError` if there is no such list or an encoder.
    """
    layers, prefix = _layer_list(model)
    names = {id(module): name for name, module in model.named_modules(remove_duplicate=False)}
    head = model.get_output_embeddings()
    embed_prefix = names[id(model.get_input_embeddings())] + "."
    head_prefix = None if head is None else names[id(head)] + "."
    slots: dict[str, list[str]] = {slot: [] for slot in slot_names(layers)}
    seen_layers = False
    for name in model.state_dict(keep_vars=True):
        if name.startswith(prefix):
            seen_layers = True
            slots[layer_slot(int(name[len(prefix) :].split(".", 1)[0]))].append(name)
        elif head_prefix and name.startswith(head_prefix):
            slots["head"].append(name)
        # Some architectures (OPT) register their final norm before their layers.
        elif name.startswith(embed_prefix) or not (seen_layers or "final" in name or "project_out" in name):
            slots["embed"].append(name)
        else:
            slots["norm"].append(name)
    return {slot: tuple(tensors) for slot, tensors in slots.items()}


def layers_prefix(model: PreTrainedModel) -> str:
    """What the names of all layers' tensors begin with, such as ``model.layers.``."""
    return _layer_list(model)[1]


def _layer_list(model: PreTrainedModel) -> tuple[int, str]:
    from torch import nn

    if getattr(model.config, "is_encoder_decoder", False):
        raise LayerswapError(f"{type(model).__name__} is an encoder-decoder: only decoder-only models can be swapped")
    depth = int(model.config.get_text_config().num_hidden_layers)
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise LayerswapError(f"{type(model).__name__} has no module list of {depth} layers, the depth its config gives")
    # A deep vision tower or per-layer extras can be as long; the decoder's layers hold the most weights.
    name, _ = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return depth, f"{name}."


def canonical_names(model: PreTrainedModel) -> Mapping[str, str]:
    """For every tensor in ``model``'s state the first name of the same tensor: tied names map to one."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(t), name) for name, t in model.state_dict(keep_vars=True).items()}


def slot_digests(model: PreTrainedModel) -> Mapping[str, str]:
    """SHA-256 (hex) of each slot: dtype, shape and bytes of its tensors, in the order of their names."""
    import torch

    state, slots = model.state_dict(), slots_of(model)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing lets go of Python's lock
        found = pool.map(lambda names: _tensors_digest([state[name] for name in sorted(names)]), slots.values())
        return dict(zip(slots, found, strict=True))


def _tensors_digest(tensors: list[torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_folder(name: str, folder: Path, dtype: str) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise LayerswapError(f"expert {name!r}: {str(folder)!r} has no config.json, so it is no model")
    from harness.merging.claims import check_claims
    from harness.merging.headers import read_folder

    try:
        check_claims(folder, read_folder(folder))
    except LayerswapError as error:
        raise LayerswapError(f"expert {name!r}: {error}") from error
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            **{_dtype_keyword(): dtype},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers, torch and safetensors make of a checkpoint from anywhere
        reason = one_line(error)
        raise LayerswapError(f"expert {name!r} cannot be loaded from {str(folder)!r}: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        raise LayerswapError(
            f"expert {name!r}: {len(missing)} tensors are missing in {str(folder)!r}, the first is {missing[0]}"
        )
    return model


def _with_adapter(name: str, folder: Path, dtype: str, base_path: str | Path | None) -> PreTrainedModel:
    named = read_object(inside(folder, "adapter_config.json")).get("base_model_name_or_path") or ""
    named = named if isinstance(named, str) else ""
    base = Path(base_path if base_path is not None else named)
    if base_path is None and not (named and base.is_dir()):
        raise LayerswapError(
            f"expert {name!r} is an adapter: give the folder of its base model ({named or 'not named'})"
        )
    if not inside(folder, "adapter_model.safetensors").is_file():  # peft would open a pickle instead
        raise LayerswapError(f"expert {name!r}: the adapter {str(folder)!r} has no adapter_model.safetensors")
    try:
        from peft import PeftModel
    except ImportError as error:
        raise LayerswapError(f"expert {name!r} is an adapter: install peft to merge it into its base") from error
    model = _from_folder(name, base, dtype)
    try:
        merged = PeftModel.from_pretrained(model, str(folder), is_trainable=False).merge_and_unload()
    except Exception as error:  # whatever peft makes of an adapter from anywhere
        raise LayerswapError(
            f"expert {name!r}: the adapter {str(folder)!r} cannot be used: {one_line(error)}"
        ) from error
    merged.config._name_or_path = str(folder)
    return merged


def _dtype_keyword() -> str:
    from transformers import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
