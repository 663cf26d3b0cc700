"""Mergekit files as recipes, without mergekit: what is read as what, and what is refused by which key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import main
from harness.errors import LayerswapError
from harness.exchange.reading import read_mergekit
from harness.exchange.writing import mergekit_config, yaml_text
from harness.recipes import Expert, LayerSwap, OneSide, Placement, Recipe, Revert, Slots, Soup, TaskArithmetic, Ties
from tests.merging.models import save_experts, tiny_experts

MODELS = {"base": "org/base", "math": "org/math", "language": "org/language"}


def read(data: Any, folder: Path, names: dict[str, str] | None = None):
    (folder / "mergekit.yaml").write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    return read_mergekit(folder / "mergekit.yaml", names)


def source(model: str, first: int, last: int, **parameters: float) -> dict[str, Any]:
    return {"model": model, "layer_range": [first, last], "parameters": parameters}


def one(model: str, first: int, last: int) -> dict[str, Any]:
    return {"sources": [source(model, first, last, weight=1.0)]}


SWAP = {"merge_method": "linear", "slices": [one("a/x", 0, 2), one("a/y", 2, 5), one("a/x", 5, 6)]}
TIES = {
    "merge_method": "ties",
    "base_model": "org/base",
    "models": [{"model": "a/x", "parameters": {"weight": 1.0}}, {"model": "a/y", "parameters": {"weight": 0.5}}],
    "parameters": {"density": 0.3},
}
EVERY: tuple[Recipe, ...] = (
    LayerSwap(),
    LayerSwap(transition=0, outer="math"),
    LayerSwap(bottom=1, top=3, weights=(0.3, 0.7), outer="base"),
    Placement("every-other"),
    Placement("exchanged"),
    OneSide("top"),
    Revert(),
    Expert("base"),
    Soup({"language": 0.2, "math": 0.3, "base": 1}),
    Ties(0.2, (0.7, 0.4), lambda_=0.8),
    Ties(normalize=False),
    TaskArithmetic((0.6, 0.3), 0.7),
)


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.title)
def test_what_is_exported_is_read_as_the_same_plan(recipe, tmp_path):
    plan = recipe.plan(12)
    config = mergekit_config(plan, MODELS, "bfloat16")
    found = read(config, tmp_path, {path: name for name, path in MODELS.items() if path in yaml_text(config)})
    assert found.recipe.plan(12) == plan
    assert found.dtype == "bfloat16"
    assert {name: MODELS[name] for name in plan.experts}.items() <= dict(found.experts).items()


def test_models_of_a_file_get_the_names_of_their_folders(tmp_path):
    request = read(TIES, tmp_path)
    assert request.experts == {"x": "a/x", "y": "a/y", "base": "org/base"}
    assert request.recipe == Ties(0.3, {"x": 1.0, "y": 0.5})
    twice = {
        **TIES,
        "models": [{"model": "a/x", "parameters": {"weight": 1}}, {"model": "b/x", "parameters": {"weight": 1}}],
    }
    assert read(twice, tmp_path).experts == {"x": "a/x", "x-2": "b/x", "base": "org/base"}


def test_a_swap_of_models_on_disk_is_read_as_one(tmp_path):
    folders = save_experts(tiny_experts(tied=False), tmp_path)
    for recipe in (LayerSwap(2, 1, (1, 0), (0.25, 0.75), "language"), LayerSwap(1, 1, 0, outer="average")):
        config = mergekit_config(recipe.plan(6), {name: str(path) for name, path in folders.items()})
        found = read(config, tmp_path).recipe
        assert isinstance(found, LayerSwap)
        assert found.plan(6) == recipe.plan(6)


def test_models_that_are_elsewhere_keep_the_depth_of_the_file(tmp_path):
    found = read(SWAP, tmp_path).recipe
    assert isinstance(found, Slots)
    with pytest.raises(LayerswapError, match="of a model of 6 layers, but this one has 8"):
        found.plan(8)


def test_a_file_of_fewer_layers_than_the_models_is_refused(tmp_path):
    folders = save_experts(tiny_experts(tied=False), tmp_path)
    data = {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": str(folders["math"]), "layer_range": [0, 4]}]}],
    }
    with pytest.raises(LayerswapError, match=r"slices end at layer 4, but .* has 6"):
        read(data, tmp_path)


def changed(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def with_parameters(*models: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"model": f"a/m{i}", "parameters": parameters} for i, parameters in enumerate(models)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a method": (changed(TIES, merge_method="dare_ties"), r"merge_method is 'dare_ties': expected 'linear', "),
    "no method": (changed(TIES, merge_method=None), r"merge_method is .*: expected a value"),
    "an unknown key": (changed(TIES, chat_template="auto"), r"chat_template cannot be read"),
    "modules": ({"modules": {}, "merge_method": "linear"}, r"modules cannot be read"),
    "a tokenizer": (changed(TIES, tokenizer_source="union"), r"tokenizer_source is 'union': expected 'base'"),
    "a dtype": (changed(TIES, dtype="int8"), r"dtype is 'int8': expected 'float32', 'bfloat16' or 'float16'"),
    "an option": (changed(TIES, parameters={"int8_mask": True}), r"parameters\.int8_mask cannot be read"),
    "a list over layers": (changed(TIES, parameters={"density": [0.1, 0.9]}), r"parameters\.density is .*one number"),
    "a filter": (
        changed(TIES, parameters={"density": [{"filter": "mlp", "value": 0.5}]}),
        r"parameters\.density is .*one number for all layers",
    ),
    "a model with an adapter": (
        changed(TIES, models=[{"model": {"model": {"path": "a"}, "lora": "b"}}]),
        r"models\[0\]\.model is .*no adapter",
    ),
    "densities that differ": (
        changed(TIES, models=with_parameters({"weight": 1, "density": 0.2}, {"weight": 1, "density": 0.3})),
        r"models\.parameters\.density differs from model to model",
    ),
    "no base": (changed(TIES, base_model=None), r"base_model is not there: ties needs one"),
    "only the base": (changed(TIES, models=[{"model": "org/base"}]), r"models has none beside the base"),
    "no weight": (changed(TIES, models=with_parameters({"density": 0.2})), r"models\.parameters\.weight is not there"),
    "a weight below 0": (changed(TIES, models=with_parameters({"weight": -1})), r"models\.parameters\.weight is -1"),
    "a model twice": (
        changed(TIES, models=[*TIES["models"], TIES["models"][0]]),
        r"models name x twice: add up its weights",
    ),
    "slices and models": (changed(TIES, slices=SWAP["slices"]), r"slices and models are both there, or neither"),
    "neither": ({"merge_method": "linear"}, r"slices and models are both there, or neither"),
    "slices of TIES": (
        changed(TIES, models=None, slices=SWAP["slices"]),
        r"slices cannot be read with merge_method ties",
    ),
    "a layer twice": (
        changed(SWAP, slices=[one("a/x", 0, 4), one("a/y", 2, 6)]),
        r"slices\[1\]\.sources\[0\]\.layer_range is \[2, 6\]: expected to begin at 4",
    ),
    "layers that do not begin at 0": (changed(SWAP, slices=[one("a/x", 1, 4)]), r"slices\[0\].*expected to begin at 0"),
    "a range backwards": (changed(SWAP, slices=[one("a/x", 0, -1)]), r"layer_range is \[0, -1\]: expected a range"),
    "ranges that differ": (
        changed(SWAP, slices=[{"sources": [source("a/x", 0, 4, weight=1), source("a/y", 0, 3, weight=1)]}]),
        r"slices\[0\]\.sources\[1\]\.layer_range is another",
    ),
    "ends of other numbers of models": (
        changed(SWAP, slices=[one("a/x", 0, 4), {"sources": [source(f"a/{m}", 4, 6, weight=1) for m in "xy"]}]),
        r"slices\[1\]\.sources are 2, and the first slice's 1",
    ),
    "no layers": (changed(SWAP, slices=[one("a/x", 0, 0)]), r"slices have no layers"),
    "an average of passthrough": (
        {"merge_method": "passthrough", "models": [{"model": "a/x"}, {"model": "a/y"}]},
        r"models has 2 models: passthrough takes one",
    ),
    "a scale of passthrough": (
        {"merge_method": "passthrough", "models": [{"model": "a/x", "parameters": {"weight": 2}}]},
        r"models\[0\]\.parameters\.weight has no effect in passthrough",
    ),
    "weights that are not divided": (
        {
            "merge_method": "linear",
            "models": with_parameters({"weight": 1}, {"weight": 1}),
            "parameters": {"normalize": False},
        },
        r"parameters\.normalize is false and the weights of models sum to 2",
    ),
    "a base without a weight": (
        {"merge_method": "linear", "models": with_parameters({"weight": 1}), "base_model": "org/base"},
        r"base_model is none of the models",
    ),
    "normalised task arithmetic": (
        changed(TIES, merge_method="task_arithmetic", parameters={"normalize": True}),
        r"parameters\.normalize is true",
    ),
    "SLERP without t": (
        {"merge_method": "slerp", "models": [{"model": "a/x"}, {"model": "a/y"}], "base_model": "a/x"},
        r"parameters\.t is not there",
    ),
    "SLERP from another base": (
        {"merge_method": "slerp", "models": [{"model": "a/x"}, {"model": "a/y"}], "base_model": "a/z"},
        r"models are not two, with base_model one of them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_its_key(name, tmp_path, capsys):
    data, message = REFUSED[name]
    with pytest.raises(LayerswapError, match=message):
        read(data, tmp_path)
    assert main(["import", str(tmp_path / "mergekit.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_prints_or_writes_a_recipe_file(tmp_path, capsys):
    (tmp_path / "mergekit.yaml").write_text(yaml.safe_dump({**TIES, "dtype": "float32"}), "utf-8")
    assert main(["import", str(tmp_path / "mergekit.yaml"), "--expert", "math=a/x"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("recipe = \"Ties(density=0.3, weights=(('math', 1.0), ('y', 0.5))")
    assert '"math" = "a/x"' in shown
    assert main(["import", str(tmp_path / "mergekit.yaml"), "--expert", "math=a/z"]) == 2
    assert "no model 'a/z' in it: it has a/x, a/y, org/base" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "mergekit.yaml"), "--expert", "old=org/base"]) == 2
    assert "base_model is named 'old': its name must be base" in capsys.readouterr().err
