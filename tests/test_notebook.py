from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import harness
from harness import LayerSwap, Soup, compare, evaluate, load
from harness.errors import LayerswapError
from harness.evaluation.grid import Grid
from harness.gating.statistics import compare as paired
from harness.notebook import COMPARED, EVALUATED, Experts

GUIDE = Path(__file__).parents[1] / "docs" / "notebook.md"
ACCEPTED = Path(__file__).parents[1] / "ablations" / "baselines" / "embedded.json"
RECIPES = [LayerSwap(), LayerSwap(transition=0), "soup"]


@pytest.fixture(scope="module")
def experts(tiny_profile: Path) -> Experts:
    return load(tiny_profile)


@pytest.fixture(scope="module")
def scores(experts: Experts) -> pd.DataFrame:
    return evaluate(experts, RECIPES, benchmarks=["flores", "mmlu"], limit=20)


def test_a_row_for_each_recipe_and_column(scores):
    assert tuple(scores.columns) == EVALUATED
    assert list(scores["recipe"].unique()) == ["layer swap", "layer swap, no transition", "soup 0.5/0.5"]
    assert list(scores["column"][:3]) == ["flores en-sw", "flores sw-en", "mmlu"]
    assert set(scores["n"]) == {20}
    assert scores["value"].between(0, 1).all()
    assert scores["layers"][0] == "T|LTML|TT"


def test_a_benchmark_takes_one_sweep_and_a_second_call_none(experts, scores, monkeypatch):
    sweeps: list[int] = []

    def counted(grid: Grid, *arguments: Any, **more: Any) -> None:
        before = grid.sweeps
        sweep(grid, *arguments, **more)
        sweeps.append(grid.sweeps - before)

    sweep = Grid.sweep
    monkeypatch.setattr(Grid, "sweep", counted)
    pd.testing.assert_frame_equal(evaluate(experts, RECIPES, benchmarks=["flores", "mmlu"], limit=20), scores)
    assert sum(sweeps) == 0
    evaluate(experts, RECIPES, benchmarks="mmlu", limit=10)
    assert sum(sweeps) == 1


def test_values_are_the_grids(experts, scores, tmp_path):
    from harness.evaluation.grid import Settings

    grid = Grid(Settings(experts.profile, "cpu", "float32", limit=20), tmp_path)
    for recipe in (LayerSwap(), Soup()):
        for score in grid.cell(experts.plan(recipe), "flores").scores:
            row = scores[(scores.recipe == recipe.title) & (scores.column == score.column)]
            assert row["value"].item() == score.value
    swap, soup = (grid.cell(experts.plan(recipe), "flores").scores[0] for recipe in (LayerSwap(), Soup()))
    found = compare(scores, "layer swap").set_index(["recipe", "column"]).loc["soup 0.5/0.5", "flores en-sw"]
    expected = paired(soup, swap)
    assert (found["difference"], found["low"], found["high"]) == (expected.difference, expected.low, expected.high)
    assert (found["p"], found["better"], found["worse"]) == (expected.p, expected.gained, expected.lost)


def test_a_comparison_has_every_other_recipe(scores):
    found = compare(scores, LayerSwap())
    assert tuple(found.columns) == COMPARED
    assert len(found) == 6
    assert (found["p_holm"] >= found["p"]).all()
    pd.testing.assert_frame_equal(found, compare(scores, "layer-swap"))


def test_selected_rows_are_compared_alone(scores):
    assert list(compare(scores[scores.column == "mmlu"], "soup")["column"]) == ["mmlu", "mmlu"]


def test_a_frame_survives_copies_and_files(scores, tmp_path):
    pytest.importorskip("pyarrow")
    scores.to_parquet(tmp_path / "scores.parquet")
    read = pd.read_parquet(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(compare(read, "soup"), compare(scores.copy(), "soup"))


def test_recipes_may_be_named(experts):
    found = evaluate(experts, {"a": "soup", "b": LayerSwap()}, benchmarks="mmlu", limit=10)
    assert list(found["recipe"]) == ["a", "b"]
    assert list(compare(found, "b")["recipe"]) == ["a"]


def test_folders_take_benchmarks_from_a_profile(tiny_profile, scores):
    places = {name: tiny_profile.parent / name for name in ("base", "math", "language")}
    found = load(places, like=str(tiny_profile))
    assert repr(found) == (
        "<experts base, math, language: 4 layers, cpu, float32; benchmarks mgsm, belebele, flores, mbpp, mmlu>"
    )
    again = evaluate(found, RECIPES, benchmarks=["flores", "mmlu"], limit=20)
    pd.testing.assert_frame_equal(again, scores)


def test_saved_results_are_compared():
    found = compare(ACCEPTED, "method/layer-swap")
    row = found.set_index(["recipe", "column"]).loc["method/soup", "mgsm sw"]
    assert row["n"] == 500
    assert row["high"] < 0


def test_mistakes_are_named(experts, scores, tiny_profile, tmp_path):
    with pytest.raises(LayerswapError, match="no language expert"):
        load({"base": tmp_path, "math": tmp_path})
    with pytest.raises(LayerswapError, match="unknown benchmark 'gsm': there are mgsm, "):
        evaluate(experts, RECIPES, benchmarks=["gsm"])
    with pytest.raises(LayerswapError, match="limit is 0"):
        evaluate(experts, RECIPES, limit=0)
    with pytest.raises(LayerswapError, match="there are no recipes"):
        evaluate(experts, [])
    with pytest.raises(LayerswapError, match="unknown expert 'mth'"):
        evaluate(experts, LayerSwap(math="mth"))
    with pytest.raises(LayerswapError, match=r"no result of 'TIES, density 0.5': there are layer swap"):
        compare(scores, "ties")
    with pytest.raises(LayerswapError, match="has lost the scores"):
        compare(pd.DataFrame(scores.to_dict()), "soup")


def test_importing_is_instant_and_names_are_there():
    heavy = "{'torch', 'transformers', 'lm_eval', 'pandas', 'numpy', 'pydantic'}"
    code = f"import sys, harness; sys.exit(bool({heavy} & set(sys.modules)) or 'load' not in dir(harness))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(getattr(harness, name) is not None for name in harness.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        harness.nothing  # noqa: B018


def test_the_guides_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert len(names["differences"]) == 2  # type: ignore[arg-type]
