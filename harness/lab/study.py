"""Does swapping pay, over several seeds? Every seed's merges on fresh word problems, paired, by word class.

One pair of experts is one sample: the suite's own report says how sure it is of documents, this says how much another
training run would change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from harness.errors import LayerswapError
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.scores import Score
from harness.gating.adjust import holm
from harness.gating.pairing import pair
from harness.gating.seeds import hierarchical
from harness.gating.statistics import Comparison, compare
from harness.lab.benchmarks import mgsm
from harness.lab.corpus import Split
from harness.lab.lexicon import Language
from harness.profiles import EMBEDDED_TASKS, Profile, load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup, TaskArithmetic, Ties
from harness.reporting.tables import difference, markdown, p_value, points

METHOD = "layer swap"
MODELS: Mapping[str, Recipe] = {
    METHOD: LayerSwap(),
    "base": Expert("base"),
    "math expert": Expert("math"),
    "language expert": Expert("language"),
    "base's outer layers, math's middle": LayerSwap(language="base"),
    "soup": Soup(),
    "TIES": Ties(),
    "task arithmetic": TaskArithmetic(),
}
_EXPERTS = ("base", "math", "language")
COLUMNS = ("mgsm sw", "mgsm sw new", "mgsm sw known", "mgsm en")


@dataclass(frozen=True)
class Rival:
    """One model on one column: its share right for each seed, and the swap against it over all seeds' documents.

    ``seeds`` are shares of one, in the order of the seeds. ``pooled`` compares the swap (``value``) with the model
    (``baseline``), a document of each seed being one pair; None for the swap itself. ``each`` is that for every seed,
    and ``over_seeds`` the interval of the mean lead over seeds and documents drawn anew.
    """

    model: str
    column: str
    seeds: tuple[float, ...]
    pooled: Comparison | None = None
    each: tuple[Comparison, ...] = ()
    over_seeds: tuple[float, float] | None = None


def study(
    folders: Sequence[Path],
    seed: int,
    split: Split = "test",
    scale: int = 2,
    models: Mapping[str, Recipe] = MODELS,
    progress: Callable[[str], None] = print,
) -> tuple[Rival, ...]:
    """Evaluates every model of every seed's experts (a folder each, with ``base``, ``math`` and ``language``).

    The problems are new: made from ``seed``, on values of ``split``, ``scale`` times the embedded benchmark's number.
    Raises :class:`LayerswapError` if a folder lacks an expert.
    """
    for folder in folders:
        if missing := [name for name in ("base", "math", "language") if not (folder / name / "config.json").is_file()]:
            raise LayerswapError(
                f"{folder} holds no {' and no '.join(missing)}: build it first (train embedded --seed)"
            )
    scores: dict[tuple[str, str], list[Score]] = {}
    with TemporaryDirectory() as work:
        tasks = _tasks(Path(work), seed, split, scale)
        for number, folder in enumerate(folders):
            grid = Grid(Settings(_profile(folder, tasks), "cpu", "float32"), Path(work) / f"cells-{number}")
            for name, recipe in models.items():
                cell = grid.cell(recipe.plan(grid.layers, grid.settings.profile.sizes), "mgsm")
                for score in cell.scores:
                    scores.setdefault((name, score.column), []).append(score)
                progress(f"{folder.name}: {name} " + ", ".join(f"{s.column} {100 * s.value:.1f}" for s in cell.scores))
    return tuple(_rival(name, column, scores) for column in COLUMNS for name in models)


def _rival(model: str, column: str, scores: Mapping[tuple[str, str], Sequence[Score]]) -> Rival:
    own = scores[model, column]
    shares = tuple(score.value for score in own)
    if model == METHOD:
        return Rival(model, column, shares)
    swap = scores[METHOD, column]
    each = tuple(compare(a, b) for a, b in zip(swap, own, strict=True))
    over_seeds = hierarchical([pair(a, b).differences for a, b in zip(swap, own, strict=True)])
    return Rival(model, column, shares, compare(_pooled(swap), _pooled(own)), each, over_seeds)


def _pooled(scores: Sequence[Score]) -> Score:
    """All seeds' documents as one score: a document of a seed is a document of its own."""
    return replace(
        scores[0],
        documents=tuple(f"{i} {d}" for i, score in enumerate(scores) for d in score.documents),
        values=tuple(v for score in scores for v in score.values),
        samples=(),
    )


def _tasks(folder: Path, seed: int, split: Split, scale: int) -> Path:
    """A folder of the embedded MGSM tasks on problems of their own."""
    languages: tuple[Language, ...] = ("sw", "en")
    for language in languages:
        rows = mgsm(seed, split, language, scale)
        data = folder / f"{language}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = {
            "include": str(EMBEDDED_TASKS / f"mgsm_{language}.yaml"),
            "task": f"embedded_mgsm_{language}",
            "dataset_kwargs": {"file": str(data)},
        }
        (folder / f"mgsm_{language}.yaml").write_text(json.dumps(task), encoding="utf-8")
    return folder


def _profile(folder: Path, tasks: Path) -> Profile:
    shipped = load_profile("embedded")
    experts = {name: str(folder.resolve() / name) for name in _EXPERTS}
    benchmarks = {"mgsm": shipped.benchmarks["mgsm"]}
    return shipped.model_copy(update={"experts": experts, "benchmarks": benchmarks, "tasks": str(tasks)})


def as_dict(rivals: Sequence[Rival]) -> list[dict[str, Any]]:
    """Primitives, for JSON."""
    return [asdict(rival) for rival in rivals]


def table(rivals: Sequence[Rival]) -> str:
    """Markdown: a row a model, with each column's mean over seeds, and the swap's lead on Swahili problems.

    The lead is over all seeds' documents, with Tango's interval and the exact McNemar test, adjusted by Holm over the
    models; then come the lead in each seed, and its interval over seeds and documents drawn anew.
    """
    by = {(rival.model, rival.column): rival for rival in rivals}
    names = list(dict.fromkeys(rival.model for rival in rivals))
    leads = {name: by[name, COLUMNS[0]].pooled for name in names}
    compared = [name for name in names if leads[name]]
    adjusted = dict(zip(compared, holm([c.p for c in leads.values() if c]), strict=True))
    rows = []
    for name in names:
        lead = leads[name]
        values = [points(fmean(by[name, c].seeds)) for c in COLUMNS]
        said, p = (difference(lead), p_value(adjusted[name])) if lead else ("", "")
        first = by[name, COLUMNS[0]]
        each = ", ".join(f"{100 * c.difference:+.1f}" for c in first.each)
        over = f"[{100 * first.over_seeds[0]:+.1f}, {100 * first.over_seeds[1]:+.1f}]" if first.over_seeds else ""
        rows.append([name, *values, said, p, each, over])
    headers = ["model", *COLUMNS, "the swap's lead, mgsm sw", "p (Holm)", "in each seed", "over seeds too"]
    return markdown(rows, headers)
