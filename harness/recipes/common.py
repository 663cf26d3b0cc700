"""What all recipes share: the names of roles, sizes and their checks, and what a recipe is."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

from harness.errors import LayerswapError
from harness.plan import DEEPEST, OUTER_SLOTS, Mix, Plan, layer_slot, linear

BASE, MATH, LANGUAGE = "base", "math", "language"

Outer = Literal["average", "language", "math", "base"]
Role = Literal["math", "language"]
Size = int | float
Weights = Mapping[str, float] | tuple[float, float] | tuple[tuple[str, float], ...]
PlacementKind = Literal["middle", "every-other", "ends", "random", "exchanged"]


def in_layers(size: Size, layers: int) -> int:
    """A size in whole layers; a share of the depth is rounded half up."""
    return math.floor(size * layers + 0.5) if isinstance(size, float) else size


def check_size(name: str, size: object) -> None:
    """Raises :class:`LayerswapError` for what is no size."""
    whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    if size is not None and not whole and not (isinstance(size, float) and 0 <= size <= 1):
        raise LayerswapError(f"{name} is {size!r}: expected a whole number of layers, or a share from 0.0 to 1.0")


def check_depth(layers: int) -> int:
    """The depth itself; raises :class:`LayerswapError` for less than one layer, or more than any model has."""
    if not 1 <= layers <= DEEPEST:
        raise LayerswapError(f"a model of {layers} layers cannot be merged: expected 1 to {DEEPEST:,}")
    return layers


def check_weights(weights: tuple[float, float]) -> None:
    """Raises :class:`LayerswapError` for what is no (math, language) pair of weights."""
    if len(weights) != 2:
        raise LayerswapError(f"weights has {len(weights)} numbers: expected a pair (math, language)")
    linear(zip((MATH, LANGUAGE), weights, strict=True))


def check_outer(outer: str) -> None:
    """Raises :class:`LayerswapError` for an unknown filler of the outer slots."""
    if outer not in get_args(Outer):
        raise LayerswapError(f"unknown outer {outer!r}: expected {listed(get_args(Outer))}")


def check_density(density: float) -> None:
    """Raises :class:`LayerswapError` for a density outside (0, 1]."""
    if not 0 < density <= 1:  # NaN too
        raise LayerswapError(f"density is {density}: expected a share above 0 and up to 1")


def check_lambda(lambda_: float) -> None:
    """Raises :class:`LayerswapError` for a scale that is not finite."""
    if not math.isfinite(lambda_):
        raise LayerswapError(f"lambda is {lambda_}: expected a finite number")


def listed(names: Iterable[str]) -> str:
    """Names in quotes, for messages."""
    return ", ".join(repr(name) for name in names)


@dataclass(frozen=True)
class SwapSizes:
    """The sizes a profile gives to everything that a recipe leaves out.

    ``bottom``, ``top`` and ``transition`` (below the middle, above it) are layers of an ``of``-layer model; ``weights``
    are (math, language) of averaged slots; ``outer`` fills embeddings, final norm and head.
    """

    bottom: int = 5
    top: int = 2
    transition: tuple[int, int] = (1, 1)
    weights: tuple[float, float] = (0.5, 0.5)
    outer: Outer = "average"
    of: int = 32

    def __post_init__(self) -> None:
        for name, count in zip(("bottom", "top", "transition", "transition"), self._counts, strict=True):
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise LayerswapError(f"the default {name} is {count!r}: expected a whole number of layers, 0 or more")
        if self.of < 1 or sum(self._counts) > self.of:
            raise LayerswapError(f"the default sizes {self._counts} do not fit into a model of {self.of} layers")
        check_weights(self.weights)
        check_outer(self.outer)

    @property
    def _counts(self) -> tuple[int, int, int, int]:
        return (self.bottom, self.top, *self.transition)

    def scaled(self, layers: int) -> SwapSizes:
        """The same fractions of a ``layers``-layer model, rounded half up; a block that has layers keeps at least 1."""
        bottom, top, below, above = (
            max(1, (2 * n * layers + self.of) // (2 * self.of)) if n else 0 for n in self._counts
        )
        # A shallow model may not hold four rounded-up parts; the swap then reports that by name, not this conversion.
        return SwapSizes(
            bottom, top, (below, above), self.weights, self.outer, max(layers, bottom + top + below + above)
        )


PAPER = SwapSizes()
"""The default of the layer-swapping paper (arXiv 2410.01335) for 32 layers: 5 bottom, 2 top, transitions of 1."""


@runtime_checkable
class Recipe(Protocol):
    """Anything with a title that gives a plan for a model of ``layers`` decoder layers."""

    @property
    def title(self) -> str:
        """Short text for people."""

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """One mix for every slot; raises :class:`LayerswapError` if the request does not fit the depth."""


def check_experts(plan: Plan, known_names: Iterable[str]) -> None:
    """Raises :class:`LayerswapError` for the first expert of ``plan`` that is unknown, naming the nearest known one."""
    known = list(known_names)
    for name in plan.experts:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {listed(known)}"
            raise LayerswapError(f"unknown expert {name!r}: {hint}")


def stacked(stack: list[Mix], outer: Mix) -> Plan:
    """A plan of one mix a layer and one for all outer slots."""
    mixes = {layer_slot(i): mix for i, mix in enumerate(stack)} | dict.fromkeys(OUTER_SLOTS, outer)
    return Plan.of(len(stack), mixes)


def everywhere(layers: int, mix: Mix) -> Plan:
    """A plan of the same mix in every slot."""
    return stacked([mix] * check_depth(layers), mix)
