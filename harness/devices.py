"""Where models run: whether there is such a device, and which GPU a worker of pytest-xdist uses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from harness.errors import LayerswapError, one_line

VISIBLE = "CUDA_VISIBLE_DEVICES"
KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "npu", "xla")  # that a torch may have, or be given
_DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU, of NVIDIA's driver on Linux


def check_name(device: str) -> None:
    """Raises :class:`LayerswapError` for what is no device to any torch; whether it is here, only torch can say."""
    kind, colon, number = device.partition(":")
    if kind not in KINDS or (colon and not number.isdecimal()):
        near = [] if kind in KINDS else difflib.get_close_matches(kind, KINDS, n=1)
        hint = "".join(f" (did you mean {name}?)" for name in near)
        raise LayerswapError(
            f"device {device!r} is none that torch knows{hint}: expected one such as cpu, cuda or cuda:1"
        )


def check_presence(device: str) -> None:
    """Raises :class:`LayerswapError` unless torch can hold something on ``device``."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # not there, not built in, or full
        reason = one_line(str(error).partition("\n")[0])
        raise LayerswapError(
            f"device {device!r} cannot be used here: {reason}: give another --ablation-device, such as cpu"
        ) from error


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

    Before torch is imported, which looks only once.

    A device with a number is what somebody chose, and stays.
    """
    gpu = own(worker, visible(environment, driver))
    if device == "cuda" and gpu is not None:
        environment[VISIBLE] = gpu
