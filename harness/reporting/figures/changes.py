"""How far the experts moved from the base: heat maps of kinds of module over layers, a panel an expert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.plan import OUTER_SLOTS
from harness.reporting.figures.canvas import (
    LARGE,
    NORMAL,
    SMALL,
    WIDTH,
    cells,
    colour_of,
    scale_bar,
    sheet,
    svg,
    width_of,
    write,
)
from harness.reporting.results import ParameterChange, RunResult

MOST = 6
_SCALE = "cividis"
_ROW, _TOP, _BOTTOM, _ACROSS = 15.0, 40.0, 38.0, 3
_NAME = 240.0
_FIRST = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def experts(run: RunResult) -> tuple[str, ...]:
    """The experts that are shown: math and language first, then the others as the run has them, six at most."""
    found = dict.fromkeys(change.expert for change in run.changes)
    first = [name for name in ("math", "language") if name in found]
    return tuple(dict.fromkeys([*first, *found]))[:MOST]


def layer_means(changes: Sequence[ParameterChange]) -> dict[int, float]:
    """The mean absolute change of every layer, over all its parameters."""
    sums: dict[int, list[float]] = {}
    for change in changes:
        if change.slot.startswith("layers."):
            total = sums.setdefault(_layer(change), [0.0, 0.0])
            total[0] += change.mean_absolute * change.parameters
            total[1] += change.parameters
    return {layer: total / count for layer, (total, count) in sorted(sums.items()) if count}


def most_changed(changes: Sequence[ParameterChange], count: int = 3) -> tuple[int, ...]:
    """The layers of the largest mean absolute change, the largest first; none if nothing moved."""
    means = layer_means(changes)
    return tuple(sorted((layer for layer in means if means[layer] > 0), key=lambda layer: -means[layer])[:count])


def change_map(run: RunResult) -> str:
    """The maps as SVG: mean absolute and relative change of every shown expert, each on one scale for all."""
    shown = {name: [change for change in run.changes if change.expert == name] for name in experts(run)}
    kinds = _kinds(run.changes)
    layers = 1 + max((_layer(c) for c in run.changes if c.slot not in OUTER_SLOTS), default=-1)
    names = min(_NAME, max((width_of(label, SMALL) for label in kinds.values()), default=0.0)) + 10
    pitch = (WIDTH - names) / min(_ACROSS, len(shown))
    cell = min(30.0, (pitch - 22) / max(layers, 1))
    cell = float(int(cell)) if cell > 8 else cell  # whole pixels: even gaps
    block = _TOP + len(kinds) * _ROW + _BOTTOM
    part = 34 + -(-len(shown) // _ACROSS) * block

    def paint(figure: Any) -> None:
        page = sheet(figure)
        maps: tuple[tuple[str, str, Callable[[ParameterChange], float | None]], ...] = (
            ("Mean absolute change", "mean |expert − base|", lambda change: change.mean_absolute),
            ("Relative change", "‖expert − base‖ / ‖base‖", lambda change: change.relative),
        )
        for i, (title, unit, measure) in enumerate(maps):
            values = {name: _values(changes, measure) for name, changes in shown.items()}
            inner = [v for own in values.values() for (slot, _), v in own.items() if slot not in OUTER_SLOTS and v > 0]
            ends = (max(min(inner), max(inner) / 10), max(inner)) if inner else (1.0, 1.0)
            y = i * part + 12
            write(page, 0, y, title, LARGE, weight="bold")
            x = width_of(title, LARGE, bold=True) + 24
            below = "≤ " if inner and min(inner) < ends[0] else ""
            labels = (f"{below}{ends[0]:.2g}", f"{ends[1]:.2g}", f"{unit} in the layers, log scale:")
            if inner:
                scale_bar(page, x, y, _SCALE, *labels)
            write(page, WIDTH, y, "–  did not move", SMALL, ha="right")
            for j, (name, own) in enumerate(values.items()):
                left, top = names + (j % _ACROSS) * pitch, y + 22 + (j // _ACROSS) * block + _TOP
                write(page, left, top - 28, name, NORMAL, pitch - 8, weight="bold")
                write(page, left, top - 13, _summary(shown[name], own, kinds, absolute=i == 0), SMALL, pitch - 8)
                _panel(page, left, top, cell, list(kinds), own, ends)
                if j % _ACROSS == 0:
                    for row, label in enumerate(kinds.values()):
                        write(page, names - 8, top + (row + 0.5) * _ROW, label, SMALL, names - 8, ha="right")

    return svg(2 * part, paint)


def _values(
    changes: Sequence[ParameterChange], measure: Callable[[ParameterChange], float | None]
) -> dict[tuple[str, str], float]:
    found = {(change.slot, change.kind): measure(change) for change in changes}
    return {key: value for key, value in found.items() if value is not None}


def _panel(
    page: Any,
    left: float,
    top: float,
    cell: float,
    kinds: Sequence[str],
    own: Mapping[tuple[str, str], float],
    ends: tuple[float, float],
) -> None:
    """One expert: a colour where it moved, a dash where not; outside of the layers the numbers themselves."""
    low, high = ends
    layers = sorted({int(slot.partition(".")[2]) for slot, _ in own if slot not in OUTER_SLOTS})
    places, colours = [], []
    for (slot, kind), value in own.items():
        if slot in OUTER_SLOTS:
            continue
        x, y = left + int(slot.partition(".")[2]) * cell, top + kinds.index(kind) * _ROW
        if value > 0:
            share = math.log(max(value, low) / low) / math.log(high / low) if high > low else 1.0
            places.append((x, y))
            colours.append(colour_of(share, _SCALE))
        else:
            write(page, x + cell / 2, y + _ROW / 2, "–", SMALL, ha="center")
    cells(page, places, colours, cell, _ROW)
    step = next(s for s in (1, 2, 5, 10, 20, 50) if s * cell >= 15)
    for layer in layers:
        if layer % step == 0:
            write(page, left + (layer + 0.5) * cell, top + len(kinds) * _ROW + 8, str(layer), SMALL, ha="center")
    outer = [f"{slot} {value:.2g}" for (slot, _), value in own.items() if slot in OUTER_SLOTS]
    write(page, left, top + len(kinds) * _ROW + 24, ", ".join(outer), SMALL)


def _summary(
    changes: Sequence[ParameterChange],
    own: Mapping[tuple[str, str], float],
    kinds: Mapping[str, str],
    absolute: bool,
) -> str:
    """Where the expert moved most: layers as a whole, or (norms of several kinds do not add up) one kind in a layer."""
    inside = {key: value for key, value in own.items() if key[0] not in OUTER_SLOTS and value > 0}
    if not inside:
        return "moved in no layer"
    if absolute:
        return f"most in layers {', '.join(str(layer) for layer in most_changed(changes))}"
    slot, kind = max(inside, key=lambda key: inside[key])
    return f"most in {kinds[kind]} of layer {slot.partition('.')[2]}"


def _layer(change: ParameterChange) -> int:
    return int(change.slot.partition(".")[2])


def _kinds(changes: Sequence[ParameterChange]) -> dict[str, str]:
    """The rows and their labels: attention, MLP, whatever else the layers have, norms."""
    found = dict.fromkeys(change.kind for change in changes if change.slot not in OUTER_SLOTS)

    def rank(kind: str) -> int:
        last = kind.rpartition(".")[2]
        if last in _FIRST:
            return _FIRST.index(last)
        return len(_FIRST) + ("norm" in last or last.startswith("ln"))

    return {kind: _label(kind) for kind in sorted(found, key=rank)}


def _label(kind: str) -> str:
    words = kind.removesuffix("_proj").replace("self_attn", "attention").replace("_layernorm", "_norm")
    return words.replace(".", " ").replace("_", " ").replace("mlp", "MLP")
