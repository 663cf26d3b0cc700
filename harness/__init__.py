"""pytest-layerswap: ablations of layer-swapped language models as pytest cases.

In a notebook, ``from harness import LayerSwap, load, evaluate, compare``: see :mod:`harness.notebook`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.notebook import Experts, compare, evaluate, load
    from harness.recipes import (
        DareTies,
        Expert,
        LayerSwap,
        OneSide,
        Placement,
        Revert,
        Slerp,
        Slots,
        Soup,
        TaskArithmetic,
        Ties,
    )

__version__ = "0.1.0"

__all__ = [
    "DareTies",
    "Expert",
    "Experts",
    "LayerSwap",
    "OneSide",
    "Placement",
    "Revert",
    "Slerp",
    "Slots",
    "Soup",
    "TaskArithmetic",
    "Ties",
    "__version__",
    "compare",
    "evaluate",
    "load",
]
_NOTEBOOK = ("Experts", "compare", "evaluate", "load")


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: the pytest plugin and ``--help`` need none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module("harness.notebook" if name in _NOTEBOOK else "harness.recipes"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
