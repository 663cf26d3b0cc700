"""What mergekit makes of an exported file, and what an imported one makes here: equal to the bit in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from harness.cli import main
from harness.recipe_text import parse_recipe
from tests.merging.models import save_experts, tiny_experts

pytestmark = pytest.mark.oracle
pytest.importorskip("mergekit")

DEPTH = 10


@pytest.fixture(scope="module", params=["untied", "tied"])
def folders(request, tmp_path_factory) -> dict[str, Path]:
    experts = tiny_experts(tied=request.param == "tied", near=0.2, num_hidden_layers=DEPTH)
    return save_experts(experts, tmp_path_factory.mktemp("experts"))


def by_mergekit(file: Path, out: Path) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text("utf-8")))
    run_merge(config, str(out), MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True))
    return weights(out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def given(folders: dict[str, Path]) -> list[str]:
    return [option for name, path in folders.items() for option in ("--expert", f"{name}={path}")]


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    # A tied head may stand in a file as well.
    names = (ours.keys() | theirs.keys()) - {"lm_head.weight"} if "lm_head.weight" not in ours else ours.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in names)


EXPORTED = [
    "layer-swap",
    "layer-swap(transition=0)",
    "layer-swap(bottom=3, top=1, transition=(2, 0), outer='language')",
    "layer-swap(weights=(0.25, 0.75), outer='base')",
    "layer-swap(top=0, outer='math')",
    "placement('random', seed=3)",
    "placement('every-other')",
    "one-side('top')",
    "revert('math', 'outer-blocks')",
    "expert('language')",
    "soup",
    "soup({'math': 0.7, 'language': 0.2, 'base': 0.3})",
    "ties(0.5)",
    "ties(0.2, (0.7, 0.4), lambda_=0.8)",
    "ties(0.7, normalize=False)",
    "task-arithmetic((0.6, 0.3), 0.7)",
    "slerp(0.3)",
]
UNTIED = [
    "slots({'embed': 'math', 'layers.0-8': 'math', 'layers.9': 'base', 'norm, head': {'base': 1, 'language': 3}})"
]


@pytest.mark.parametrize("recipe", [*EXPORTED, *UNTIED])
def test_an_exported_file_gives_our_weights_and_is_read_back(recipe, folders, tmp_path, capsys):
    if recipe in UNTIED and _is_tied(folders["base"]):
        assert main(["export", recipe, *given(folders)]) == 2
        assert "the experts' head is their embeddings" in capsys.readouterr().err
        return
    file = tmp_path / "mergekit.yaml"
    assert main(["export", recipe, *given(folders), "--to", str(file)]) == 0
    theirs = by_mergekit(file, tmp_path / "theirs")
    assert main(["merge", recipe, *given(folders), "--out", str(tmp_path / "ours")]) == 0
    ours = weights(tmp_path / "ours")
    exact = 1e-6 if "slerp" in recipe else 0.0
    largest = max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in ours if n in theirs)
    print(f"\n{recipe}: {largest:.2g}")
    assert largest <= exact
    assert set(ours) - {"lm_head.weight"} == set(theirs) - {"lm_head.weight"}

    assert main(["import", str(file), "--to", str(tmp_path / "recipe.toml")]) == 0
    assert main(["merge", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "back")]) == 0
    assert same(weights(tmp_path / "back"), ours)


def _is_tied(folder: Path) -> bool:
    import json

    return bool(json.loads((folder / "config.json").read_text("utf-8"))["tie_word_embeddings"])


def slices(*parts: tuple[dict[str, float], int, int]) -> list[dict[str, Any]]:
    return [
        {"sources": [{"model": m, "layer_range": [a, b], "parameters": {"weight": w}} for m, w in who.items()]}
        for who, a, b in parts
    ]


def weighted(**weights: float) -> list[dict[str, Any]]:
    return [{"model": model, "parameters": {"weight": weight}} for model, weight in weights.items()]


WRITTEN: dict[str, dict[str, Any]] = {
    "a swap without slices of its own for the ends": {
        "merge_method": "linear",
        "slices": slices(({"language": 1.0}, 0, 3), ({"math": 0.5, "language": 0.5}, 3, 4), ({"math": 1.0}, 4, 10)),
        "base_model": "base",
    },
    "passthrough": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "language", "layer_range": [0, 4]}]},
            {"sources": [{"model": "math", "layer_range": [4, 9]}]},
            {"sources": [{"model": "base", "layer_range": [9, 10]}]},
        ],
        "base_model": "base",
    },
    "passthrough of one model": {"merge_method": "passthrough", "models": [{"model": "math"}], "base_model": "math"},
    "a soup with one weight above the models": {
        "merge_method": "linear",
        "models": [{"model": "math"}, {"model": "language"}, {"model": "base"}],
        "parameters": {"weight": 0.3},
        "base_model": "base",
    },
    "a soup that is not divided": {
        "merge_method": "linear",
        "models": [
            {"model": "math", "parameters": {"weight": 0.75}},
            {"model": "language", "parameters": {"weight": 0.25}},
        ],
        "parameters": {"normalize": False},
        "base_model": "math",
    },
    "TIES with its defaults, the base in the list": {
        "merge_method": "ties",
        "models": [
            {"model": "base"},
            {"model": "math", "parameters": {"weight": 1.0, "density": 0.4}},
            {"model": "language", "parameters": {"weight": 0.5, "density": 0.4}},
        ],
        "base_model": "base",
    },
    "TIES, not trimmed": {
        "merge_method": "ties",
        "models": weighted(math=1, language=1),
        "base_model": "base",
    },
    "task arithmetic": {
        "merge_method": "task_arithmetic",
        "models": [
            {"model": "math", "parameters": {"weight": 0.4}},
            {"model": "language", "parameters": {"weight": 1.5}},
        ],
        "base_model": "base",
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_imported_file_gives_mergekits_weights(name, folders, tmp_path):
    text = yaml.safe_dump({**WRITTEN[name], "dtype": "float32"}, sort_keys=False)
    for model, folder in folders.items():
        text = text.replace(f"model: {model}\n", f"model: {folder}\n")
    file = tmp_path / "mergekit.yaml"
    file.write_text(text, "utf-8")
    theirs = by_mergekit(file, tmp_path / "theirs")
    assert main(["import", str(file), "--to", str(tmp_path / "recipe.toml")]) == 0
    assert main(["merge", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "ours")]) == 0
    ours = weights(tmp_path / "ours")
    print(f"\n{name}: {(tmp_path / 'recipe.toml').read_text('utf-8').splitlines()[0]}")
    assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in theirs if tensor in ours)
    assert set(ours) - {"lm_head.weight"} == set(theirs) - {"lm_head.weight"}


def test_bfloat16_is_computed_in_float32_and_rounded_once(tmp_path):
    experts = tiny_experts(tied=False, dtype="bfloat16", num_hidden_layers=DEPTH)
    folders = save_experts(experts, tmp_path / "experts")
    for recipe in ("layer-swap", "soup((0.3, 0.7))"):
        place = tmp_path / parse_recipe(recipe).title.replace("/", "-")
        assert main(["export", recipe, *given(folders), "--to", str(place / "mergekit.yaml")]) == 0
        assert "out_dtype: bfloat16" in (place / "mergekit.yaml").read_text("utf-8")
        assert main(["merge", recipe, *given(folders), "--out", str(place / "ours")]) == 0
        ours, theirs = weights(place / "ours"), by_mergekit(place / "mergekit.yaml", place / "theirs")
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
