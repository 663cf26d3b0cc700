"""lm-eval's own model classes in the place of the shared engine."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from harness.errors import LayerswapError
from harness.evaluation import backends
from harness.evaluation.backends import Exports, checkpointed
from harness.evaluation.benchmarks import build_columns
from harness.evaluation.editions import edition, engine_digest
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.sharing import Variant
from harness.evaluation.stock import Stock, hf_model
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Soup
from tests.evaluation.asking import Counting

RECIPES = (LayerSwap(), Expert("math"), Soup())
BENCHMARKS = ("mmlu", "mgsm")


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile))


def settings_of(profile: Profile, **changes: object) -> Settings:
    return Settings(**{"profile": profile, "device": "cpu", "dtype": "float32", "limit": 10, **changes})


def values(grid: Grid) -> dict[str, object]:
    plans = {str(recipe): recipe.plan(grid.layers, grid.settings.profile.sizes) for recipe in RECIPES}
    for benchmark in BENCHMARKS:
        grid.expect(benchmark, plans.values())
    return {
        f"{name} {benchmark}": [(s.values, [x.answer for x in s.samples]) for s in grid.cell(plan, benchmark).scores]
        for name, plan in plans.items()
        for benchmark in BENCHMARKS
    }


@pytest.fixture(scope="module")
def shared(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return values(Grid(settings_of(profile), tmp_path_factory.mktemp("shared")))


def test_hflm_gives_every_document_the_value_of_the_shared_engine(profile, shared, tmp_path):
    store = Counting(tmp_path / "store.sqlite")
    assert values(Grid(settings_of(profile, backend="hf"), tmp_path / "run", store)) == shared
    asked = sum(store.added.values())
    assert asked > 0
    # All of it is kept: a grid that has lost its scores asks nothing again.
    grid = Grid(settings_of(profile, backend="hf", limit=9), tmp_path / "again", store)
    values(grid)
    assert sum(store.added.values()) == asked


def test_each_backend_has_results_of_its_own(profile):
    settings = [
        settings_of(profile),
        settings_of(profile, backend="hf"),
        settings_of(profile, backend="vllm"),
        settings_of(profile, backend="vllm", backend_args=(("max_model_len", 4096),)),
    ]
    assert len({engine_digest(s) for s in settings}) == len({edition(s, "mmlu") for s in settings}) == 4


def test_a_checkpoint_is_loaded_once_for_all_columns_and_deleted_under_the_budget(
    profile, shared, tmp_path, monkeypatch
):
    """What is vLLM's alone is the class that loads a checkpoint: here it is lm-eval's HFLM."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Counter[str] = Counter()
    alive: list[int] = []

    def load(_: object, folder: Path) -> object:
        loaded[folder.name] += 1
        alive.append(len(list(folder.parent.iterdir())))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        return hf_model(model, AutoTokenizer.from_pretrained(folder), 64)

    monkeypatch.setattr(backends, "_vllm", load)
    monkeypatch.setenv("LAYERSWAP_CACHE", str(tmp_path / "cache"))
    size = backends._bytes(Grid(settings_of(profile), tmp_path / "size").variants)
    grid = Grid(settings_of(profile, backend="vllm", disk=2 * size), tmp_path / "run")
    assert values(grid) == shared
    assert len(loaded) == len(RECIPES)
    assert set(loaded.values()) == {len(BENCHMARKS)}
    assert max(alive) == 2
    (root,) = (tmp_path / "cache").glob("exports-*")
    written = [sum(f.stat().st_size for f in folder.iterdir()) for folder in root.iterdir()]
    assert 0.5 * size < max(written) <= size
    del grid
    gc.collect()
    assert not root.exists()


def test_what_is_not_there_and_what_does_not_fit_is_said(profile, tmp_path, monkeypatch):
    grid = Grid(settings_of(profile, backend="vllm", disk=1000), tmp_path / "small")
    plan = LayerSwap().plan(4, profile.sizes)
    with pytest.raises(LayerswapError, match=r"takes 0\.0 GB and --ablation-disk allows 0\.0 GB: allow more"):
        grid.cell(plan, "mmlu")
    grid = Grid(settings_of(profile, backend="vllm"), tmp_path / "absent")
    with pytest.raises(LayerswapError, match=r"^--ablation-backend vllm cannot load a variant: .*vllm"):
        grid.cell(plan, "mmlu")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(LayerswapError, match=r"^no room for a checkpoint of 0\.0 GB in .*: free some, or name another"):
        Exports(lambda *_: None, 10**9, 10**6).folder("x", plan)


def test_a_model_is_let_go_before_the_next_is_loaded(profile, tmp_path):
    events: list[str] = []

    @contextmanager
    def opened(variant):
        events.append(f"+{variant.identity}")
        yield hf_model(variant.build(), tokenizer, 64)
        events.append(f"-{variant.identity}")

    grid = Grid(settings_of(profile), tmp_path)
    tokenizer = grid._sweeper.tokenizer
    grid.load(profile.experts)
    variants = [
        replace(grid.variants.variant(recipe.plan(4, profile.sizes)), identity=name)
        for name, recipe in zip("ab", RECIPES, strict=False)
    ]
    columns = build_columns(profile, "mgsm", 2, 64, "float32")
    Stock(opened, "engine").scores(columns, variants, None, lambda *_: None)
    assert events == ["+a", "-a", "+b", "-b"]


def test_a_checkpoint_stands_while_its_model_is_used(tmp_path):
    made = []
    exports = Exports(lambda plan, out: (out.mkdir(), made.append(plan)), 10**9, 10**6)
    opened = partial(checkpointed, exports, lambda identity: f"plan of {identity}", lambda folder: folder)
    with opened(Variant("v", (), lambda: None)) as folder:
        assert folder.is_dir()
    assert made == ["plan of v"]
