"""How far each expert moved from the base, slot by slot and by kind of module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.errors import LayerswapError
from harness.experts import LoadedExpert, canonical_names, layers_prefix, slots_of


@dataclass(frozen=True)
class Change:
    """The change of one expert in some of its tensors, kept as sums so that rows can be added up.

    ``slot`` or ``kind`` is ``"*"`` in totals. ``kind`` is the layer's own name of a module (``self_attn.q_proj``,
    ``mlp.gate_proj``, ``input_layernorm``), and the slot's name outside of the layers; modules that a layer numbers
    (the experts of a mixture) are one kind, with ``*`` for the number. Units are those of the weights.
    """

    expert: str
    slot: str
    kind: str
    parameters: int
    absolute_sum: float
    squared_sum: float
    base_squared_sum: float

    @property
    def mean_absolute(self) -> float:
        """Mean of |expert − base| over the parameters."""
        return self.absolute_sum / self.parameters if self.parameters else 0.0

    @property
    def relative(self) -> float:
        """‖expert − base‖ / ‖base‖ (Euclidean); infinite if only the base is zero."""
        if not self.squared_sum:
            return 0.0
        return math.sqrt(self.squared_sum / self.base_squared_sum) if self.base_squared_sum else math.inf


def changes(experts: Mapping[str, LoadedExpert], base: str = "base", device: str | None = None) -> tuple[Change, ...]:
    """A row for each expert but ``base``, each slot and each kind of module in it; tied tensors count once.

    Computed on ``device``; None: where the experts are.
    """
    if base not in experts:
        raise LayerswapError(f"the base {base!r} is not loaded: loaded are {', '.join(experts)}")
    model = experts[base].model
    start, canonical, prefix = model.state_dict(), canonical_names(model), layers_prefix(model)
    rows: list[Change] = []
    for name, expert in experts.items():
        if name == base:
            continue
        state = expert.model.state_dict()
        for slot, tensors in slots_of(model).items():
            for tensor in tensors:
                if canonical[tensor] == tensor and start[tensor].is_floating_point():
                    kind = _kind(tensor.removeprefix(prefix)) if tensor.startswith(prefix) else slot
                    before = start[tensor].to(device).float()
                    delta = state[tensor].to(device).float() - before
                    sums = (float(delta.abs().sum()), float(delta.square().sum()), float(before.square().sum()))
                    rows.append(Change(name, slot, kind, delta.numel(), *sums))
    return _added(rows, lambda row: (row.expert, row.slot, row.kind))


def totals(rows: Iterable[Change], by: Literal["slot", "kind"]) -> tuple[Change, ...]:
    """The same rows added up for each expert and slot, or for each expert and kind of module."""
    if by == "slot":
        return _added(rows, lambda row: (row.expert, row.slot, "*"))
    return _added(rows, lambda row: (row.expert, "*", row.kind))


def _kind(tensor: str) -> str:
    """``3.self_attn.q_proj.weight`` is a ``self_attn.q_proj``; a parameter of another name keeps it."""
    parts = tensor.split(".")[1:]
    kept = parts[:-1] if len(parts) > 1 and parts[-1] in ("weight", "bias") else parts
    return ".".join("*" if part.isdigit() else part for part in kept)


def _added(rows: Iterable[Change], key: Callable[[Change], tuple[str, str, str]]) -> tuple[Change, ...]:
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return tuple(
        Change(
            *names,
            sum(row.parameters for row in group),
            math.fsum(row.absolute_sum for row in group),
            math.fsum(row.squared_sum for row in group),
            math.fsum(row.base_squared_sum for row in group),
        )
        for names, group in groups.items()
    )
