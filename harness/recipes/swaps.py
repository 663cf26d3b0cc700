"""Recipes whose layers are one expert's, or an average: layer swapping, its other placements, and partial reverts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import LayerswapError
from harness.plan import Plan, copy, layer_slot, linear, slot_names
from harness.recipes.common import (
    BASE,
    LANGUAGE,
    MATH,
    PAPER,
    Outer,
    PlacementKind,
    Role,
    Size,
    SwapSizes,
    check_depth,
    check_outer,
    check_size,
    check_weights,
    everywhere,
    in_layers,
    listed,
    stacked,
)


@dataclass(frozen=True)
class LayerSwap:
    """Layer swapping (arXiv 2410.01335): language at the bottom and the top, math in the middle.

    Sizes: None = the profile's; an int = layers; a float in [0, 1] = that share of the depth (1.0 = all of it).
    ``transition`` is a width for both zones, a pair (above the bottom block, below the top block), or ``"math"`` /
    ``"language"``: zones of the default width filled by that role alone. A side without language layers has no
    transition unless a pair asks for it (the profile's pair, where the side's size is the profile's too), and a block
    that takes the whole depth leaves none for other parts.
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
            check_size(name, size)
        if self.weights is not None:
            check_weights(self.weights)
        if self.outer is not None:
            check_outer(self.outer)

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
        bottom, below, above, top = self._sizes(layers, defaults.scaled(check_depth(layers)))
        weights = self.weights or defaults.weights
        average = linear([(self.math, weights[0]), (self.language, weights[1])])
        roles = {"average": average, MATH: copy(self.math), LANGUAGE: copy(self.language), BASE: copy(BASE)}
        zone = roles[self.transition] if isinstance(self.transition, str) else average
        middle = layers - bottom - below - above - top
        stack = [roles[LANGUAGE]] * bottom + [zone] * below + [roles[MATH]] * middle + [zone] * above
        return stacked(stack + [roles[LANGUAGE]] * top, roles[self.outer or defaults.outer])

    def _sizes(self, layers: int, defaults: SwapSizes) -> tuple[int, int, int, int]:
        """Layers of bottom block, transition above it, transition below the top block, top block."""
        bottom, top = (None if size is None else in_layers(size, layers) for size in (self.bottom, self.top))
        whole = layers in (bottom, top)
        # The profile may have a zone beside a block of no layers: it stays until a recipe gives that block a size.
        kept = [
            size is None and not whole and width > 0
            for size, width in zip((bottom, top), defaults.transition, strict=True)
        ]
        bottom = (0 if whole else defaults.bottom) if bottom is None else bottom
        top = (0 if whole else defaults.top) if top is None else top
        if isinstance(self.transition, tuple):
            below, above = (in_layers(width, layers) for width in self.transition)
        else:
            default = isinstance(self.transition, str) or self.transition is None
            widths = defaults.transition if default else (in_layers(self.transition, layers),) * 2  # type: ignore[arg-type]
            if whole and default:
                widths = (0, 0)
            stands = (bool(block) or zone for block, zone in zip((bottom, top), kept, strict=True))
            below, above = (width if there else 0 for width, there in zip(widths, stands, strict=True))
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
            raise LayerswapError(f"unknown placement {self.kind!r}: expected {listed(get_args(PlacementKind))}")
        if self.outer is not None:
            check_outer(self.outer)

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
        return stacked(stack, default["embed"])

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
        return everywhere(layers, copy(self.name))


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
            raise LayerswapError(f"a {layers}-layer model has no slot {listed(sorted(unknown))}")
        return Plan.of(layers, {s: copy(BASE if s in reset else self.expert) for s in slot_names(layers)})
