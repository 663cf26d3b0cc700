"""Variants on disk: streamed tensor by tensor into a checkpoint folder that any tool can load.

The folder appears complete or not at all: it is written under a hidden name beside the target, flushed to the disk
and renamed. At any time about one tensor of each expert is in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.cache import Cache
from harness.digests import start_folder_digest
from harness.errors import LayerswapError
from harness.files import atomic_folder, inside
from harness.merging.arithmetic import merge_tensor, task_vector, threshold
from harness.merging.floats import DTYPES as FLOATS
from harness.merging.preflight import preflight
from harness.merging.storage import Source, Stored, open_source, place_tensors, tensor_bytes, torch_dtype
from harness.merging.streams import OPERATIONS as STREAMED
from harness.merging.streams import Workspace, merged, model_cut
from harness.merging.writing import Planned, write_tensors
from harness.plan import Mix, Plan

if TYPE_CHECKING:
    import torch

_COPIED = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
_COPIED_TOO = ("generation_config.json", "chat_template*")


@dataclass(frozen=True)
class _Entry:
    """One tensor of the result: its name, the shard it goes to, the stored tensor it is made of, and how."""

    name: str
    shard: str
    stored: str
    canonical: str
    mix: Mix


def write_checkpoint(
    plan: Plan,
    experts: Mapping[str, Source],
    out: str | Path,
    recipe_text: str = "",
    dtype: str = "auto",
    cache: Cache | None = None,
    flush: bool = True,
) -> Path:
    """Writes ``plan``'s variant to the new folder ``out`` and returns it.

    ``experts`` are local folders (or loaded experts: merged adapters have no folder of their own) by name, ``dtype``
    what to compute and store in (``auto``: copies as stored, the rest as the config says). The shards are those of the
    first expert that the plan names; config, tokenizer and generation config are its too. ``recipe.json`` holds the
    plan and the experts' digests. Loading the folder gives the in-memory variant bit for bit. ``cache``
    keeps the digests of files that have not changed; without ``flush`` a power cut may leave a damaged folder. Raises
    :class:`LayerswapError` if ``out`` exists, if the experts do not fit together, or if writing fails.
    """
    if dtype not in ("auto", *FLOATS):
        torch_dtype(dtype)  # says what is wrong with it
    target = Path(out)
    if target.exists() or target.is_symlink():
        raise LayerswapError(f"{str(target)!r} exists: choose another output folder, or remove it first")
    if unknown := [name for name in plan.experts if name not in experts]:
        raise LayerswapError(f"no folder is given for the expert {unknown[0]!r}")
    used = {name: experts[name] for name in plan.experts}
    preflight(used, cache)
    sources = {name: open_source(source, partial(start_folder_digest, cache=cache)) for name, source in used.items()}
    donor = sources[plan.experts[0]]
    entries = _entries(plan, donor)
    with atomic_folder(target, flush) as folder:
        _write_weights(folder, entries, sources, dtype, flush)
        _copy_files(donor, folder)
        _write_json(folder / "recipe.json", _record(plan, sources, recipe_text, dtype))
        (folder / "README.md").write_text(_card(target.name, plan, sources, recipe_text), "utf-8")
        _write_json(folder / "config.json", _config(plan, donor, dtype))
    return target


def _entries(plan: Plan, donor: Stored) -> list[_Entry]:
    """What to write, in the donor's order; tied heads are written only where the plan fills them differently."""
    places = place_tensors(donor)
    if plan.layers != places.layers:
        raise LayerswapError(f"the plan is for {plan.layers} layers, the experts have {places.layers}")
    untied = plan["embed"] != plan["head"]
    entries: list[_Entry] = []
    for stored, (slot, canonical) in places.tensors.items():
        shard = donor.shards[stored]
        entries.append(_Entry(stored, shard, stored, canonical, plan[slot]))
        for tied in places.tied.get(stored, ()) if untied else ():
            entries.append(_Entry(tied, shard, stored, canonical, plan["head"]))
    return entries


def _write_weights(
    folder: Path, entries: Sequence[_Entry], sources: Mapping[str, Stored], dtype: str, flush: bool
) -> None:
    donor = next(iter(sources.values()))
    computed = dtype if dtype != "auto" else donor.dtype
    cuts: dict[tuple[str, str, float], float] = {}
    workspace = Workspace()
    floats = [entry.stored for entry in entries if "float" in donor.tensors[entry.stored][0]]

    def plan_tensor(entry: _Entry) -> Planned:
        stored, shape = donor.tensors[entry.stored]
        first = entry.mix.sources[0][0]
        wanted = stored if "float" not in stored or (dtype == "auto" and entry.mix.is_copy) else computed
        if (entry.mix.is_copy or "float" not in stored) and stored == wanted and entry.stored in sources[first].ranges:
            return Planned(wanted, shape, sources[first].ranges[entry.stored])
        whole = entry.mix.parameter("trim") == "model"
        if _streams(entry.mix, floats if whole else [entry.stored], sources, computed):
            ranges = {name: sources[name].ranges[entry.stored] for name in entry.mix.experts}
            cut = _kept(cuts, entry.mix, sources, partial(_streamed_cut, names=floats)) if whole else None
            return Planned(wanted, shape, lambda: merged(entry.mix, ranges, workspace, cut))
        into = None if dtype == "auto" and entry.mix.is_copy else computed
        find = partial(_torch_cut, names=floats, dtype=computed)
        cut = _kept(cuts, entry.mix, sources, find) if whole else None
        return Planned(wanted, shape, lambda: [_made(entry, sources, into, cut)])

    shards: dict[str, list[_Entry]] = {}
    for entry in entries:
        shards.setdefault(entry.shard, []).append(entry)
    size = 0
    for shard, members in shards.items():
        size += write_tensors(folder / shard, {entry.name: plan_tensor(entry) for entry in members}, flush)
    if len(shards) > 1 or donor.indexed:
        index = {"metadata": {"total_size": size}, "weight_map": {e.name: e.shard for e in entries}}
        _write_json(folder / "model.safetensors.index.json", index)


def _streams(mix: Mix, names: Sequence[str], sources: Mapping[str, Stored], dtype: str) -> bool:
    """Whether numpy can compute these tensors from file to file: all are stored in the dtype to compute in."""
    if mix.operation not in STREAMED or dtype not in FLOATS:
        return False
    stored = [sources[expert].ranges.get(name) for expert in mix.experts for name in names]
    return all(tensor is not None and tensor.dtype == dtype for tensor in stored)


def _kept(
    known: dict[tuple[str, str, float], float],
    mix: Mix,
    sources: Mapping[str, Stored],
    find: Callable[[Stored, Stored, float], float],
) -> Callable[[str], float]:
    """For TIES over the whole model: the magnitude under which an expert's changes are dropped, found once."""
    base, density = str(mix.parameter("base")), float(mix.parameter("density") or 0.0)

    def cut(expert: str) -> float:
        if (expert, base, density) not in known:
            known[expert, base, density] = find(sources[expert], sources[base], density)
        return known[expert, base, density]

    return cut


def _streamed_cut(expert: Stored, base: Stored, density: float, names: Sequence[str]) -> float:
    return model_cut([(expert.ranges[name], base.ranges[name]) for name in dict.fromkeys(names)], density)


def _torch_cut(expert: Stored, base: Stored, density: float, names: Sequence[str], dtype: str) -> float:
    wanted = torch_dtype(dtype)

    def deltas() -> Iterator[torch.Tensor]:
        for name in dict.fromkeys(names):
            yield from task_vector(expert.read(name).to(wanted), base.read(name).to(wanted))

    return threshold(deltas, density)


def _made(
    entry: _Entry, sources: Mapping[str, Stored], dtype: str | None, cut: Callable[[str], float] | None
) -> memoryview:
    """A tensor computed by torch, from inputs of ``dtype`` (None: as stored)."""
    wanted = None if dtype is None else torch_dtype(dtype)

    def read(expert: str) -> torch.Tensor:
        tensor = sources[expert].read(entry.stored)
        return tensor.to(wanted) if wanted is not None and tensor.is_floating_point() else tensor

    return tensor_bytes(merge_tensor(entry.mix, entry.canonical, read, cut))


def _config(plan: Plan, donor: Stored, dtype: str) -> dict[str, Any]:
    config = {key: value for key, value in donor.config.items() if key != "_name_or_path"}
    parts = [config, *(config[key] for key in ("text_config",) if isinstance(config.get(key), dict))]
    for part in parts:
        if plan["embed"] != plan["head"]:
            part["tie_word_embeddings"] = False
        if dtype != "auto":
            part.pop("torch_dtype", None)
            part["dtype"] = dtype
    return config


def _copy_files(donor: Stored, folder: Path) -> None:
    if donor.folder is None:
        return
    for pattern in (*_COPIED, *_COPIED_TOO):
        for file in sorted(donor.folder.glob(pattern)):
            if file.is_file():  # a link may lead to what is nobody else's business
                shutil.copyfile(inside(donor.folder, file.name), folder / file.name)


def _record(plan: Plan, sources: Mapping[str, Stored], recipe_text: str, dtype: str) -> dict[str, Any]:
    return {
        "format": 1,
        "written_by": f"pytest-layerswap {harness.__version__}",
        "recipe": recipe_text,
        "layers": plan.layers,
        "drawing": plan.drawing,
        "plan": {slot: mix.text for slot, mix in plan.mixes},
        "plan_digest": plan.digest,
        "dtype": dtype,
        "experts": {name: source.digest() for name, source in sources.items()},
    }


def _card(title: str, plan: Plan, sources: Mapping[str, Stored], recipe_text: str) -> str:
    experts = "\n".join(f"| {name} | `{source.digest()[:16]}` |" for name, source in sources.items())
    recipe = f"Recipe: `{recipe_text}`\n\n" if recipe_text else ""
    return (
        f"---\nlibrary_name: transformers\ntags:\n- merge\n- layer-swapping\n---\n\n# {title}\n\n"
        f"Merged by pytest-layerswap {harness.__version__} from {len(sources)} checkpoints; nothing was trained.\n\n"
        f"{recipe}Plan, as embeddings, layers from the bottom up, and norm and head: `{plan.drawing}` (L language, "
        "M math, B base, T weighted average, * another operation). `recipe.json` holds it slot by slot.\n\n"
        f"| expert | SHA-256 of config and weights |\n|---|---|\n{experts}\n"
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
