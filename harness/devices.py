"""Which GPU a worker of pytest-xdist uses: set before torch is imported, since torch looks only once."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU, of NVIDIA's driver on Linux


def visible(environment: Mapping[str, str], driver: Path = _DRIVER) -> tuple[str, ...]:
    """The GPUs that the caller may use, by number or name: those of ``CUDA_VISIBLE_DEVICES`` if it is set, else all."""
    if VISIBLE in environment:
        named = [name.strip() for name in environment[VISIBLE].split(",")]
        # CUDA reads up to the first that is none.
        stop = next((i for i, name in enumerate(named) if not name or name.startswith("-")), len(named))
        return tuple(named[:stop])
    return tuple(map(str, range(len(list(driver.iterdir()))))) if driver.is_dir() else ()


def own(worker: str, gpus: tuple[str, ...]) -> str | None:
    """The GPU of the worker ``gw0``, ``gw1``, ...: in turn if there are more workers. None without GPU."""
    number = re.fullmatch(r"gw(\d+)", worker)
    return gpus[int(number[1]) % len(gpus)] if number and gpus else None


def choose(worker: str, device: str, environment: MutableMapping[str, str], driver: Path = _DRIVER) -> None:
    """Shows the process of ``worker`` its own GPU alone, if ``device`` is ``cuda``: it is then the only, and the first.

    A device with a number is what somebody chose, and stays.
    """
    gpu = own(worker, visible(environment, driver))
    if device == "cuda" and gpu is not None:
        environment[VISIBLE] = gpu
