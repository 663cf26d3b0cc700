"""The recipe that says slot by slot what it is made of: for plans that no other recipe writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import LayerswapError, one_line
from harness.files import shortened
from harness.plan import DEEPEST, OUTER_SLOTS, Mix, Plan, copy, layer_slot, linear
from harness.recipes.common import BASE, PAPER, SwapSizes, listed
from harness.recipes.methods import DareTies, Slerp, TaskArithmetic, Ties

_LAYERS = re.compile(r"layers\.(\d+)(?:-(\d+))?")


@dataclass(frozen=True, repr=False)
class Slots:
    """Every slot by name, for a model of one depth: ``Slots({"embed, norm, head": "base", "layers.0-11": "math"})``.

    Keys are slots, ranges of layers, or several of either with commas. Values are an expert's name (a copy), weights by
    expert (``{"math": 0.5, "language": 0.5}``: their average), or ``{"operation": "ties", "sources": {…}}`` with the
    operation's parameters beside them.
    """

    mixes: Mapping[str, Any]

    def __post_init__(self) -> None:
        found: dict[str, Mix] = {}
        if not isinstance(self.mixes, Mapping) or not all(isinstance(key, str) for key in self.mixes):
            raise LayerswapError(f"slots are {shortened(self.mixes)}: expected what fills each, by its name")
        for key, value in self.mixes.items():
            mix = value if isinstance(value, Mix) else _mix(key, value)
            for slot in _named(key):
                if slot in found:
                    raise LayerswapError(f"slot {slot} is filled twice, the second time by {key!r}")
                found[slot] = mix
        if not any(slot.startswith("layers.") for slot in found):
            raise LayerswapError("these slots have no layers: name them, such as 'layers.0-11'")
        object.__setattr__(self, "mixes", _Frozen(Plan.of(_depth(found), found).mixes))

    @property
    def title(self) -> str:
        """Short text for people."""
        return f"slots {self._plan.drawing}"

    def plan(self, layers: int, defaults: SwapSizes = PAPER) -> Plan:
        """The plan; raises if the model has another depth."""
        if layers != self._plan.layers:
            raise LayerswapError(f"these slots are of a model of {self._plan.layers} layers, but this one has {layers}")
        return self._plan

    @property
    def _plan(self) -> Plan:
        return Plan(tuple(self.mixes.items()))

    def __repr__(self) -> str:
        return f"Slots({ {span: _literal(mix) for span, mix in self._plan.runs}!r})"


class _Frozen(dict[str, Mix]):
    """A mapping with a hash: recipes are values."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _named(key: str) -> Iterator[str]:
    for part in (part.strip() for part in key.split(",")):
        if part in OUTER_SLOTS:
            yield part
        elif match := _LAYERS.fullmatch(part):
            first, last = int(match[1]), int(match[2] or match[1])
            if last >= DEEPEST:
                raise LayerswapError(f"slot {part!r}: no model has {last} layers")
            if last < first:
                raise LayerswapError(f"slot {part!r} ends before it begins")
            yield from (layer_slot(i) for i in range(first, last + 1))
        else:
            raise LayerswapError(f"unknown slot {part!r}: expected {listed(OUTER_SLOTS)}, 'layers.0' or 'layers.0-4'")


def _depth(found: Mapping[str, Mix]) -> int:
    return 1 + max(int(slot.partition(".")[2]) for slot in found if slot not in OUTER_SLOTS)


def _mix(key: str, value: Any) -> Mix:
    if isinstance(value, str):
        return copy(value)
    if not isinstance(value, Mapping):
        raise LayerswapError(f"slot {key!r} is {value!r}: expected an expert, weights by expert, or an operation")
    if "operation" not in value:
        return linear([(str(name), _weight(name, weight)) for name, weight in value.items()])
    rest = {name: item for name, item in value.items() if name not in ("operation", "sources")}
    sources = value.get("sources")
    if not isinstance(sources, Mapping):
        raise LayerswapError(f"slot {key!r}: {value['operation']} has no sources: expected weights by expert")
    pairs = tuple((str(name), _weight(name, weight)) for name, weight in sources.items())
    try:
        return _operation(value["operation"], pairs, rest)
    except (LayerswapError, TypeError, ValueError) as error:
        raise LayerswapError(f"slot {key!r}: {shortened(value['operation'])}: {one_line(error)}") from None


def _operation(operation: Any, pairs: tuple[tuple[str, float], ...], given: Mapping[str, Any]) -> Mix:
    """The mix of a recipe of that operation, so that its checks and defaults hold here too."""
    kinds: dict[str, type[Ties | DareTies | TaskArithmetic]] = {
        "ties": Ties,
        "dare_ties": DareTies,
        "task_arithmetic": TaskArithmetic,
    }
    if operation == "slerp":
        if len(pairs) != 2:
            raise LayerswapError(f"has {len(pairs)} sources: expected two")
        return Slerp(**given, math=pairs[0][0], language=pairs[1][0])._mix()
    if operation not in kinds:
        return Mix(operation, pairs, tuple(given.items()))  # which knows what it may be
    named = {"lambda_" if name == "lambda" else name: value for name, value in given.items() if name != "base"}
    mix = kinds[operation](weights=pairs, **named)._mix()
    base = given.get("base", BASE)
    copy(base)  # is it a name?
    return replace(mix, parameters=tuple((name, base if name == "base" else v) for name, v in mix.parameters))


def _weight(name: object, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise LayerswapError(f"the weight of {name!r} is {weight!r}: expected a number of 0 or more")
    return float(weight)


def _literal(mix: Mix) -> Any:
    if mix.is_copy:
        return mix.sources[0][0]
    if mix.operation == "linear":
        return dict(mix.sources)
    return {"operation": mix.operation, "sources": dict(mix.sources), **dict(mix.parameters)}
