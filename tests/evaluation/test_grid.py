from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import LayerswapError
from harness.evaluation.grid import Cell, Grid, Settings, read_cell
from harness.gating.floors import Verdict, no_worse
from harness.plan import Plan
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup


class Counting(Grid):
    """A grid that notes what it computes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.computed: list[tuple[str, str]] = []

    def _compute(self, model: Any, identity: str, benchmark: str) -> Cell:
        self.computed.append((identity, benchmark))
        return super()._compute(model, identity, benchmark)


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
    assert cells[0] is cells[1] is cells[2]
    grid.cell(plan_of(grid, Expert("language")), "mmlu")
    grid.cell(plan_of(grid, Expert("math")), "flores")
    assert len(grid.computed) == len(set(grid.computed)) == 3


def test_a_second_process_of_the_run_reads_what_the_first_computed(grid, profile):
    plan = plan_of(grid, LayerSwap())
    cell = grid.cell(plan, "flores")
    other = Counting(grid.settings, grid.folder)
    assert other.cell(plan, "flores") == cell
    assert other.computed == []
    assert read_cell(grid.folder, cell.identity, "flores") == cell
    assert read_cell(grid.folder, cell.identity, "mmlu") is None


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


def test_evaluating_afresh_gives_the_same_values(grid):
    plan = plan_of(grid, Soup())
    cell = grid.cell(plan, "mgsm")
    model, again = grid.afresh(plan, "mgsm")
    assert again.scores == cell.scores
    assert model is not grid.model(plan)
    assert len(grid.computed) == 2


def test_experts_are_loaded_when_they_are_needed_and_once(grid):
    grid.model(plan_of(grid, Expert("math")))
    assert set(grid.experts) == {"math"}
    loaded = grid.experts["math"]
    grid.model(plan_of(grid, Soup()))
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
