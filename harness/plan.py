"""Slots, mixes and plans: what to merge, before any weight is in memory.

A *plan* gives one *mix* for every *slot* of a decoder with ``L`` layers. Plans are plain data: they can be
printed, drawn, compared and hashed without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.errors import LayerswapError

Operation = Literal["linear", "ties", "dare_ties", "task_arithmetic", "slerp"]
Parameter = bool | int | float | str

OUTER_SLOTS = ("embed", "norm", "head")
DEEPEST = 10_000  # layers: no model has as many, and a plan of a mistaken billion would fill the memory
OPERATIONS: tuple[Operation, ...] = ("linear", "ties", "dare_ties", "task_arithmetic", "slerp")


_NAME = re.compile(r"[\w.@+/-]+")  # nothing that the canonical text uses as punctuation


def layer_slot(index: int) -> str:
    """The slot of decoder layer ``index``, counted from 0 at the bottom."""
    return f"layers.{index}"


def slot_names(layers: int) -> tuple[str, ...]:
    """Every slot of an ``layers``-layer decoder, in the order activations pass them."""
    return ("embed", *(layer_slot(i) for i in range(layers)), "norm", "head")


@dataclass(frozen=True)
class Mix:
    """How one slot is filled: an operation over named experts.

    ``sources`` are ``(expert, weight)`` in the order of accumulation. A linear mix of one source is a *copy*:
    the slot is that expert's, bit for bit. ``parameters`` are the operation's own (``density``, ``lambda``,
    ``seed``, ...), sorted by name; operations on task vectors name their base there.
    """

    operation: Operation
    sources: tuple[tuple[str, float], ...]
    parameters: tuple[tuple[str, Parameter], ...] = ()

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise LayerswapError(f"unknown merge operation {self.operation!r}: expected one of {', '.join(OPERATIONS)}")
        if not self.sources:
            raise LayerswapError(f"a {self.operation} mix needs at least one expert")
        for expert, weight in self.sources:
            if not isinstance(expert, str) or not _NAME.fullmatch(expert):
                raise LayerswapError(f"{expert!r} is no name for an expert: use letters, digits and any of . _ - / @ +")
            if not math.isfinite(weight) or weight < 0:
                raise LayerswapError(f"the weight of {expert!r} is {weight}: expected a number of 0 or more")
        if sum(weight for _, weight in self.sources) == 0:
            raise LayerswapError(
                f"the weights of {' and '.join(e for e, _ in self.sources)} sum to zero: give one a weight above 0"
            )
        # Equal mixes must have equal texts: 1, 1.0 and numpy's 1.0 are the same weight, and a copy has none.
        sources = tuple((expert, 1.0 if self.is_copy else float(weight)) for expert, weight in self.sources)
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "parameters", tuple(sorted(self.parameters)))

    @property
    def is_copy(self) -> bool:
        """True if the slot is one expert's own weights, unchanged."""
        return self.operation == "linear" and len(self.sources) == 1

    @property
    def experts(self) -> tuple[str, ...]:
        """Every checkpoint that this mix reads, without repeats; a task-vector operation's base comes last."""
        base = self.parameter("base")
        names = [expert for expert, _ in self.sources]
        return tuple(dict.fromkeys([*names, *([str(base)] if base is not None else [])]))

    def parameter(self, name: str) -> Parameter | None:
        """The operation's parameter ``name``, or None if it has none."""
        return dict(self.parameters).get(name)

    def renamed(self, names: Mapping[str, str]) -> Mix:
        """The same of other experts: those that ``names`` maps."""
        if not set(names) & set(self.experts):
            return self
        sources = tuple((names.get(expert, expert), weight) for expert, weight in self.sources)
        base = self.parameter("base")
        parameters = dict(self.parameters) | ({} if base is None else {"base": names.get(str(base), base)})
        return Mix(self.operation, sources, tuple(parameters.items()))

    @property
    def text(self) -> str:
        """Canonical, readable and unambiguous: equal texts mean equal mixes."""
        if self.is_copy:
            return self.sources[0][0]
        weights = ", ".join(f"{expert}={weight!r}" for expert, weight in self.sources)
        parameters = "".join(f", {name}={json.dumps(value)}" for name, value in self.parameters)
        return f"{self.operation}({weights}{parameters})"


def copy(expert: str) -> Mix:
    """The slot is ``expert``'s own."""
    return Mix("linear", ((expert, 1.0),))


def linear(sources: Iterable[tuple[str, float]]) -> Mix:
    """The weighted average of several experts; sources of weight 0 and repeats of one expert fall away.

    Folding makes equal results equal mixes: an average of an expert with itself is a copy of it.
    """
    sources = tuple(sources)
    Mix("linear", sources)  # checks the weights as they were asked for
    folded: dict[str, float] = {}
    for expert, weight in sources:
        folded[expert] = folded.get(expert, 0.0) + float(weight)
    kept = [(expert, weight) for expert, weight in folded.items() if weight > 0]
    return copy(kept[0][0]) if len(kept) == 1 else Mix("linear", tuple(kept))


@dataclass(frozen=True)
class Plan:
    """One mix for every slot of an L-layer decoder."""

    mixes: tuple[tuple[str, Mix], ...]

    @classmethod
    def of(cls, layers: int, mixes: Mapping[str, Mix]) -> Plan:
        """The plan with ``mixes``; raises :class:`LayerswapError` if a slot is missing or unknown."""
        expected = slot_names(layers)
        if missing := [slot for slot in expected if slot not in mixes]:
            raise LayerswapError(f"the plan leaves slots unfilled: {', '.join(missing)}")
        if unknown := sorted(set(mixes) - set(expected)):
            raise LayerswapError(f"a {layers}-layer model has no slot {', '.join(unknown)}")
        return cls(tuple((slot, mixes[slot]) for slot in expected))

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.mixes) - len(OUTER_SLOTS)

    def __getitem__(self, slot: str) -> Mix:
        return dict(self.mixes)[slot]

    @property
    def experts(self) -> tuple[str, ...]:
        """Every checkpoint that the plan reads, in order of first use."""
        return tuple(dict.fromkeys(expert for _, mix in self.mixes for expert in mix.experts))

    def renamed(self, names: Mapping[str, str]) -> Plan:
        """The same plan of other experts: those that ``names`` maps."""
        return Plan(tuple((slot, mix.renamed(names)) for slot, mix in self.mixes))

    @property
    def text(self) -> str:
        """Canonical text: a line a slot."""
        return "\n".join(f"{slot}: {mix.text}" for slot, mix in self.mixes)

    @property
    def runs(self) -> tuple[tuple[str, Mix], ...]:
        """The plan in few lines: neighbouring layers of one mix as ``layers.0-4``, norm and head as ``norm, head``."""
        groups: list[tuple[list[str], Mix]] = []
        for slot, mix in self.mixes:
            if groups and groups[-1][1] == mix and slot not in ("layers.0", "norm"):
                groups[-1][0].append(slot)
            else:
                groups.append(([slot], mix))
        return tuple((_span(slots), mix) for slots, mix in groups)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical text (hex). Names, not weights: see ``identity.identity`` for those."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def drawing(self) -> str:
        """One character a slot: ``embed | layers | norm head``, as in ``T|LLTMMMMMTL|TT``.

        ``L`` language, ``M`` math, ``B`` base, ``T`` a weighted average (a transition), ``*`` any other
        operation; further experts are drawn by the first letter of their role, in lower case.
        """
        marks = [_mark(mix) for _, mix in self.mixes]
        return f"{marks[0]}|{''.join(marks[1:-2])}|{''.join(marks[-2:])}"


def _span(slots: list[str]) -> str:
    if len(slots) > 1 and slots[0].startswith("layers."):
        return f"{slots[0]}-{slots[-1].partition('.')[2]}"
    return ", ".join(slots)


def _mark(mix: Mix) -> str:
    if not mix.is_copy:
        return "T" if mix.operation == "linear" else "*"
    name = mix.sources[0][0]
    return name[0].upper() if name in ("language", "math", "base") else name[0].lower()
