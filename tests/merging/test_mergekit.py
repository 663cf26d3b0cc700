"""The same merges by mergekit, a peer: equal to the bit, or by how much they differ (``-m oracle -s`` prints it)."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.merging.assemble import Assembler
from harness.merging.checkpoint import write_checkpoint
from harness.recipes import DareTies, LayerSwap, Recipe, Slerp, Soup, SwapSizes, TaskArithmetic, Ties
from tests.merging.models import NAMES, save_experts, tiny_experts

pytestmark = pytest.mark.oracle
pytest.importorskip("mergekit")

DEPTH = 10
# What the documentation states; 0.0 is equal to the bit.
BOUND = 1e-6


@pytest.fixture(scope="module", params=[0.2, 1.0], ids=["near", "far"])
def folders(request, tmp_path_factory) -> dict[str, Path]:
    """Untied experts, near to each other as fine-tuned ones are, or far apart (which SLERP treats differently)."""
    experts = tiny_experts(tied=False, near=request.param, num_hidden_layers=DEPTH)
    return save_experts(experts, tmp_path_factory.mktemp("experts"))


def mergekit(config: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)
    return {name: tensor for file in out.glob("*.safetensors") for name, tensor in load_file(file).items()}


def largest_difference(recipe: Recipe, folders: dict[str, Path], theirs: dict[str, torch.Tensor], out: Path) -> float:
    write_checkpoint(recipe.plan(DEPTH), folders, out)
    ours = load_file(out / "model.safetensors")
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def sources(folders: dict[str, Path], weights: dict[str, float], span: tuple[int, int] | None = None) -> list[Any]:
    layers = {} if span is None else {"layer_range": list(span)}
    return [{"model": str(folders[name]), "parameters": {"weight": w}} | layers for name, w in weights.items()]


def swap_config(folders: dict[str, Path], weights: tuple[float, float], outer: dict[str, float]) -> dict[str, Any]:
    """b2 t1 ... t1 u1 as mergekit slices; empty first and last slices fill embeddings, norm and head."""
    both = {"math": weights[0], "language": weights[1]}
    one_math, one_language = {"math": 1.0}, {"language": 1.0}
    blocks = [(outer, 0, 0), (one_language, 0, 2), (both, 2, 3), (one_math, 3, 8), (both, 8, 9), (one_language, 9, 10)]
    slices = [{"sources": sources(folders, who, (a, b))} for who, a, b in [*blocks, (outer, DEPTH, DEPTH)]]
    return {
        "merge_method": "linear",
        "base_model": str(folders["base"]),
        "slices": slices,
        "dtype": "float32",
        "parameters": {"normalize": True},
    }


def whole_config(folders: dict[str, Path], method: str, models: list[Any], **parameters: Any) -> dict[str, Any]:
    return {
        "merge_method": method,
        "base_model": str(folders["base"]),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
    }


BOTH = {"math": 1.0, "language": 1.0}
CASES: dict[str, tuple[Recipe, Callable[[dict[str, Path]], dict[str, Any]]]] = {
    "swap": (LayerSwap(transition=0, outer="math"), lambda f: swap_config(f, (1, 0.0), {"math": 1.0})),
    "swap with transitions": (LayerSwap(), lambda f: swap_config(f, (0.5, 0.5), {"math": 0.5, "language": 0.5})),
    "transition weights 0.25/0.75": (
        LayerSwap(weights=(0.25, 0.75)),
        lambda f: swap_config(f, (0.25, 0.75), {"math": 0.25, "language": 0.75}),
    ),
    "soup of two": (
        Soup(),
        lambda f: whole_config(f, "linear", sources(f, {"math": 0.5, "language": 0.5, "base": 0.0})),
    ),
    "soup of three, 0.7/0.2/0.3": (
        Soup({"math": 0.7, "language": 0.2, "base": 0.3}),
        lambda f: whole_config(f, "linear", sources(f, {"math": 0.7, "language": 0.2, "base": 0.3})),
    ),
    "soup of three, 0.3/0.3/0.3": (
        Soup({"math": 0.3, "language": 0.3, "base": 0.3}),
        lambda f: whole_config(f, "linear", sources(f, {"math": 0.3, "language": 0.3, "base": 0.3})),
    ),
    "TIES, density 0.5": (Ties(0.5), lambda f: whole_config(f, "ties", sources(f, BOTH), density=0.5, normalize=True)),
    "TIES, density 0.2, weights 0.7/0.4, lambda 0.8": (
        Ties(0.2, (0.7, 0.4), lambda_=0.8),
        lambda f: whole_config(
            f, "ties", sources(f, {"math": 0.7, "language": 0.4}), density=0.2, normalize=True, **{"lambda": 0.8}
        ),
    ),
    "TIES, not normalised": (
        Ties(0.7, normalize=False),
        lambda f: whole_config(f, "ties", sources(f, BOTH), density=0.7, normalize=False),
    ),
    "task arithmetic": (
        TaskArithmetic((0.6, 0.3)),
        lambda f: whole_config(f, "task_arithmetic", sources(f, {"math": 0.6, "language": 0.3}), normalize=False),
    ),
    "task arithmetic, lambda 0.7": (
        TaskArithmetic((1, 1), 0.7),
        lambda f: whole_config(f, "task_arithmetic", sources(f, BOTH), normalize=False, **{"lambda": 0.7}),
    ),
    **{
        f"SLERP, t {t}": (
            Slerp(t),
            lambda f, t=t: (
                whole_config(f, "slerp", [{"model": str(f[n])} for n in NAMES[1:]], t=t)
                | {"base_model": str(f["math"])}
            ),
        )
        for t in (0.3, 0.5)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_merge_equals_mergekits(name, folders, tmp_path, record_property):
    recipe, config = CASES[name]
    theirs = mergekit(config(folders), tmp_path / "theirs")
    difference = largest_difference(recipe, folders, theirs, tmp_path / "ours")
    record_property("largest_difference", difference)
    print(f"\n{name}: {difference:.2g}")
    assert difference < BOUND


@pytest.mark.parametrize(
    ("density", "normalize", "rescale"), [(0.5, True, "l1"), (0.6, False, "l1"), (0.5, True, "density")]
)
def test_dare_ties_equals_mergekits_given_its_random_masks(density, normalize, rescale, folders, tmp_path, monkeypatch):
    # Both sides draw their masks here: from the shape and from whose turn it is, math and language alternating.
    def masks(shape: tuple[int, ...], turn: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{tuple(shape)}{turn % 2}".encode()))
        return torch.rand(tuple(shape), generator=generator) < density

    turns: dict[tuple[int, ...], itertools.count[int]] = {}

    def bernoulli(probabilities: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        turn = next(turns.setdefault(tuple(probabilities.shape), itertools.count()))
        return masks(probabilities.shape, turn).to(probabilities.dtype)

    weights = {"math": 0.9, "language": 0.6}
    # mergekit has no division by the density; dividing the merged vector by it is the same.
    scaling = {"rescale": True} if rescale == "l1" else {"rescale": False, "lambda": 1 / density}
    config = whole_config(
        folders, "dare_ties", sources(folders, weights), density=density, normalize=normalize, **scaling
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bernoulli", bernoulli)
        theirs = mergekit(config, tmp_path / "theirs")
    assert turns, "mergekit draws its masks in another way"

    monkeypatch.setattr(
        "harness.merging.arithmetic.dare_mask",
        lambda shape, _d, _s, expert, _n: masks(shape, int(expert == "language")),
    )
    recipe = DareTies(density, (0.9, 0.6), normalize=normalize, rescale=rescale)
    difference = largest_difference(recipe, folders, theirs, tmp_path / "ours")
    print(f"\nDARE-TIES, density {density}, normalize {normalize}, rescale {rescale}: {difference:.2g}")
    assert difference < BOUND


def test_the_in_memory_swap_equals_mergekits(folders, tmp_path):
    from harness.experts import load_expert

    theirs = mergekit(swap_config(folders, (0.5, 0.5), {"math": 0.5, "language": 0.5}), tmp_path / "theirs")
    experts = {name: load_expert(name, path) for name, path in folders.items()}
    built = Assembler(experts).build(LayerSwap().plan(DEPTH, SwapSizes())).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in theirs.items())
