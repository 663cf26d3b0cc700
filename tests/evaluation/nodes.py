"""What :mod:`tests.evaluation.test_cluster_nodes` runs in a network of its own: a cluster of several nodes.

    python -m tests.evaluation.nodes PROFILE FOLDER PORT LOSE

Fills a store through ``ray://`` with the workers of two nodes, of which one is lost once LOSE answers are there (0:
none), and another then comes. Prints the number of the tasks and the nodes that were there at the end.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from harness.evaluation.cluster import Finished, answer
from harness.evaluation.connection import connected
from harness.evaluation.grid import Grid
from harness.execution import Cluster
from harness.profiles import load_profile
from tests.evaluation.test_cluster import FINE, grid_of

NODE = {"num_cpus": 1, "memory": 3 << 30, "object_store_memory": 80 << 20, "include_dashboard": False}


def main(profile: str, folder: str, port: int, lose: int) -> None:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "ray_client_server_port": port})
    workers = [nodes.add_node(**NODE) for _ in range(2)]
    try:
        print(*fill(nodes, workers, grid_at(profile, folder), port, lose), flush=True)
    finally:
        nodes.shutdown()


def grid_at(profile: str, folder: str) -> Grid:
    return grid_of(load_profile(profile).model_copy(update={"batch_size": 16}), Path(folder))


def fill(nodes: Any, workers: list[Any], grid: Grid, port: int, lose: int) -> tuple[int, int]:
    done: list[Finished] = []
    replaced = threading.Event()

    def finished(task: Finished) -> None:
        done.append(task)
        if lose and not replaced.is_set() and sum(t.responses for t in done) >= lose:
            nodes.remove_node(workers.pop(), allow_graceful=False)
            nodes.add_node(**NODE)
            replaced.set()

    with connected(Cluster(f"ray://127.0.0.1:{port}")) as ray:
        answer(ray, grid, 2, FINE, lambda _: None, finished)
        known = len(ray.nodes())  # with the one that is lost, which Ray may not have noticed by now
    assert bool(lose) == replaced.is_set()
    return len(done), known


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
