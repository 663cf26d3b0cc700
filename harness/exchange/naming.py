"""Names for the models of a mergekit file, which knows them by their paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.errors import LayerswapError
from harness.exchange.schema import MergekitFile, Model

TASK_VECTORS = ("ties", "task_arithmetic")


def places(file: MergekitFile) -> list[str]:
    """Every model that the file reads weights of, by its path or hub id."""
    models: list[Model] = [*file.models, *(source for part in file.slices for source in part.sources)]
    used = dict.fromkeys(model.model for model in models)
    if file.base_model and file.merge_method in TASK_VECTORS:
        used[file.base_model] = None
    return list(used)


def named(path: Path, file: MergekitFile, names: Mapping[str, str]) -> dict[str, str]:
    """A name for each model: as told, ``base`` for the base of task vectors, else the last part of its path."""
    known = places(file)
    if unknown := [place for place in names if place not in known]:
        raise LayerswapError(f"{path}: no model {unknown[0]!r} in it: it has {', '.join(known)}")
    found = {place: names[place] for place in known if place in names}
    base = file.base_model if file.merge_method in TASK_VECTORS else None
    if base and found.setdefault(base, "base") != "base":
        raise LayerswapError(f"{path}: base_model is named {found[base]!r}: its name must be base")
    for place in known:
        if place not in found:
            stem = re.sub(r"[^\w.@+-]", "-", place.rstrip("/").rpartition("/")[2]) or "model"
            taken, name, number = set(found.values()), stem, 1
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            found[place] = name
    return found
