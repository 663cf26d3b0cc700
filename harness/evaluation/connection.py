"""Ray, connected to a cluster for as long as it is needed; this process stays as it was."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from harness.errors import LayerswapError
from harness.execution import Cluster

TIMEOUT = 10.0  # seconds that a cluster's address may take to answer
TRIES = 3  # a cluster forks a process for whoever connects, beside threads of gRPC, and sometimes it dies at once
DIED = "Starting Ray client server failed"  # what Ray says then


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to ``cluster`` while the block runs. LayerswapError if that cannot be."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send what it counts
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "layerswap"}
    if cluster.address == "local":  # which nobody else reaches
        options |= {"include_dashboard": False, "num_cpus": cluster.workers, "_node_ip_address": "127.0.0.1"}
    try:
        if cluster.address not in ("local", "auto"):
            host, _, port = cluster.address.removeprefix("ray://").partition(":")
            socket.create_connection((host, int(port)), TIMEOUT).close()  # Ray would try for ten minutes
        with _importing(), _own_sigterm():
            started(ray, cluster.address, options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]  # of a server's error the last says what
        reason = (lines or [type(error).__name__])[-1].strip()
        raise LayerswapError(f"--ablation-ray-address {cluster.address}: there is no such cluster: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def started(ray: Any, address: str, options: Mapping[str, Any]) -> None:
    """``ray.init``, again where the cluster failed to start the process that it has for each connection."""
    for tried in range(1, TRIES + 1):
        try:
            ray.init(address, **options)
            return
        except ConnectionError as error:
            if DIED not in str(error) or tried == TRIES:
                raise


@contextmanager
def _importing() -> Iterator[None]:
    """Loads the libraries that reading prompts takes, while the block waits for other processes."""

    def load() -> None:
        with suppress(Exception):  # whoever needs them says what is wrong
            for name in ("torch", "transformers.modeling_layers", "lm_eval.tasks"):
                import_module(name)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        thread.join()  # two threads that import the same may each see the other's half


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What SIGTERM does stays as it is: Ray would put a handler of its own in the place of a session's, for good."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # None is a handler that is not Python's, which Python cannot put back.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
