"""Two processes of one run, as two grids with a folder and a store in common."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from harness.evaluation.division import even
from harness.evaluation.drafts import ANCHORS
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.responses import Store
from harness.evaluation.variants import Variants
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup

RECIPES: tuple[Recipe, ...] = (
    LayerSwap(),
    LayerSwap(top=0),
    Expert("math"),
    Expert("base"),
    Soup(),
    LayerSwap(bottom=2),
)
BENCHMARKS = ("mmlu", "flores", "mgsm")


@pytest.fixture(scope="module", autouse=True)
def one_loads_at_a_time() -> Iterator[None]:
    """Processes load side by side. Threads, which stand for them here, must not: transformers changes its classes."""
    lock, load = threading.Lock(), Variants._load

    def alone(*arguments: Any) -> None:
        with lock:
            load(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variants, "_load", alone)
        yield


def grid(profile: Path, folder: Path, workers: int, recipes: tuple[Recipe, ...] = RECIPES) -> Grid:
    found = load_profile(str(profile))
    made = Grid(Settings(found, "cpu", "float32", 30, 1, workers), folder / "run", Store(folder / "store", run="one"))
    for benchmark in BENCHMARKS:
        made.expect(benchmark, [recipe.plan(made.layers, found.sizes) for recipe in recipes])
    return made


def kept(grid: Grid) -> list[tuple[object, ...]]:
    query = "SELECT key, request, run, body FROM responses JOIN variants ON id = variant ORDER BY 1, 2"
    return list(sqlite3.connect(grid.store.path).execute(query))


def values(grid: Grid) -> list[object]:
    plans = [recipe.plan(grid.layers, grid.settings.profile.sizes) for recipe in RECIPES]
    return [score.values for plan in plans for name in BENCHMARKS for score in grid.cell(plan, name).scores]


@pytest.fixture(scope="module")
def alone(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], list[object]]:
    one = grid(tiny_profile, tmp_path_factory.mktemp("alone"), 1)
    return values(one), [*kept(one)]


def test_two_processes_keep_the_scores_and_bytes_of_one(tiny_profile, tmp_path, alone):
    found = {}

    def work(number: int) -> None:
        mine = grid(tiny_profile, tmp_path, 2)
        found[number] = values(mine)
        mine.store.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: alone[0], 1: alone[0]}
    assert kept(grid(tiny_profile, tmp_path, 2)) == alone[1]


def test_a_run_for_itself_among_several_asks_each_answer_once(tiny_profile, tmp_path, alone, monkeypatch):
    one = grid(tiny_profile, tmp_path, 2)
    added: list[tuple[str, str]] = []
    keep = one.store.add_responses
    monkeypatch.setattr(one.store, "add_responses", lambda v, a: (added.extend((v, r) for r in a), keep(v, a)))
    assert values(one) == alone[0]
    assert len(added) == len(set(added)) == len(alone[1])
    assert kept(one) == alone[1]


def test_drafts_are_answers_that_the_store_has_of_any_expected_variant(tiny_profile, tmp_path, alone):
    some = grid(tiny_profile, tmp_path, 1, RECIPES[:ANCHORS])
    (whole,) = (column for column in some.columns("mgsm")[:1])
    some.cell(RECIPES[0].plan(4, some.settings.profile.sizes), "mgsm")
    more = grid(tiny_profile, tmp_path, 1)
    drafts: list[int] = []
    engine = more.asker._engine  # type: ignore[union-attr]
    generate = type(engine).generate

    def noting(self, variants, requests, given, keep):  # type: ignore[no-untyped-def]
        drafts.extend(len(given[n]) for n in requests)
        generate(self, variants, requests, given, keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine), "generate", noting)
        assert values(more) == alone[0]
    assert drafts.count(ANCHORS) >= len(whole.documents)


def test_runs_are_even_and_hold_everything():
    random = Random(1)
    for _ in range(300):
        amounts = [random.randint(1, 50) for _ in range(random.randint(0, 60))]
        count = random.randint(1, 12)
        runs = even(amounts, count)
        assert [i for a, b in runs for i in range(a, b)] == list(range(len(amounts)))
        assert len(runs) <= count
        assert all(a < b for a, b in runs)
        assert all(sum(amounts[a:b]) <= sum(amounts) / count + max(amounts) for a, b in runs)
