"""Two workers of a Ray cluster of this machine, against one process: the same bytes in the store, whatever is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from harness.errors import LayerswapError
from harness.evaluation.cluster import Finished, answer, needs_of
from harness.evaluation.connection import connected
from harness.evaluation.drafts import ANCHORS
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.jobs import queue_of
from harness.evaluation.planning import Prices, divide
from harness.evaluation.questions import questions
from harness.evaluation.worker import Job
from harness.execution import Cluster
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Recipe, Soup
from tests.evaluation.asking import Counting

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]
RECIPES: tuple[Recipe, ...] = (LayerSwap(), LayerSwap(top=0), Expert("math"), Soup())
BENCHMARKS = ("mmlu", "mgsm")
FINE = Prices(tasks=1e-9, variants=1e-9)  # tasks as small as can be
Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module", autouse=True)
def paths_of_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile)).model_copy(update={"batch_size": 16})


def grid_of(profile: Profile, folder: Path, limit: int = 60, **changes: Any) -> Grid:
    """A grid whose store says that its rows are of one run, whoever wrote them."""
    store = Counting(folder / "store.sqlite", run="one")
    grid = Grid(Settings(profile, "cpu", "float32", limit, threads=1, **changes), folder / "run", store)
    for benchmark in BENCHMARKS:
        grid.expect(benchmark, [recipe.plan(grid.layers, profile.sizes) for recipe in RECIPES])
    return grid


def cells(grid: Grid) -> dict[str, Any]:
    plans = {str(recipe): recipe.plan(grid.layers, grid.settings.profile.sizes) for recipe in RECIPES}
    found = {f"{name} {b}": grid.cell(plan, b).scores for name, plan in plans.items() for b in BENCHMARKS}
    return {key: [(s.values, [x.answer for x in s.samples]) for s in scores] for key, scores in found.items()}


def rows(grid: Grid) -> Rows:
    query = "SELECT key, request, run, body FROM responses JOIN variants ON variants.id = variant ORDER BY 1, 2"
    connection = sqlite3.connect(grid.store.path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def alone(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Rows]:
    grid = grid_of(profile, tmp_path_factory.mktemp("alone"))
    return cells(grid), rows(grid)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with connected(Cluster("local", 2)) as ray:
        yield ray


def test_sigterm_does_what_it_did(ray):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def workers_of_this_process() -> list[psutil.Process]:
    """Processes of Ray's workers below this one: nobody else's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Killer(threading.Thread):
    """Kills workers until it is stopped, at moments that ``seed`` makes."""

    def __init__(self, seed: int, most: int) -> None:
        super().__init__(daemon=True)
        self._random, self._most, self._stopped, self.killed = Random(seed), most, threading.Event(), 0

    def run(self) -> None:
        while self.killed < self._most and not self._stopped.wait(self._random.uniform(0.1, 4.0)):
            if workers := workers_of_this_process():
                os.kill(self._random.choice(workers).pid, signal.SIGKILL)
                self.killed += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def check(ray: Any, profile: Profile, alone: tuple[dict[str, Any], Rows], folder: Path, killer: Killer | None) -> int:
    """Fills a store; how many workers were killed meanwhile."""
    grid, done, said = grid_of(profile, folder), list[Finished](), list[str]()
    if killer:
        killer.start()
    answer(ray, grid, 2, FINE, said.append, done.append)
    if killer:
        killer.stop()
    expected, kept = alone
    # Every task counted once, every answer added once, and the bytes are those of one process.
    assert len(done) == done[0].tasks >= 8
    assert said == [f"ray: {len(done)} tasks for 2 workers"]
    assert sum(task.responses for task in done) == sum(grid.store.added.values()) == len(kept)
    assert sum(task.share for task in done) == pytest.approx(1.0)
    assert all((task.length is None) == ("mgsm" not in task.name) for task in done)
    soup = grid.variants.identity(Soup().plan(grid.layers, profile.sizes))
    assert sum(task.merging.get(soup, 0.0) for task in done) > 0  # beside a task's own seconds
    assert all(0 < task.length <= 2 for task in done if task.length is not None)  # at most twice what is guessed
    assert rows(grid) == kept
    assert cells(grid) == expected
    assert grid.work["layer calls"] == 0  # this process computed nothing
    assert sum(grid.store.added.values()) == len(kept)
    return killer.killed if killer else 0


@pytest.mark.slow
def test_two_workers_fill_the_store_with_the_bytes_of_one_process(ray, profile, alone, tmp_path):
    check(ray, profile, alone, tmp_path, None)


def test_a_worker_that_is_killed_changes_nothing(ray, profile, alone, tmp_path):
    assert check(ray, profile, alone, tmp_path, Killer(1, 1)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_workers_killed_at_random_change_nothing(ray, profile, alone, tmp_path, seed):
    assert check(ray, profile, alone, tmp_path, Killer(100 + seed, 3)) >= 1


def test_what_is_known_is_not_asked_and_a_portion_is_asked_whole(profile, alone, tmp_path):
    grid = grid_of(profile, tmp_path)
    everything = questions(grid)
    drafted = [block for block in everything if block.block.drafts]
    assert {(b.benchmark, len(b.plans)) for b in everything if b not in drafted} == {("mmlu", 4), ("mgsm", 1)}
    assert [(b.benchmark, len(b.plans), len(b.before)) for b in drafted] == [("mgsm", 1, ANCHORS)] * len(drafted)
    cells(grid)
    assert not questions(grid)
    other = grid_of(profile, tmp_path, limit=61)  # other cells, of answers that are known but for one document each
    asked = questions(other)
    assert 0 < len({(b.benchmark, b.column, portion.rows) for b in asked for portion in b.portions}) <= 2 * 3
    assert {len(block.plans) for block in asked} == {1, 4}


def test_answers_that_are_drafts_come_first_and_go_along_with_what_they_are_for(profile, tmp_path):
    grid = grid_of(profile, tmp_path)
    asked = questions(grid)
    tasks = divide([block.block for block in asked], 2, FINE)
    queue, random, at_work, done = queue_of(asked, tasks), Random(3), dict[int, Job](), list[int]()
    while True:
        while taken := queue.take():
            at_work[taken[0]] = taken[1]
        if not at_work:
            break
        number = random.choice([*at_work])
        job = at_work.pop(number)
        block = asked[tasks[number].block]
        assert all(n in done for n in queue.after[number])
        texts = [n for row in job.rows for n in row] if block.block.drafts else []
        assert set(job.drafts) == set(texts)
        assert all(len(drafts) == ANCHORS for drafts in job.drafts.values())
        queue.note(number, {grid.identity(p): {d: "1" for row in job.digests for d in row} for p in job.plans})
        done.append(number)
    assert sorted(done) == list(range(len(tasks)))
    assert any(queue.after)


def test_no_cluster_no_room_and_other_weights_are_said(ray, profile, tmp_path):
    grid = grid_of(profile, tmp_path)
    grid.settings = replace(grid.settings, memory=10**15)
    with pytest.raises(LayerswapError, match=r"^no node of the Ray cluster has 1 CPU, 1,000,[\d,]+ memory for"):
        answer(ray, grid, 2, FINE, lambda _: None, lambda _: None)
    grid = grid_of(profile, tmp_path)
    questions(grid)
    digests = grid.variants.digests["math"]
    grid.variants.digests["math"] = type(digests)({**digests.slot_digests, "norm": "0"}, digests.config_digest)
    with pytest.raises(LayerswapError, match=r"^node .*: the expert math in .*/math has other weights than here$"):
        answer(ray, grid, 2, FINE, lambda _: None, lambda _: None)


def test_a_worker_takes_a_core_and_memory_or_a_gpu(profile):
    settings = Settings(profile, "cpu", "float32", memory=100)
    assert needs_of(settings, 50, 20) == {"num_cpus": 1, "num_gpus": 0, "memory": 150}
    assert needs_of(replace(settings, device="cuda:0"), 50, 20) == {"num_cpus": 1, "num_gpus": 1, "memory": 20}
