"""Two profiles out of one: documents to search on, and documents for the scores that count."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.conversion import lock_of, weights_folder
from harness.errors import LayerswapError
from harness.files import atomic_folder
from harness.profiles import BenchmarkSpec, ColumnSpec, Profile

SEED = 4117  # of the embedded tuning items; the shipped ones have another, and other values


@dataclass(frozen=True)
class Split:
    """The profile on its tuning documents and on held-out ones, and where they come from, in a sentence."""

    tuning: Profile
    held_out: Profile
    sentence: str


def split(profile: Profile, columns: Sequence[str]) -> Split:
    """Tuning and held-out documents for some of a profile's columns.

    The embedded world makes new items, of values that neither the experts' training nor the shipped benchmarks have.
    Of other tasks a third of the documents is kept for tuning: a profile whose columns say ``part = "held-out"`` keeps
    its floors off them. Raises :class:`LayerswapError` for unknown columns.
    """
    known = [column.name for spec in profile.benchmarks.values() for column in spec.columns]
    if unknown := [name for name in columns if name not in known]:
        raise LayerswapError(f"profile {profile.name} has no column {unknown[0]!r}: it has {', '.join(known)}")
    if profile.tasks in ("embedded", "small"):
        held_out = _with(profile, columns, _alone)
        folder = _made(profile.tasks, {c.task for spec in held_out.benchmarks.values() for c in spec.columns})
        sentence = "tuned on new items of the validation split, held out are the profile's own documents"
        return Split(held_out.model_copy(update={"tasks": str(folder)}), held_out, sentence)
    chosen = [c for spec in profile.benchmarks.values() for c in spec.columns if c.name in columns]
    sentence = "tuned on a third of the documents, by their digests; held out are the others"
    if open_ := [column.name for column in chosen if column.part != "held-out"]:
        sentence += (
            f'. The floors of {", ".join(open_)} read both: write part = "held-out" in these columns of the profile '
            "to keep them off the tuning documents"
        )
    parts = [_with(profile, columns, partial(_part, part=part)) for part in ("tuning", "held-out")]
    return Split(parts[0], parts[1], sentence)


def _part(column: ColumnSpec, part: str) -> ColumnSpec:
    return _alone(column).model_copy(update={"part": part})


def _with(profile: Profile, columns: Sequence[str], change: Callable[[ColumnSpec], ColumnSpec]) -> Profile:
    kept: dict[str, BenchmarkSpec] = {}
    for name, spec in profile.benchmarks.items():
        if some := tuple(change(column) for column in spec.columns if column.name in columns):
            kept[name] = spec.model_copy(update={"columns": some})
    return profile.model_copy(update={"benchmarks": kept})


def _alone(column: ColumnSpec) -> ColumnSpec:
    """An average of columns would be one more thing to maximise."""
    return column.model_copy(update={"average": ""})


def _made(tasks: str, names: set[str]) -> Path:
    """A folder of some of the shipped tasks with tuning items for data, made once for the user's runs."""
    from harness.cache import source_digest
    from harness.profiles import SHIPPED_TASKS

    target = weights_folder("tuning-tasks", [tasks, sorted(names), SEED, source_digest(), source_digest(_lab())])
    if not target.is_dir():
        with lock_of(target):
            if not target.is_dir():
                with atomic_folder(target, flush=False) as folder:
                    for path in sorted((SHIPPED_TASKS / tasks).glob("*.yaml")):
                        _task(path, names, folder, target)
    return target


def _lab() -> Path:
    from harness import lab

    return Path(lab.__path__[0])


def _task(path: Path, names: set[str], folder: Path, target: Path) -> None:
    """Writes the task of ``path`` into ``folder``, which will be ``target``, if it is one of ``names``."""
    text = path.read_text("utf-8")
    name, file = (re.search(p, text, re.MULTILINE) for p in (r"^task: (\S+)", r"file: ([^\s},]+)"))
    assert name
    assert file
    if name[1] not in names:
        return
    rows = _rows(file[1])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / file[1]).write_text(lines, encoding="utf-8")
    task = {"include": str(path), "task": name[1], "dataset_kwargs": {"file": str(target / file[1])}}
    (folder / path.name).write_text(json.dumps(task), encoding="utf-8")


def _rows(file: str) -> list[dict[str, Any]]:
    from harness.lab import benchmarks as lab

    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "mgsm_sw.jsonl": lambda: lab.mgsm(SEED, "validation", "sw"),
        "mgsm_en.jsonl": lambda: lab.mgsm(SEED, "validation", "en"),
        "belebele_sw.jsonl": lambda: lab.belebele(SEED, "validation", "sw"),
        "belebele_sw-en.jsonl": lambda: lab.belebele(SEED, "validation", "en"),
        "flores.jsonl": lambda: lab.flores(SEED, "validation"),
    }
    if file not in makers:
        raise LayerswapError(
            f"the small world has too few items for tuning on {file.partition('.')[0]}: search on columns of mgsm, "
            "belebele and flores"
        )
    return makers[file]()
