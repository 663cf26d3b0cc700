"""Recipes that fill every slot by the same operation: soups, task arithmetic, TIES, DARE and SLERP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.errors import LayerswapError
from harness.plan import Mix, Operation, Parameter, Plan, copy, linear
from harness.recipes.common import (
    BASE,
    LANGUAGE,
    MATH,
    PAPER,
    SwapSizes,
    Weights,
    check_density,
    check_lambda,
    everywhere,
)


class _Everywhere:
    """A merging method that fills every slot by the same operation."""

    def _mix(self) -> Mix:
        raise NotImplementedError

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers."""
        return everywhere(layers, self._mix())


@dataclass(frozen=True)
class Soup(_Everywhere):
    """Model soup (arXiv 2203.05482): the weighted average of whole models, ``(math, language)`` or by name."""

    weights: Weights = (0.5, 0.5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _sources(self.weights))

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"soup {_ratio(self.weights)}"

    def _mix(self) -> Mix:
        return linear(_sources(self.weights))


@dataclass(frozen=True)
class Ties(_Everywhere):
    """TIES-Merging (arXiv 2306.01708): trim task vectors, elect a sign, average what agrees with it.

    ``trim`` keeps the ``density`` largest entries of each tensor (``"tensor"``, as mergekit does) or of the whole task
    vector (``"model"``, as the paper does). ``normalize`` divides by the weights that agree, ``lambda_`` scales.
    """

    density: float = 0.5
    weights: Weights = (1.0, 1.0)
    normalize: bool = True
    lambda_: float = 1.0
    trim: Literal["tensor", "model"] = "tensor"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _sources(self.weights))
        check_density(self.density)
        check_lambda(self.lambda_)
        if self.trim not in ("tensor", "model"):
            raise LayerswapError(f"unknown trim {self.trim!r}: expected 'tensor' or 'model'")

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"TIES, density {self.density:g}" + (", trimmed over the model" if self.trim == "model" else "")

    def _mix(self) -> Mix:
        trim = ("trim", self.trim)
        return _task_vectors("ties", self.weights, self.lambda_, trim, *_sparse(self.density, self.normalize))


@dataclass(frozen=True)
class DareTies(_Everywhere):
    """DARE (arXiv 2311.03099) before TIES: keep each entry of a task vector with probability ``density``, rescale.

    The masks are drawn from (``seed``, expert, tensor name), the same on every machine. ``rescale`` by 1/density
    (``"density"``, as the paper does), or to each tensor's former sum of magnitudes (``"l1"``, as mergekit does).
    """

    density: float = 0.5
    weights: Weights = (1.0, 1.0)
    seed: int = 0
    normalize: bool = True
    lambda_: float = 1.0
    rescale: Literal["density", "l1"] = "density"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _sources(self.weights))
        check_density(self.density)
        check_lambda(self.lambda_)
        if type(self.seed) is not int:
            raise LayerswapError(f"seed is {self.seed!r}: expected a whole number")
        if self.rescale not in ("density", "l1"):
            raise LayerswapError(f"unknown rescale {self.rescale!r}: expected 'density' or 'l1'")

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"DARE-TIES, density {self.density:g}, seed {self.seed}"

    def _mix(self) -> Mix:
        drawn = (("seed", self.seed), ("rescale", self.rescale))
        return _task_vectors("dare_ties", self.weights, self.lambda_, *drawn, *_sparse(self.density, self.normalize))


@dataclass(frozen=True)
class TaskArithmetic(_Everywhere):
    """Task arithmetic (arXiv 2212.04089): base + lambda · Σ weight · (expert − base)."""

    weights: Weights = (1.0, 1.0)
    lambda_: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _sources(self.weights))
        check_lambda(self.lambda_)

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"task arithmetic {_ratio(self.weights)}" + (f", lambda {self.lambda_:g}" if self.lambda_ != 1 else "")

    def _mix(self) -> Mix:
        return _task_vectors("task_arithmetic", self.weights, self.lambda_)


@dataclass(frozen=True)
class Slerp(_Everywhere):
    """Spherical interpolation (Shoemake 1985) from math (t = 0) to language (t = 1), tensor by tensor."""

    t: float = 0.5
    math: str = MATH
    language: str = LANGUAGE

    def __post_init__(self) -> None:
        if not 0 <= self.t <= 1:  # NaN too
            raise LayerswapError(f"slerp's t is {self.t}: expected a number from 0 (math) to 1 (language)")

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"SLERP, t {self.t:g}"

    def _mix(self) -> Mix:
        if self.t in (0, 1) or self.math == self.language:
            return copy(self.language if self.t == 1 else self.math)
        return Mix("slerp", ((self.math, 1.0), (self.language, 1.0)), (("t", float(self.t)),))


def _task_vectors(operation: Operation, weights: Weights, lambda_: float, *parameters: tuple[str, Parameter]) -> Mix:
    return Mix(operation, _sources(weights), (("base", BASE), ("lambda", float(lambda_)), *parameters))


def _sparse(density: float, normalize: bool) -> tuple[tuple[str, Parameter], ...]:
    return (("density", float(density)), ("normalize", bool(normalize)))


def _sources(weights: Weights) -> tuple[tuple[str, float], ...]:
    """``(expert, weight)`` pairs of a mapping by name, of a pair (math, language), or of such pairs."""
    items: tuple[object, ...] = tuple(weights.items()) if isinstance(weights, Mapping) else tuple(weights)
    if len(items) == 2 and all(isinstance(item, int | float) for item in items):
        items = tuple(zip((MATH, LANGUAGE), items, strict=True))
    pairs = [item for item in items if isinstance(item, tuple) and len(item) == 2]
    if len(pairs) < len(items):
        raise LayerswapError(f"weights are {weights!r}: expected a pair (math, language) or a mapping by expert")
    found = tuple((str(name), float(weight)) for name, weight in pairs)
    Mix("linear", found)  # checks them; its own sources would give a single one the weight 1
    return found


def _ratio(weights: Weights) -> str:
    sources = _sources(weights)
    numbers = "/".join(f"{weight:g}" for _, weight in sources)
    names = [name for name, _ in sources]
    return numbers if names == [MATH, LANGUAGE] else f"{numbers} of {'/'.join(names)}"
