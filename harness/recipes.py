"""Recipes: what a person writes. Each gives a plan for a model of any depth; no weight and no torch is needed.

Roles and names: a recipe speaks of the *math* and the *language* expert. Those are also the default names of the
checkpoints that fill the roles; ``LayerSwap(math="math-long")`` puts another checkpoint into a role. The base model
is always called ``base``.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

from harness.errors import LayerswapError
from harness.plan import OUTER_SLOTS, Mix, Operation, Parameter, Plan, copy, layer_slot, linear, slot_names

BASE, MATH, LANGUAGE = "base", "math", "language"

Outer = Literal["average", "language", "math", "base"]
Role = Literal["math", "language"]
Size = int | float
Weights = Mapping[str, float] | tuple[float, float] | tuple[tuple[str, float], ...]
PlacementKind = Literal["middle", "every-other", "ends", "random", "exchanged"]


def _layers(size: Size, layers: int) -> int:
    return math.floor(size * layers + 0.5) if isinstance(size, float) else size


def _check_size(name: str, size: object) -> None:
    whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    if size is not None and not whole and not (isinstance(size, float) and 0 <= size <= 1):
        raise LayerswapError(f"{name} is {size!r}: expected a whole number of layers, or a share from 0.0 to 1.0")


def _check_depth(layers: int) -> int:
    if layers < 1:
        raise LayerswapError(f"a model of {layers} layers cannot be merged: expected at least 1")
    return layers


def _check_weights(weights: tuple[float, float]) -> None:
    if len(weights) != 2:
        raise LayerswapError(f"weights has {len(weights)} numbers: expected a pair (math, language)")
    linear(zip((MATH, LANGUAGE), weights, strict=True))


def _check_outer(outer: str) -> None:
    if outer not in get_args(Outer):
        raise LayerswapError(f"unknown outer {outer!r}: expected {_listed(get_args(Outer))}")


def _check_density(density: float) -> None:
    if not 0 < density <= 1:  # NaN too
        raise LayerswapError(f"density is {density}: expected a share above 0 and up to 1")


def _check_lambda(lambda_: float) -> None:
    if not math.isfinite(lambda_):
        raise LayerswapError(f"lambda is {lambda_}: expected a finite number")


def _listed(names: Iterable[str]) -> str:
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
        _check_weights(self.weights)
        _check_outer(self.outer)

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


@dataclass(frozen=True)
class LayerSwap:
    """Layer swapping (arXiv 2410.01335): language at the bottom and the top, math in the middle.

    Sizes: None = the profile's; an int = layers; a float in [0, 1] = that share of the depth (1.0 = all of it).
    ``transition`` is a width for both zones, a pair (above the bottom block, below the top block), or ``"math"`` /
    ``"language"``: zones of the default width filled by that role alone. A side without language layers has no
    transition unless a pair asks for it, and a block that takes the whole depth leaves none for other parts.
    ``weights`` are (math, language) of averaged slots; ``math`` and ``language`` name who fills the roles.
    """

    bottom: Size | None = None
    top: Size | None = None
    transition: Size | tuple[Size, Size] | Role | None = None
    weights: tuple[float, float] | None = None
    outer: Outer | None = None
    math: str = MATH
    language: str = LANGUAGE

    def __post_init__(self) -> None:
        widths: tuple[object, ...] = self.transition if isinstance(self.transition, tuple) else (self.transition,)
        if isinstance(self.transition, tuple) and len(self.transition) != 2:
            raise LayerswapError(f"transition has {len(widths)} widths: expected one, or a pair (bottom, top)")
        if isinstance(self.transition, str):
            if self.transition not in get_args(Role):
                raise LayerswapError(f"unknown transition {self.transition!r}: expected a width, 'math' or 'language'")
            widths = ()
        for name, size in (("bottom", self.bottom), ("top", self.top), *(("transition", width) for width in widths)):
            _check_size(name, size)
        if self.weights is not None:
            _check_weights(self.weights)
        if self.outer is not None:
            _check_outer(self.outer)

    @property
    def title(self) -> str:
        """Short text for people: only what differs from the default."""
        parts = [f"{name} {size}" for name, size in (("bottom", self.bottom), ("top", self.top)) if size is not None]
        if isinstance(self.transition, tuple):
            parts.append(f"transitions {self.transition[0]} and {self.transition[1]}")
        elif isinstance(self.transition, str):
            parts.append(f"{self.transition} instead of the transition")
        elif self.transition is not None:
            parts.append(f"transition {self.transition}" if self.transition else "no transition")
        if self.weights is not None:
            parts.append(f"weights {self.weights[0]:g}/{self.weights[1]:g}")
        if self.outer is not None:
            parts.append(f"outer slots {self.outer}")
        parts += [f"{name} as {role}" for role, name in ((MATH, self.math), (LANGUAGE, self.language)) if name != role]
        return ", ".join(["layer swap", *parts])

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers; raises if the four parts need more layers than there are."""
        bottom, below, above, top = self._sizes(layers, defaults.scaled(_check_depth(layers)))
        weights = self.weights or defaults.weights
        average = linear([(self.math, weights[0]), (self.language, weights[1])])
        roles = {"average": average, MATH: copy(self.math), LANGUAGE: copy(self.language), BASE: copy(BASE)}
        zone = roles[self.transition] if isinstance(self.transition, str) else average
        middle = layers - bottom - below - above - top
        stack = [roles[LANGUAGE]] * bottom + [zone] * below + [roles[MATH]] * middle + [zone] * above
        return _stacked(stack + [roles[LANGUAGE]] * top, roles[self.outer or defaults.outer])

    def _sizes(self, layers: int, defaults: SwapSizes) -> tuple[int, int, int, int]:
        """Layers of bottom block, transition above it, transition below the top block, top block."""
        bottom, top = (None if size is None else _layers(size, layers) for size in (self.bottom, self.top))
        whole = layers in (bottom, top)
        bottom = (0 if whole else defaults.bottom) if bottom is None else bottom
        top = (0 if whole else defaults.top) if top is None else top
        if isinstance(self.transition, tuple):
            below, above = (_layers(width, layers) for width in self.transition)
        else:
            default = isinstance(self.transition, str) or self.transition is None
            widths = defaults.transition if default else (_layers(self.transition, layers),) * 2  # type: ignore[arg-type]
            if whole and default:
                widths = (0, 0)
            below, above = (width if block else 0 for width, block in zip(widths, (bottom, top), strict=True))
        if bottom + below + above + top > layers:
            raise LayerswapError(
                f"bottom {bottom} + transition {below} + transition {above} + top {top} = "
                f"{bottom + below + above + top} layers, but the model has {layers}: make one of them smaller"
            )
        return bottom, below, above, top


@dataclass(frozen=True)
class Placement:
    """The language layers somewhere else than the method puts them; math everywhere else, no transition.

    With b bottom and u top layers in the default swap:

    * ``middle``: b + u language layers in a row, centred in the depth;
    * ``every-other``: the same blocks with a math layer after each language layer (0, 2, … and L-1, L-3, …);
    * ``ends``: of each block *with its transition zone* only the outermost and the innermost layer (up to 4 layers in
      all; counting the zone in keeps this different from the default in shallow models, whose blocks have 2 layers);
    * ``random``: b + u layers drawn by ``seed``, the same ones on every machine;
    * ``exchanged``: math at the bottom and the top, language in the middle, with the default's transitions.

    Outer slots stay as in the default swap.
    """

    kind: PlacementKind
    seed: int = 0
    outer: Outer | None = None
    math: str = MATH
    language: str = LANGUAGE

    def __post_init__(self) -> None:
        if self.kind not in get_args(PlacementKind):
            raise LayerswapError(f"unknown placement {self.kind!r}: expected {_listed(get_args(PlacementKind))}")
        if self.outer is not None:
            _check_outer(self.outer)

    @property
    def title(self) -> str:
        """Short text for people."""
        return {
            "middle": "language layers in the middle only",
            "every-other": "every other layer of a block",
            "ends": "only the ends of each block",
            "random": f"random layers, seed {self.seed}",
            "exchanged": "roles exchanged",
        }[self.kind]

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers; raises if the default swap or the wider placement does not fit."""
        swap = LayerSwap(outer=self.outer, math=self.math, language=self.language)
        default = swap.plan(layers, defaults)
        math_layer, language_layer = copy(self.math), copy(self.language)
        if self.kind == "exchanged":
            other = {math_layer: language_layer, language_layer: math_layer}
            stack = [other.get(mix, mix) for mix in (default[layer_slot(i)] for i in range(layers))]
        else:
            chosen = self._chosen(layers, *swap._sizes(layers, defaults.scaled(layers)))
            stack = [language_layer if i in chosen else math_layer for i in range(layers)]
        return _stacked(stack, default["embed"])

    def _chosen(self, layers: int, bottom: int, below: int, above: int, top: int) -> set[int]:
        count = bottom + top
        if self.kind == "middle":
            return set(range((layers - count) // 2, (layers - count) // 2 + count))
        if self.kind == "random":
            return set(
                sorted(range(layers), key=lambda i: hashlib.sha256(f"{self.seed}:{i}".encode()).digest())[:count]
            )
        if self.kind == "every-other":
            if 2 * count > layers:
                raise LayerswapError(
                    f"every other layer: {count} language layers need {2 * count}, the model has {layers}"
                )
            return {*range(0, 2 * bottom, 2), *range(layers - 1, layers - 1 - 2 * top, -2)}
        blocks = [range(bottom + below), range(layers - above - top, layers)]
        return {layer for block in blocks if block for layer in (block[0], block[-1])}


@dataclass(frozen=True)
class OneSide:
    """The default swap with only its bottom or only its top block (and that block's transition zone)."""

    side: Literal["bottom", "top"]

    def __post_init__(self) -> None:
        if self.side not in ("bottom", "top"):
            raise LayerswapError(f"unknown side {self.side!r}: expected 'bottom' or 'top'")

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"{self.side} only"

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers."""
        return (LayerSwap(top=0) if self.side == "bottom" else LayerSwap(bottom=0)).plan(layers, defaults)


@dataclass(frozen=True)
class Expert:
    """One checkpoint alone, unchanged."""

    name: str

    @property
    def title(self) -> str:
        """Short text for people."""
        return self.name if self.name == BASE else f"{self.name} expert"

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers."""
        return _everywhere(layers, copy(self.name))


@dataclass(frozen=True)
class Revert:
    """An expert with chosen slots reset to the base: what do these slots of it contribute?

    ``slots``: ``"outer-blocks"`` = the slots that the default swap fills from language alone (what it discards of
    math), ``"middle"`` = those that it fills from math alone (what it discards of language), or slot names.
    """

    expert: str = MATH
    slots: Literal["outer-blocks", "middle"] | tuple[str, ...] = "outer-blocks"

    def __post_init__(self) -> None:
        if isinstance(self.slots, str) and self.slots not in ("outer-blocks", "middle"):
            raise LayerswapError(f"unknown part {self.slots!r}: expected 'outer-blocks', 'middle' or a tuple of slots")

    @property
    def title(self) -> str:
        """Short text for people."""
        part = self.slots.replace("-", " ") if isinstance(self.slots, str) else ", ".join(self.slots)
        return f"{self.expert} with {part} reset to base"

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers; raises if a named slot does not exist at this depth."""
        if isinstance(self.slots, str):
            role = copy(LANGUAGE if self.slots == "outer-blocks" else MATH)
            reset = {slot for slot, mix in LayerSwap().plan(layers, defaults).mixes if mix == role}
        else:
            reset = set(self.slots)
        if unknown := reset - set(slot_names(layers)):
            raise LayerswapError(f"a {layers}-layer model has no slot {_listed(sorted(unknown))}")
        return Plan.of(layers, {s: copy(BASE if s in reset else self.expert) for s in slot_names(layers)})


class _Everywhere:
    """A merging method that fills every slot by the same operation."""

    def _mix(self) -> Mix:
        raise NotImplementedError

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan for ``layers`` layers."""
        return _everywhere(layers, self._mix())


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
        _check_density(self.density)
        _check_lambda(self.lambda_)
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
        _check_density(self.density)
        _check_lambda(self.lambda_)
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
        _check_lambda(self.lambda_)

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


def check_experts(plan: Plan, known_names: Iterable[str]) -> None:
    """Raises :class:`LayerswapError` for the first expert of ``plan`` that is unknown, naming the nearest known one."""
    known = list(known_names)
    for name in plan.experts:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {_listed(known)}"
            raise LayerswapError(f"unknown expert {name!r}: {hint}")


def _stacked(stack: list[Mix], outer: Mix) -> Plan:
    mixes = {layer_slot(i): mix for i, mix in enumerate(stack)} | dict.fromkeys(OUTER_SLOTS, outer)
    return Plan.of(len(stack), mixes)


def _everywhere(layers: int, mix: Mix) -> Plan:
    return _stacked([mix] * _check_depth(layers), mix)


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
    return Mix("linear", tuple((str(name), float(weight)) for name, weight in pairs)).sources


def _ratio(weights: Weights) -> str:
    sources = _sources(weights)
    numbers = "/".join(f"{weight:g}" for _, weight in sources)
    names = [name for name, _ in sources]
    return numbers if names == [MATH, LANGUAGE] else f"{numbers} of {'/'.join(names)}"
