"""Merge, evaluate and compare in a notebook: :func:`load`, :func:`evaluate` and :func:`compare`, as pandas frames.

They do what the suite does: one sweep over all recipes of a benchmark, answers kept in the store that all runs share,
and paired statistics on the same documents. Importing this module imports neither pandas nor torch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import LayerswapError
from harness.files import expanded
from harness.profiles import Profile, load_profile
from harness.recipe_files import read_request
from harness.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.scores import Score
    from harness.plan import Plan

Recipes = Recipe | str | Iterable[Recipe | str] | Mapping[str, Recipe | str]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
SCORES = "layerswap scores"
EVALUATED = ("recipe", "layers", "benchmark", "column", "metric", "n", "value")
COMPARED = ("recipe", "column", "n", "value", "baseline", "difference", "low", "high", "p", "p_holm", "better", "worse")


@dataclass(frozen=True)
class Experts:
    """A base and its experts, and what they are evaluated on. Weights are read when something needs them."""

    profile: Profile
    device: str = "cpu"
    dtype: Dtype = "float32"

    @cached_property
    def layers(self) -> int:
        """Number of decoder layers, from the base's config."""
        from harness.merging.storage import read_depth

        return read_depth(self.profile.expert_path("base"))

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, the base among them."""
        return tuple(self.profile.experts)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """What they can be evaluated on."""
        return tuple(self.profile.benchmarks)

    def plan(self, recipe: Recipe | str) -> Plan:
        """The plan of a recipe for these experts; raises :class:`LayerswapError` if it names another expert."""
        from harness.recipes import check_experts

        plan = _recipe(recipe).plan(self.layers, self.profile.sizes)
        check_experts(plan, self.names)
        return plan

    def __repr__(self) -> str:
        names, places = ", ".join(self.names), ", ".join(self.benchmarks)
        return f"<experts {names}: {self.layers} layers, {self.device}, {self.dtype}; benchmarks {places}>"


def load(
    experts: str | Path | Mapping[str, str | Path],
    *,
    like: str = "embedded",
    device: str | None = None,
    dtype: Dtype | None = None,
) -> Experts:
    """The experts of a profile (its name or file), or ``{"base": …, "math": …, "language": …}``: folders or hub ids.

    A mapping takes benchmarks, the default swap, device and dtype from the profile ``like``. Their configs, shapes and
    tokenizers are compared here; no weight is read. Raises :class:`LayerswapError` if one is missing or does not fit.
    """
    from harness.merging.preflight import preflight

    if isinstance(experts, Mapping):
        profile = load_profile(like)
        tasks = profile.tasks if profile.tasks in ("", "embedded") else str(profile.task_folder)
        places = {name: str(_place(place)) for name, place in experts.items()}
        if missing := [role for role in ("base", "math", "language") if role not in places]:
            raise LayerswapError(f"no {missing[0]} expert: expected folders or hub ids for base, math and language")
        profile = profile.model_copy(update={"experts": places, "folder": Path(), "tasks": tasks, "name": "notebook"})
    else:
        profile = load_profile(str(experts))
    paths = {name: profile.expert_path(name) for name in profile.experts}
    preflight({name: path for name, path in paths.items() if not (path / "adapter_config.json").is_file()})
    return Experts(profile, device or profile.device, dtype or profile.dtype)


def evaluate(
    experts: Experts, recipes: Recipes, *, benchmarks: str | Sequence[str] | None = None, limit: int | None = None
) -> pd.DataFrame:
    """Merges and evaluates each recipe: a row a recipe and column, ``value`` a share of one over ``n`` documents.

    ``recipes``: one, several, or a mapping that names them; as objects or as text (``"layer-swap(transition=0)"``).
    ``benchmarks``: all of the profile's unless named. ``limit``: documents a task, a seeded sample. What the store has
    from an earlier run is not computed again. The frame carries every document's score for :func:`compare`.
    """
    import pandas as pd

    from harness.evaluation.pairs import PairGrid
    from harness.evaluation.responses import Store, default_path
    from harness.evaluation.variants import Settings

    chosen = _benchmarks(experts, benchmarks)
    if limit is not None and limit < 1:
        raise LayerswapError(f"limit is {limit}: expected a number of documents, or None for all")
    plans = {label: experts.plan(recipe) for label, recipe in _labelled(recipes).items()}
    settings = Settings(experts.profile, experts.device, experts.dtype, limit)
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[dict[str, Any]]] = {label: [] for label in plans}
    with tempfile.TemporaryDirectory(prefix="layerswap-") as folder:
        grid = PairGrid(settings, Path(folder), Store(default_path()))
        try:
            for benchmark in chosen:
                grid.expect(benchmark, plans.values())
            for benchmark in chosen:
                for label, plan in plans.items():
                    for score in grid.cell(plan, benchmark).scores:
                        rows.append(_row(label, plan, score))
                        kept[label].append(asdict(replace(score, samples=())))
        finally:
            grid.store.close()
    frame = pd.DataFrame(rows, columns=list(EVALUATED))
    frame = frame.sort_values(
        "recipe", key=lambda names: names.map(list(plans).index), kind="stable", ignore_index=True
    )
    # Text, so that pandas can copy, compare and store it.
    frame.attrs[SCORES] = json.dumps(kept)
    return frame


def compare(results: pd.DataFrame | str | Path, baseline: Recipe | str) -> pd.DataFrame:
    """Every other recipe against ``baseline`` on the same documents: difference, 95 % interval, p, Holm-adjusted p.

    ``results``: a frame of :func:`evaluate`, a report's folder or a file of accepted results. ``baseline``: a recipe,
    its label in the frame, or a report's ``family/case``. Shares of one; ``better`` and ``worse`` count documents. Holm
    is over the rows.
    """
    import pandas as pd

    from harness.gating.adjust import holm
    from harness.gating.statistics import compare as paired

    scores = _scores(results)
    name = baseline if isinstance(baseline, str) and baseline in scores else _label(_recipe(baseline))
    if name not in scores:
        raise LayerswapError(f"there is no result of {name!r}: there are {', '.join(scores)}")
    rows: list[dict[str, Any]] = []
    for label, columns in scores.items():
        for column, score in columns.items() if label != name else ():
            if column in scores[name]:
                c = paired(score, scores[name][column])
                values = (label, column, c.n, c.value, c.baseline, c.difference, c.low, c.high, c.p, None)
                rows.append(dict(zip(COMPARED, (*values, c.gained, c.lost), strict=True)))
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return pd.DataFrame(rows, columns=list(COMPARED))


def _scores(results: pd.DataFrame | str | Path) -> Mapping[str, Mapping[str, Score]]:
    if isinstance(results, str | Path):
        from harness.reporting.compare import load_saved

        return load_saved(str(results)).scores
    from harness.evaluation.scores import Score

    text = results.attrs.get(SCORES)
    if text is None:
        raise LayerswapError("this frame has lost the scores of its documents: pass the one that evaluate() returned")
    shown = set(zip(results["recipe"], results["column"], strict=True))
    found: dict[str, dict[str, Score]] = {}
    for label, columns in json.loads(text).items():
        for data in columns:
            if (label, data["column"]) in shown:
                score = Score(**{**data, "documents": tuple(data["documents"]), "values": tuple(data["values"])})
                found.setdefault(label, {})[score.column] = score
    return found


def _row(label: str, plan: Plan, score: Score) -> dict[str, Any]:
    values = (label, plan.drawing, score.benchmark, score.column, score.metric, score.n, score.value)
    return dict(zip(EVALUATED, values, strict=True))


def _benchmarks(experts: Experts, names: str | Sequence[str] | None) -> tuple[str, ...]:
    chosen = experts.benchmarks if names is None else (names,) if isinstance(names, str) else tuple(names)
    if unknown := [name for name in chosen if name not in experts.benchmarks]:
        raise LayerswapError(f"unknown benchmark {unknown[0]!r}: there are {', '.join(experts.benchmarks)}")
    return chosen


def _labelled(recipes: Recipes) -> dict[str, Recipe]:
    if isinstance(recipes, Mapping):
        return {str(label): _recipe(recipe) for label, recipe in recipes.items()}
    listed = [recipes] if isinstance(recipes, str | Recipe) else list(recipes)
    found = {_label(recipe): recipe for recipe in map(_recipe, listed)}
    if not found:
        raise LayerswapError("there are no recipes: expected at least one, such as LayerSwap()")
    return found


def _label(recipe: Recipe) -> str:
    return recipe.title


def _recipe(recipe: Recipe | str) -> Recipe:
    return read_request(recipe).recipe if isinstance(recipe, str) else recipe


def _place(place: str | Path) -> str | Path:
    """A folder by its full path; anything else is a hub id, or ``embedded:`` and a name."""
    local = expanded(place)
    return local.resolve() if local.is_dir() else place
