"""A run that is killed goes on where it was: what its batches gave is there, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from harness.evaluation.grid import Grid, Settings
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup
from tests.evaluation.asking import Counting

BENCHMARKS = ("mmlu", "mgsm")
RECIPES: tuple[Recipe, ...] = (LayerSwap(), LayerSwap(top=0), Expert("math"), Soup())
LIMIT = 24


def evaluate(profile: str | Path, folder: str | Path, say: object = None) -> tuple[dict[str, object], int]:
    """Cells of a small grid whose store is in ``folder``, and how many answers were added to it."""
    import torch

    torch.set_num_threads(1)
    loaded = load_profile(str(profile)).model_copy(update={"batch_size": 16})
    store = Counting(Path(folder) / "store.sqlite")
    if callable(say):
        add = store.add_responses

        def added(variant: str, answers: dict[str, object]) -> None:
            say("batch", len(answers))  # it is being written
            add(variant, answers)
            say("kept")

        store.add_responses = added  # type: ignore[assignment, method-assign]
    grid = Grid(Settings(loaded, "cpu", "float32", LIMIT), Path(folder) / f"run-{time.monotonic_ns()}", store)
    plans = [recipe.plan(grid.layers, loaded.sizes) for recipe in RECIPES]
    cells = {}
    for benchmark in BENCHMARKS:
        grid.expect(benchmark, plans)
        for recipe, plan in zip(RECIPES, plans, strict=True):
            scores = grid.cell(plan, benchmark).scores
            cells[f"{recipe!r} {benchmark}"] = [(s.values, [x.answer for x in s.samples]) for s in scores]
    assert store.messages == []
    store.close()
    return cells, sum(store.added.values())


@pytest.fixture(scope="module")
def undisturbed(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], int]:
    return evaluate(tiny_profile, tmp_path_factory.mktemp("undisturbed"))


def killed(profile: Path, folder: Path, after: int, wait: float) -> tuple[int, int]:
    """Kills a run once ``after`` batches are kept and ``wait`` seconds more; answers kept, and of the last batch."""
    reading, writing = os.pipe()
    if not (process := os.fork()):  # torch is imported and stands: a process of its own would take seconds to begin
        try:
            with os.fdopen(writing, "w", encoding="utf-8") as out:
                evaluate(profile, folder, lambda *words: print(*words, file=out, flush=True))
        finally:
            os._exit(0)
    os.close(writing)
    said: list[str] = []
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            said.append(line)
            if sum(text.startswith("kept") for text in said) >= after:
                break
        time.sleep(wait)
        os.kill(process, signal.SIGKILL)
        said += lines
    os.waitpid(process, 0)
    said = [line for line in said if line.endswith("\n")]
    begun = [int(line.split()[1]) for line in said if line.startswith("batch")]
    kept = sum(line.startswith("kept") for line in said)
    assert len(begun) - kept in (0, 1)
    return sum(begun[:kept]), begun[-1] if len(begun) > kept else 0


def check(profile: Path, folder: Path, undisturbed: tuple[dict[str, object], int], seeds: Sequence[int]) -> None:
    expected, total = undisturbed
    before = json.dumps(expected, sort_keys=True)
    stopped = 0
    for seed in seeds:
        random, place = Random(seed), folder / str(seed)
        place.mkdir()
        kept, last = killed(profile, place, random.randrange(1, 30), random.uniform(0, 0.05))
        cells, added = evaluate(profile, place)
        assert json.dumps(cells, sort_keys=True) == before
        # All that was kept is not asked again; of the batch that was being written all is there or nothing.
        assert added in (total - kept, total - kept - last)
        stopped += 0 < kept < total
        again, nothing = evaluate(profile, place)
        assert (again, nothing) == (cells, 0)
    assert stopped, "no run was killed in its midst"


def test_a_killed_run_goes_on_from_its_last_batch(tiny_profile, undisturbed, tmp_path):
    check(tiny_profile, tmp_path, undisturbed, range(4))


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_goes_on_from_its_last_batch(tiny_profile, undisturbed, tmp_path):
    check(tiny_profile, tmp_path, undisturbed, range(100, 120))
