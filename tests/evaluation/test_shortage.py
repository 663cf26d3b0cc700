"""Memory that runs out in the middle of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import LayerswapError, out_of_memory
from harness.evaluation import engine, shortage
from harness.evaluation.graphs import Graphs
from harness.evaluation.grid import Grid, Settings
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Soup

RECIPES = (LayerSwap(), LayerSwap(top=0), Expert("math"), Soup())


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile))


def cells(profile: Profile, folder: Path, benchmark: str) -> dict[str, Any]:
    """Scores by recipe, or the error of what could not be evaluated."""
    grid = Grid(Settings(profile, "cpu", "float32", limit=40), folder)
    plans = {repr(recipe): recipe.plan(grid.layers, profile.sizes) for recipe in RECIPES}
    grid.expect(benchmark, plans.values())
    found: dict[str, Any] = {}
    for name, plan in plans.items():
        try:
            found[name] = [(s.column, s.values) for s in grid.cell(plan, benchmark).scores]
        except LayerswapError as error:
            found[name] = error
    grid.store.close()
    return found


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Lets passes run out of memory: those of more ``tokens``, and all of variants for which ``short`` is true."""
    import torch

    limits: dict[str, Any] = {"tokens": 1 << 30, "short": lambda variant: False, "widest": 0, "failed": 0}
    forward = engine.forward

    def limited(model: Any, prefix: str, batch: Any, held: Any, step: Any) -> Any:
        limits["widest"] = max(limits["widest"], batch.ids.numel())
        if batch.ids.numel() > limits["tokens"] or limits["short"](step.variant):
            limits["failed"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(model, prefix, batch, held, step)

    monkeypatch.setattr(engine, "forward", limited)
    return limits


@pytest.mark.parametrize("name", ["mmlu", "belebele"])
def test_half_the_batch_gives_the_same_scores(profile, tmp_path, memory, name):
    undisturbed = cells(profile, tmp_path / "undisturbed", name)
    memory["tokens"] = memory["widest"] - 1
    assert cells(profile, tmp_path / "halved", name) == undisturbed
    assert memory["failed"] > 0


@pytest.mark.parametrize("name", ["mmlu", "mgsm"])
def test_what_there_is_no_memory_for_fails_alone(profile, tmp_path, memory, name):
    undisturbed = cells(profile, tmp_path / "undisturbed", name)
    grid = Grid(Settings(profile, "cpu", "float32", limit=40), tmp_path / "names")
    short = grid.identity(RECIPES[1].plan(grid.layers, profile.sizes))
    memory["short"] = lambda variant: variant.identity == short
    found = cells(profile, tmp_path / "short", name)
    error = found.pop(repr(RECIPES[1]))
    if name == "mgsm" and not isinstance(error, LayerswapError):
        return  # it was an anchor: decoded plainly, which the fault does not reach
    assert "not enough memory on cpu" in str(error)
    assert "batch_size" in str(error)
    assert found == {name: scores for name, scores in undisturbed.items() if name in found}


def test_what_says_that_memory_has_run_out():
    import torch

    for error in (
        MemoryError(),
        torch.OutOfMemoryError("x"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        assert out_of_memory(error)
    for other in (RuntimeError("size mismatch"), ValueError("out of memory"), KeyError("x")):
        assert not out_of_memory(other)


def test_lm_evals_own_wrapper_is_asked_again_with_half_the_rows():
    asked: list[int] = []

    def ask(rows: int) -> str:
        asked.append(rows)
        if rows > 4:
            raise MemoryError
        return "answers"

    assert shortage.stock_answers(ask, "cpu", 8) == "answers"
    assert asked == [8, 4]
    with pytest.raises(shortage.ShortOfMemoryError, match="16 rows"):
        shortage.stock_answers(ask, "cpu", 32)


def test_no_graphs_are_made_after_memory_ran_out():
    asked: list[tuple[int, object]] = []
    first = engine.Engine(None, "", 0, "cpu", engine.Sizes(8), None, graphs=Graphs())

    def ask(some: engine.Engine, _: object) -> None:
        asked.append((some.sizes.rows, some.graphs))
        if len(asked) == 1:
            raise MemoryError

    assert shortage.sparing(ask, first, []) == set()
    assert asked == [(8, first.graphs), (4, None)]


def test_other_errors_are_not_taken_for_it():
    def ask(*_: object) -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        shortage.stock_answers(ask, "cpu", 8)
