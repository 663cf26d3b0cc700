from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import LayerswapError
from harness.evaluation.cells import CellReader
from harness.evaluation.grid import Grid, Settings
from harness.gating.floors import Verdict, no_worse
from harness.plan import Plan
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup


class Counting(Grid):
    """A grid that notes what it computes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.computed: list[tuple[str, str]] = []

    def sweep(self, plans: Iterable[Plan], benchmark: str, before: float = 0.0) -> None:
        plans = list(plans)
        missing = {self.identity(plan) for plan in plans if self.known(benchmark, self.identity(plan)) is None}
        self.computed += [(identity, benchmark) for identity in sorted(missing)]
        super().sweep(plans, benchmark, before)


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile))


@pytest.fixture
def grid(profile: Profile, tmp_path: Path) -> Counting:
    return Counting(Settings(profile, "cpu", "float32", limit=20), tmp_path)


def plan_of(grid: Grid, recipe: Recipe) -> Plan:
    return recipe.plan(grid.layers, grid.settings.profile.sizes)


def test_plans_of_equal_weights_are_evaluated_once(grid):
    recipes = (Expert("math"), LayerSwap(language="math"), LayerSwap(bottom=0, top=0, outer="math"))
    cells = [grid.cell(plan_of(grid, recipe), "mmlu") for recipe in recipes]
    assert len(grid.computed) == 1
    assert cells[0] == cells[1] == cells[2]
    grid.cell(plan_of(grid, Expert("language")), "mmlu")
    grid.cell(plan_of(grid, Expert("math")), "flores")
    assert len(grid.computed) == len(set(grid.computed)) == 3


def test_a_second_process_of_the_run_reads_what_the_first_computed(grid, profile):
    plan = plan_of(grid, LayerSwap())
    cell = grid.cell(plan, "flores")
    other = Counting(grid.settings, grid.folder)
    assert other.cell(plan, "flores") == cell
    assert other.computed == []
    edition = grid.editions["flores"]
    assert CellReader(other.store).read(edition, "flores", cell.identity) == cell
    assert CellReader(other.store).read("another", "flores", cell.identity) is None


def test_a_limited_score_equals_the_full_one_on_its_documents(grid, profile, tmp_path):
    full = Grid(Settings(profile, "cpu", "float32"), tmp_path / "full")
    plan = plan_of(grid, LayerSwap())
    for benchmark in ("mmlu", "flores"):
        for part, whole in zip(grid.cell(plan, benchmark).scores, full.cell(plan, benchmark).scores, strict=True):
            assert (part.n, whole.n) == (20, 340 if benchmark == "mmlu" else 200)
            restricted = whole.restricted_to(part.documents)
            assert restricted.documents == part.documents
            assert restricted.values == pytest.approx(part.values)
            assert [s.prompt for s in restricted.samples] == [s.prompt for s in part.samples]
            assert no_worse(0.0).verdict(part, restricted).verdict is Verdict.PASS


def test_restricting_to_documents_that_are_not_there_changes_nothing(grid):
    (score,) = grid.cell(plan_of(grid, LayerSwap()), "mmlu").scores
    assert score.restricted_to(["no such document"]) is score


def test_a_control_compares_weights_and_evaluates_anew(grid):
    alone = plan_of(grid, Expert("math"))
    same = grid.control(plan_of(grid, LayerSwap(language="math")), alone, "mgsm")
    assert same.tensors == ()
    assert same.documents == {"mgsm sw": (0, 20), "mgsm en": (0, 20)}
    other = grid.control(plan_of(grid, Soup()), alone, "belebele")
    assert "model.embed_tokens.weight" in other.tensors
    again = Counting(grid.settings, grid.folder)
    assert again.control(plan_of(again, Soup()), plan_of(again, Expert("math")), "belebele") == other
    assert not again.experts  # known from the store


def test_what_is_expected_is_computed_in_one_sweep_with_the_first_that_is_asked_for(grid):
    plans = [plan_of(grid, recipe) for recipe in (LayerSwap(), Soup(), Expert("math"), LayerSwap(bottom=2))]
    grid.expect("mmlu", plans)
    grid.cell(plans[1], "mmlu")
    assert grid.sweeps == 1
    assert len(grid.computed) == 4
    for plan in plans:
        grid.cell(plan, "mmlu")
    assert grid.sweeps == 1
    assert 0 < grid.work["layer calls"] < grid.work["layer calls unshared"]


def test_experts_are_loaded_when_they_are_needed_and_once(grid):
    grid.variants.model(plan_of(grid, Expert("math")))
    assert set(grid.experts) == {"math"}
    loaded = grid.experts["math"]
    grid.variants.model(plan_of(grid, Soup()))
    assert set(grid.experts) == {"math", "language"}
    assert grid.experts["math"] is loaded


def test_the_depth_is_known_before_any_weight_is_read(grid):
    assert grid.layers == 4
    assert not grid.experts


def test_seconds_are_kept_by_stage(grid):
    grid.cell(plan_of(grid, LayerSwap()), "mmlu")
    assert set(grid.seconds) == {"load experts", "merge", "build prompts", "evaluate mmlu"}


def test_an_expert_that_the_profile_lacks_is_named(grid):
    with pytest.raises(LayerswapError, match="profile tiny has no expert maths: it has base, math, language"):
        grid.load(["maths"])
