"""Who computes a run and what answers in it, read from options; imports nothing heavy."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from harness.errors import LayerswapError

BACKENDS = ("shared", "hf", "vllm")
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: its ``address`` as Ray has it (``local`` for one of this machine, for this run alone).

    ``workers`` bounds how many there are; None for as many as it has room for.
    """

    address: str = "local"
    workers: int | None = None


def backend(name: str, arguments: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """What ``--ablation-backend`` and its arguments mean. Raises :class:`LayerswapError` for what cannot be had."""
    if name not in BACKENDS:
        raise LayerswapError(f"--ablation-backend is {name!r}: expected {', '.join(BACKENDS)}")
    if name == "vllm" and find_spec("vllm") is None:
        raise LayerswapError("--ablation-backend vllm: vllm is not installed here; pip install vllm")
    if arguments and name != "vllm":
        raise LayerswapError(f"--ablation-backend-args are for vllm, and --ablation-backend is {name}")
    return name, parse_arguments(arguments)


def parse_arguments(text: str) -> tuple[tuple[str, Any], ...]:
    """``max_model_len=4096,gpu_memory_utilization=0.8`` as names and values. LayerswapError for anything else."""
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise LayerswapError(f"--ablation-backend-args is {text!r}: expected NAME=VALUE,NAME=VALUE")
        try:
            found[name] = json.loads(value.lower() if value in ("True", "False") else value)
        except ValueError:
            found[name] = value
    return tuple(sorted(found.items()))


def cluster(executor: str, address: str, workers: str, processes: bool) -> Cluster | None:
    """What ``--ablation-executor`` and Ray's options mean; None if nothing is computed elsewhere.

    ``processes`` is whether pytest-xdist starts some. Raises :class:`LayerswapError` for what cannot be had.
    """
    if executor not in EXECUTORS:
        raise LayerswapError(f"--ablation-executor is {executor!r}: expected {' or '.join(EXECUTORS)}")
    if workers and not (workers.isdecimal() and int(workers) > 0):
        raise LayerswapError(f"--ablation-ray-workers is {workers!r}: expected a whole number, 1 or more")
    if executor == "local":
        if address or workers:
            raise LayerswapError("--ablation-ray-address and --ablation-ray-workers need --ablation-executor ray")
        return None
    if find_spec("ray") is None:
        raise LayerswapError("--ablation-executor ray: ray is not installed here; pip install 'pytest-layerswap[ray]'")
    if processes:
        raise LayerswapError("--ablation-executor ray has workers of its own: leave -n out")
    if address not in ("", "auto") and not re.fullmatch(r"(ray://)?[^\s/:]+:\d+", address):
        raise LayerswapError(f"--ablation-ray-address is {address!r}: expected auto, HOST:PORT or ray://HOST:PORT")
    return Cluster(address or "local", int(workers) if workers else None)
