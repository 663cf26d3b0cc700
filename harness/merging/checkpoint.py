"""Variants on disk: streamed tensor by tensor into a checkpoint folder that any tool can load.

The folder appears complete or not at all: it is written under a hidden name beside the target, flushed to the disk
and renamed. At any time about one tensor of each expert is in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import LayerswapError
from harness.merging.arithmetic import merge_tensor, task_vector, threshold
from harness.merging.preflight import preflight
from harness.merging.storage import Planned, Source, Stored, open_source, place_tensors, torch_dtype, write_tensors
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
    plan: Plan, experts: Mapping[str, Source], out: str | Path, recipe_text: str = "", dtype: str = "auto"
) -> Path:
    """Writes ``plan``'s variant to the new folder ``out`` and returns it.

    ``experts`` are local folders (or loaded experts: merged adapters have no folder of their own) by name, ``dtype``
    what to compute and store in (``auto``: copies as stored, the rest as the config says). The shards are those of the
    first expert that the plan names; config, tokenizer and generation config are its too. ``recipe.json`` holds the
    plan and the experts' digests. Loading the folder gives the in-memory variant bit for bit. Raises
    :class:`LayerswapError` if ``out`` exists, if the experts do not fit together, or if writing fails.
    """
    target = Path(out)
    if target.exists() or target.is_symlink():
        raise LayerswapError(f"{str(target)!r} exists: choose another output folder, or remove it first")
    if unknown := [name for name in plan.experts if name not in experts]:
        raise LayerswapError(f"no folder is given for the expert {unknown[0]!r}")
    used = {name: experts[name] for name in plan.experts}
    preflight(used)
    sources = {name: open_source(source) for name, source in used.items()}
    donor = sources[plan.experts[0]]
    entries = _entries(plan, donor)
    with _atomic_folder(target) as folder:
        _write_weights(folder, entries, sources, dtype)
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


def _write_weights(folder: Path, entries: Sequence[_Entry], sources: Mapping[str, Stored], dtype: str) -> None:
    donor = next(iter(sources.values()))
    computed = torch_dtype(dtype if dtype != "auto" else donor.dtype)
    kept = None if dtype == "auto" else computed
    cuts: dict[tuple[str, str, float], float] = {}

    def read(expert: str, stored: str, wanted: torch.dtype | None) -> torch.Tensor:
        tensor = sources[expert].read(stored)
        return tensor.to(wanted) if wanted is not None and tensor.is_floating_point() else tensor

    def cut_of(mix: Mix) -> Callable[[str], float] | None:
        if mix.parameter("trim") != "model":
            return None
        base, density = str(mix.parameter("base")), float(mix.parameter("density") or 0.0)
        names = list(dict.fromkeys(entry.stored for entry in entries))

        def deltas(expert: str) -> Iterator[torch.Tensor]:
            for name in names:
                tensor = read(expert, name, computed)
                if tensor.is_floating_point():
                    yield from task_vector(tensor, read(base, name, computed))

        def cut(expert: str) -> float:
            if (expert, base, density) not in cuts:
                cuts[expert, base, density] = threshold(lambda: deltas(expert), density)
            return cuts[expert, base, density]

        return cut

    def plan_tensor(entry: _Entry) -> Planned:
        stored, shape = donor.tensors[entry.stored]
        wanted = kept if entry.mix.is_copy else computed
        final = wanted if wanted is not None and torch_dtype(stored).is_floating_point else torch_dtype(stored)

        def make() -> torch.Tensor:
            return merge_tensor(entry.mix, entry.canonical, lambda e: read(e, entry.stored, wanted), cut_of(entry.mix))

        return Planned(str(final).removeprefix("torch."), shape, make)

    shards: dict[str, list[_Entry]] = {}
    for entry in entries:
        shards.setdefault(entry.shard, []).append(entry)
    size = 0
    for shard, members in shards.items():
        size += write_tensors(folder / shard, {entry.name: plan_tensor(entry) for entry in members})
    if len(shards) > 1 or donor.indexed:
        index = {"metadata": {"total_size": size}, "weight_map": {e.name: e.shard for e in entries}}
        _write_json(folder / "model.safetensors.index.json", index)


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
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


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
        "experts": {name: source.digest for name, source in sources.items()},
    }


def _card(title: str, plan: Plan, sources: Mapping[str, Stored], recipe_text: str) -> str:
    experts = "\n".join(f"| {name} | `{source.digest[:16]}` |" for name, source in sources.items())
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


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside ``target`` that takes its name when the block ends well, and is removed otherwise."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise LayerswapError(f"cannot write to {str(target.parent)!r}: {error.strerror}") from error
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
        for path in (*folder.iterdir(), folder):
            _flush(path)
        folder.rename(target)
        _flush(target.parent)
    except OSError as error:
        raise LayerswapError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk: a rename must not get there first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
