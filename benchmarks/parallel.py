"""The suite in one process, with ``-n 2`` and on two workers of Ray: wall and processor seconds, and what was kept.

Each run is a pytest of its own with an empty store, one thread a process. They take turns: a round is one of each.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.spent import FOLDER
from harness.evaluation.connection import connected
from harness.evaluation.stored import response_place, unpack, unseal
from harness.execution import Cluster

ROOT = Path(__file__).parents[1]
# Minutes on one thread, nearly all of it in matrix products: 135 million parameters. Programs are left out, since one
# process judges two at a time.
GRID = ("--ablation-profile=smollm2-135m", "--ablation-limit=20", "-k", "(count or placement) and not mbpp")
CONTESTANTS: Mapping[str, tuple[str, ...]] = {
    "one process": (),
    "-n 2": ("-n", "2"),
    "ray": ("--ablation-executor=ray", "--ablation-ray-workers=2"),
}


@dataclass(frozen=True)
class Run:
    """Seconds of wall, processor seconds by process, the load when it ended, and answers by variant and request."""

    wall: float
    spent: Mapping[str, float]
    load: float
    answers: Mapping[tuple[bytes, bytes], object]

    @property
    def path(self) -> float:
        """Processor seconds of the main process and of the longest worker: no run with these ends before."""
        workers = [seconds for name, seconds in self.spent.items() if name != "main"]
        return self.spent["main"] + max(workers, default=0.0)


def run(name: str, arguments: Sequence[str]) -> Run:
    """One run of the suite. RuntimeError with what it printed if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", FOLDER: folder}
        store = Path(folder) / "cache"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.spent", "ablations/"]
        given = [f"--ablation-cache={store}", "--ablation-report=none", *CONTESTANTS[name], *arguments]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, *given], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout[-3000:]}{done.stderr[-1000:]}")
        spent: dict[str, float] = {}
        for file in Path(folder).glob("*.json"):
            spent |= json.loads(file.read_text(encoding="utf-8"))
        return Run(wall, spent, os.getloadavg()[0], _answers(next(store.glob("*.sqlite"))))


def compare(name: str, rounds: int, arguments: Sequence[str]) -> None:
    """Prints one process against contestant ``name``, as often as asked for."""
    print(f"grid: ablations/ {' '.join(arguments)}", flush=True)
    found: dict[str, list[Run]] = {"one process": [], name: []}
    for _ in range(rounds):
        for contestant, runs in found.items():
            runs.append(run(contestant, arguments))
            each = ", ".join(f"{key} {seconds:.1f}" for key, seconds in sorted(runs[-1].spent.items()))
            print(
                f"{contestant}: {runs[-1].wall:.1f} s of wall, load {runs[-1].load:.1f}; processor seconds: {each}",
                flush=True,
            )
    one, many = found.values()
    same = all(other.answers == one[0].answers for other in (*one, *many))
    print(f"{len(one[0].answers)} answers, all equal: {same}")
    print(
        f"{name}, n={rounds}: {median(r.wall for r in one) / median(r.wall for r in many):.2f} times faster by wall, "
        f"{median(r.path for r in one) / median(r.path for r in many):.2f} times by processor seconds of main process "
        "and longest worker"
    )


def ray_start() -> float:
    """Seconds until two workers of a cluster of this machine run: libraries and experts are not loaded yet."""
    began = time.perf_counter()
    with connected(Cluster("local", 2)) as ray:
        ray.get([ray.remote(lambda: None).remote() for _ in range(2)])
        return time.perf_counter() - began


def _answers(path: Path) -> dict[tuple[bytes, bytes], object]:
    """What a store holds, whichever run wrote it."""
    query = "SELECT key, request, run, body FROM responses JOIN variants ON id = variant"
    found: dict[tuple[bytes, bytes], object] = {}
    for owner, request, run_, sealed in sqlite3.connect(path).execute(query):
        body = unseal(response_place(owner, request), run_, sealed)
        found[owner, request] = None if body is None else unpack(body)
    return found
