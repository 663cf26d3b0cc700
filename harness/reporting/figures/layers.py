"""Layer maps: what every recipe puts into every slot, a row a case and a cell a slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.reporting.figures.canvas import (
    LARGE,
    NORMAL,
    OTHER_OWNER,
    OWNERS,
    ROW,
    SMALL,
    WIDTH,
    cells,
    ink,
    sheet,
    svg,
    width_of,
    write,
)
from harness.reporting.results import CaseResult, RunResult

_NAMES = {"L": "language expert", "M": "math expert", "B": "base", "T": "weighted average", "*": "another operation"}
_GAP = 5.0  # pixels between embeddings, layers, and final norm and head
_WIDEST, _NAME = 20.0, 320.0


def drawn(run: RunResult) -> tuple[CaseResult, ...]:
    """The cases that have a layer map."""
    return tuple(case for case in run.cases if len(case.drawing.split("|")) == 3)


def owners(cases: Sequence[CaseResult]) -> dict[str, str]:
    """Every letter of the drawings in the legend's order, and what it stands for, as the plans tell."""
    found: dict[str, dict[str, None]] = {}
    for case in cases:
        marks, lines = case.drawing.replace("|", ""), case.plan_text.splitlines()
        for i, mark in enumerate(marks):
            named = lines[i].partition(": ")[2] if len(lines) == len(marks) else ""
            found.setdefault(mark, {})[named] = None
    order = [*(mark for mark in _NAMES if mark in found), *sorted(mark for mark in found if mark not in _NAMES)]
    return {mark: _NAMES.get(mark) or ", ".join(filter(None, found[mark])) or "a further expert" for mark in order}


def layer_map(run: RunResult) -> str:
    """The maps of all recipes as SVG, by family; two columns where they fit."""
    cases = drawn(run)
    families = [(family, [c for c in cases if c.family == family]) for family in run.families]
    blocks = [(family, members) for family, members in families if members]
    slots = max(len(case.drawing) - 2 for case in cases)
    titles = [width_of(family, LARGE, bold=True) for family, _ in blocks]
    names = min(_NAME, max(*titles, *(width_of(case.case) for case in cases))) + 10
    half = (WIDTH - 24) / 2
    columns = 2 if len(cases) > 12 and names + slots * 15 + 2 * _GAP <= half else 1
    space = half if columns == 2 else float(WIDTH)
    cell = min(_WIDEST, (space - names - 2 * _GAP) / slots)
    cell = float(int(cell)) if cell > 8 else cell  # whole pixels: even gaps
    split = _balanced([len(members) + 2 for _, members in blocks]) if columns == 2 else len(blocks)
    parts = [part for part in (blocks[:split], blocks[split:]) if part]
    marks = owners(cases)
    entries = [*marks.items(), ("", "e embeddings, 0 the lowest layer, n final norm, h output head")]
    legend = list(_lines([(mark, name, width_of(name) + ROW + 26) for mark, name in entries]))
    top = 8 + len(legend) * 21
    height = top + max(sum(len(members) + 2 for _, members in part) for part in parts) * ROW + 6

    def paint(figure: Any) -> None:
        axes = sheet(figure)
        for row, entries in enumerate(legend):
            for x, mark, name in entries:
                _strip(axes, x, 4 + row * 21, mark, ROW)
                write(
                    axes, x + (ROW if mark in marks else 0) + 5, 4 + row * 21 + ROW / 2, name, room=WIDTH - x - ROW - 5
                )
        for column, part in enumerate(parts):
            _column(axes, column * (half + 24), top, part, names, cell)

    return svg(height, paint)


def _column(
    axes: Any, left: float, top: float, blocks: Sequence[tuple[str, Sequence[CaseResult]]], names: float, cell: float
) -> None:
    y = top
    for family, members in blocks:
        write(axes, left, y + 1.5 * ROW, family, LARGE, names - 8, weight="bold")
        layers = max(len(case.drawing) - 5 for case in members)
        step = next(s for s in (1, 2, 5, 10, 20, 50) if s * cell >= 15)
        labels = [(0.5, 0, "e"), (layers + 1.5, 2, "n"), (layers + 2.5, 2, "h")]
        labels += [(layer + 1.5, 1, str(layer)) for layer in range(0, layers, step)]
        for slot, gaps, label in labels:
            write(axes, left + names + cell * slot + gaps * _GAP, y + 1.5 * ROW + 2, label, SMALL, ha="center")
        y += 2 * ROW
        for case in members:
            write(axes, left, y + ROW / 2, case.case, NORMAL, names - 8)
            _strip(axes, left + names, y, case.drawing, cell)
            y += ROW


def _strip(axes: Any, left: float, top: float, drawing: str, cell: float) -> None:
    x, places, colours = left, [], []
    for mark in drawing:
        if mark == "|":
            x += _GAP
            continue
        colour = OWNERS.get(mark, OTHER_OWNER)
        places.append((x, top))
        colours.append(colour)
        if cell >= 8:
            write(axes, x + cell / 2 - 0.5, top + ROW / 2, mark, min(SMALL, cell), ha="center", color=ink(colour))
        x += cell
    cells(axes, places, colours, cell, ROW)


def _balanced(heights: Sequence[int]) -> int:
    """How many blocks go into the first of two columns, so that the taller one is as low as can be."""
    return min(range(1, len(heights) + 1), key=lambda n: max(sum(heights[:n]), sum(heights[n:])))


def _lines(entries: Sequence[tuple[str, str, float]]) -> Iterator[list[tuple[float, str, str]]]:
    """The legend's entries with their x, broken into lines."""
    line: list[tuple[float, str, str]] = []
    x = 0.0
    for mark, name, width in entries:
        if line and x + width > WIDTH:
            yield line
            line, x = [], 0.0
        line.append((x, mark, name))
        x += width
    yield line
