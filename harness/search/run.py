"""The search itself: optuna proposes a few swaps at a time, one sweep evaluates them, and the best are held out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.recipes import LayerSwap
from harness.search.space import space_of, text_of

if TYPE_CHECKING:
    from harness.evaluation.grid import Grid
    from harness.evaluation.responses import Store
    from harness.evaluation.scores import Score
    from harness.plan import Plan
    from harness.profiles import Profile
    from harness.search.split import Split

TOGETHER = 8  # swaps that one sweep evaluates: what they share is computed once
_DRAWS = 20  # proposals for each swap of the budget: some give weights that are known


@dataclass(frozen=True)
class Trial:
    """A swap with its shares on the tuning documents, by column."""

    recipe: str
    drawing: str
    tuning: Mapping[str, float]


@dataclass(frozen=True)
class Chosen:
    """The profile's swap, or one that neither it nor a trial beats on the tuning documents; with held-out scores."""

    recipe: str
    drawing: str
    tuning: Mapping[str, float]
    held_out: Mapping[str, Score]


@dataclass(frozen=True)
class Found:
    """What came of a search. ``work`` counts layer calls, made and unshared, on the tuning documents."""

    trials: tuple[Trial, ...]
    reference: Chosen
    pareto: tuple[Chosen, ...]
    work: Mapping[str, int]

    def as_json(self) -> str:
        """Every trial and the Pareto set, without single documents."""

        def bare(chosen: Chosen) -> dict[str, Any]:
            values = {name: {"value": score.value, "n": score.n} for name, score in chosen.held_out.items()}
            return {**asdict(replace(chosen, held_out={})), "held_out": values}

        trials = [asdict(trial) for trial in self.trials]
        found = {"reference": bare(self.reference), "pareto": [bare(c) for c in self.pareto], "trials": trials}
        return json.dumps({**found, "work": dict(self.work)}, indent=1, ensure_ascii=False) + "\n"


def search(
    parts: Split,
    budget: int,
    *,
    seed: int = 0,
    limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    store: Store | None = None,
    say: Callable[[str], None] = print,
) -> Found:
    """Tries ``budget`` different swaps on the tuning documents and evaluates those that nothing beats on the others.

    Every column is to be maximised. ``limit``: documents of each task, of either part. What ``store`` knows is not
    computed again, so an interrupted search costs what is left when it is started again with the same seed. Raises
    :class:`LayerswapError` if optuna is not there, or the budget is none.
    """
    try:
        import optuna
    except ImportError as error:
        raise LayerswapError("search needs optuna: pip install 'pytest-layerswap[search]'") from error
    from harness.evaluation.pairs import PairGrid
    from harness.evaluation.variants import Settings

    if budget < 1:
        raise LayerswapError(f"--budget is {budget}: expected a number of swaps to try, at least 1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = parts.tuning.columns

    def grid(profile: Profile, folder: Path) -> Grid:
        return PairGrid(Settings(profile, device or profile.device, dtype or profile.dtype, limit), folder, store)

    with tempfile.TemporaryDirectory(prefix="layerswap-") as work:
        tuning, held_out = grid(parts.tuning, Path(work) / "tuning"), grid(parts.held_out, Path(work) / "held-out")
        space, sizes = space_of(tuning.layers), parts.tuning.sizes
        study = optuna.create_study(
            directions=["maximize"] * len(columns),
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=16),
        )
        default = LayerSwap().plan(tuning.layers, sizes)
        reference = Trial("layer-swap", default.drawing, _shares(tuning, [default])[default.text])
        study.enqueue_trial(space.nearest(sizes.scaled(tuning.layers)))
        shares = {default.text: reference.tuning}
        known: dict[str, Trial] = {}
        plans: dict[str, Plan] = {}
        draws = 0
        while len(known) < budget and draws < _DRAWS * budget:
            asked: list[tuple[Any, str]] = []
            fresh: dict[str, tuple[LayerSwap, Plan]] = {}
            while len(fresh) < min(TOGETHER, budget - len(known)) and draws < _DRAWS * budget:
                trial, draws = study.ask(), draws + 1
                recipe = space.suggest(trial)
                plan = recipe.plan(tuning.layers, sizes)
                asked.append((trial, plan.text))
                if plan.text in shares:
                    study.tell(asked.pop()[0], [shares[plan.text][name] for name in columns])
                else:
                    fresh[plan.text] = recipe, plan
            shares |= _shares(tuning, [plan for _, plan in fresh.values()])
            for text, (recipe, plan) in fresh.items():
                known[text], plans[text] = Trial(text_of(recipe), plan.drawing, shares[text]), plan
            for trial, text in asked:
                study.tell(trial, [shares[text][name] for name in columns])
            say(f"{len(known)} of {budget}: best " + _best(known.values(), columns))
        rivals = [reference, *known.values()]
        front = [text for text, own in known.items() if not any(_beats(o.tuning, own.tuning) for o in rivals)]
        scores = _scores(held_out, [default, *(plans[text] for text in front)])
        return Found(
            tuple(known.values()),
            _chosen(reference, scores[default.text]),
            tuple(_chosen(known[text], scores[text]) for text in front),
            dict(tuning.work),
        )


def _chosen(trial: Trial, held_out: Mapping[str, Score]) -> Chosen:
    return Chosen(trial.recipe, trial.drawing, trial.tuning, held_out)


def _beats(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether ``one`` is nowhere below ``other`` and somewhere above it."""
    return all(one[name] >= other[name] for name in other) and any(one[name] > other[name] for name in other)


def _shares(grid: Grid, plans: Sequence[Plan]) -> dict[str, dict[str, float]]:
    return {
        text: {name: score.value for name, score in scores.items()} for text, scores in _scores(grid, plans).items()
    }


def _scores(grid: Grid, plans: Sequence[Plan]) -> dict[str, dict[str, Score]]:
    """Every column's score of every plan, by its text; a benchmark is evaluated in one sweep over all of them."""
    found: dict[str, dict[str, Score]] = {plan.text: {} for plan in plans}
    for benchmark in grid.settings.profile.benchmarks:
        grid.expect(benchmark, plans)
        for plan in plans:
            found[plan.text].update({score.column: score for score in grid.cell(plan, benchmark).scores})
    return found


def _best(trials: Any, columns: Sequence[str]) -> str:
    listed = list(trials)
    return ", ".join(f"{name} {100 * max(trial.tuning[name] for trial in listed):.1f}" for name in columns)


def table(found: Found) -> str:
    """The Pareto set against the profile's swap, as Markdown: shares in points, differences on held-out documents."""
    from harness.gating.statistics import compare
    from harness.reporting.tables import difference, markdown, points

    columns = list(found.reference.tuning)
    ordered = sorted(found.pareto, key=lambda chosen: -chosen.tuning[columns[0]])
    rows = []
    for chosen in (found.reference, *ordered):
        cells = []
        for name in columns:
            score, other = chosen.held_out[name], found.reference.held_out[name]
            against = "" if chosen is found.reference else f" ({difference(compare(score, other))})"
            cells.append(f"{points(score.value)}{against}")
        tuned = [points(chosen.tuning[name]) for name in columns]
        rows.append([f"`{chosen.recipe}`", f"`{chosen.drawing}`", *tuned, *cells])
    n = {name: score.n for name, score in found.reference.held_out.items()}
    headers = ["recipe", "layers", *(f"{name}, tuning" for name in columns)]
    return markdown(rows, [*headers, *(f"{name}, held out (n={n[name]})" for name in columns)])
