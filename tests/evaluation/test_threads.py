"""A grid that evaluates in several threads, as it does with small models on more than one core."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from harness.evaluation.grid import Grid, Settings
from harness.evaluation.workers import TURN, Emit, run_all, threads_per_operation
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap, Soup


def test_two_threads_score_as_one_does(tiny_profile: Path, tmp_path: Path) -> None:
    profile = load_profile(str(tiny_profile))
    found = []
    for threads in (1, 2):
        with threads_per_operation(threads):
            grid = Grid(Settings(profile, "cpu", "float32", limit=20), tmp_path / str(threads))
            plans = [r.plan(grid.layers, profile.sizes) for r in (LayerSwap(), Soup(), Expert("math"))]
            for benchmark in ("mgsm", "mmlu"):
                grid.expect(benchmark, plans)
            found.append([grid.cell(plan, b).scores for b in ("mgsm", "mmlu") for plan in plans])
    assert found[0] == found[1]


def test_a_failing_task_ends_the_others_at_what_they_say_next() -> None:
    said: list[int] = []
    begun = threading.Event()

    def endless(emit: Emit) -> None:
        while True:
            emit(1)
            begun.set()

    def failing(emit: Emit) -> None:
        begun.wait()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run_all([endless, failing], 2, said.append)
    assert said


def test_threads_take_short_turns_and_one_thread_its_own() -> None:
    own = sys.getswitchinterval()
    seen: list[float] = []

    def task(emit: Emit) -> None:
        emit(sys.getswitchinterval())

    run_all([task, task], 2, seen.append)
    assert seen == pytest.approx([TURN, TURN])
    run_all([task, task], 1, seen.append)
    assert [sys.getswitchinterval(), *seen[2:]] == [own, own, own]
