"""A pytest plugin that leaves what each process of a run took, for :mod:`benchmarks.parallel`.

Processor seconds by name, from the start of the process to its end; Ray's workers as they were when their tasks ended.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = "LAYERSWAP_SPENT"
_workers: dict[int, float] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Looks at Ray's workers whenever one has done a task."""
    if config.getoption("--ablation-executor", None) != "ray":
        return
    import psutil

    from harness.evaluation import cluster

    fill = cluster.fill

    def noting(grid: Any, of: Any, prices: Any, begun: Any, done: Any, *more: Any) -> None:
        def look(task: Any) -> None:
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::Worker"):
                        _workers[process.pid] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            done(task)

        fill(grid, of, prices, begun, look, *more)

    cluster.fill = noting


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Writes what this process has taken."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "main")
    found = {name: time.process_time(), **{f"ray {pid}": seconds for pid, seconds in _workers.items()}}
    Path(os.environ[FOLDER], f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
