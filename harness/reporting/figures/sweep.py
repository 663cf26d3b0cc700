"""How many layers: a heat map a column over the layers that the language expert gives at the bottom and at the top."""

from __future__ import annotations

import math
from typing import Any

from harness.reporting.figures.canvas import (
    DOWN_COLOUR,
    LINE,
    NORMAL,
    SMALL,
    WIDTH,
    cells,
    colour_of,
    ink,
    scale_bar,
    sheet,
    svg,
    write,
)
from harness.reporting.results import CaseResult, RunResult

_SCALE = "PuOr"  # orange below, purple above; white between
_ROW, _TOP, _BOTTOM = 24.0, 26.0, 40.0


def sizes(case: CaseResult, reference: CaseResult) -> tuple[int, int] | None:
    """(bottom, top) if ``case`` is the reference with other numbers of language layers and nothing else changed.

    The transitions are as wide as the reference's and mixed alike; a side without language layers has none. Where the
    reference has neither layers nor a transition on one side, the width on its other side counts.
    """
    ours, own = _blocks(case.drawing), _blocks(reference.drawing)
    if ours is None or own is None or case.drawing[0] != reference.drawing[0]:
        return None
    if case.drawing[-2:] != reference.drawing[-2:] or not _mixes(case) <= _mixes(reference):
        return None
    bottom, widths, top = ours
    below, above = own[1]
    below, above = below if own[0] or below else above, above if own[2] or above else below
    if ours != own and widths != (below if bottom else 0, above if top else 0):
        return None
    return bottom, top


def grid(run: RunResult) -> dict[tuple[int, int], CaseResult]:
    """The cases of the sweep by (bottom, top), the reference among them; the first of those with equal sizes."""
    reference = run.case(run.reference)
    found: dict[tuple[int, int], CaseResult] = {}
    if reference is None:
        return found
    for case in (reference, *run.cases):
        if size := sizes(case, reference):
            found.setdefault(size, case)
    return found


def sweep(run: RunResult) -> str:
    """The heat maps of all columns as SVG: points in the cells, coloured by the difference to the reference."""
    found, reference = grid(run), run.case(run.reference)
    assert reference is not None
    columns = [name for name in run.columns if name in reference.columns]
    bottoms, tops = sorted({b for b, _ in found}), sorted({u for _, u in found}, reverse=True)
    reach = max(
        abs(case.columns[c].value - reference.columns[c].value)
        for case in found.values()
        for c in columns
        if c in case.columns
    )
    across = min(5, len(columns), max(1, int((WIDTH - 20) / (len(bottoms) * 30 + 34))))
    pitch = (WIDTH - 20) / across
    cell = min(52.0, (pitch - 34) / len(bottoms))
    block = _TOP + len(tops) * _ROW + _BOTTOM
    height = 24 + math.ceil(len(columns) / across) * block

    def paint(figure: Any) -> None:
        page = sheet(figure)
        bound = f"{100 * reach:.1f}"
        scale_bar(
            page,
            20,
            10,
            _SCALE,
            f"-{bound}",
            f"+{bound}",
            "by language layers; points above or below the method (framed):",
        )
        write(page, WIDTH, 10, "·  not in this run", SMALL, ha="right")
        for i, column in enumerate(columns):
            left, top = 20 + (i % across) * pitch + 24, 24 + (i // across) * block + _TOP
            write(page, left, top - 10, column, NORMAL, pitch - 28, weight="bold")
            _panel(page, left, top, cell, bottoms, tops, found, reference, column, reach)
            if i % across == 0:
                middle = top + len(tops) * _ROW / 2
                write(page, 8, middle, "layers on top", SMALL, rotation=90, ha="center")
            write(page, left, top + len(tops) * _ROW + 22, "layers at the bottom", SMALL)

    return svg(height, paint)


def _panel(
    page: Any,
    left: float,
    top: float,
    cell: float,
    bottoms: list[int],
    tops: list[int],
    found: dict[tuple[int, int], CaseResult],
    reference: CaseResult,
    column: str,
    reach: float,
) -> None:
    from matplotlib.patches import Rectangle

    baseline = reference.columns[column].value
    for row, u in enumerate(tops):
        y = top + row * _ROW
        write(page, left - 6, y + _ROW / 2, str(u), SMALL, ha="right")
        for place, b in enumerate(bottoms):
            x, case = left + place * cell, found.get((b, u))
            if case is None or column not in case.columns:
                write(page, x + cell / 2, y + _ROW / 2, "·", SMALL, ha="center")
                continue
            value = case.columns[column].value
            colour = colour_of(0.5 + 0.42 * (value - baseline) / reach if reach else 0.5, _SCALE)
            cells(page, [(x, y)], [colour], cell - 1, _ROW - 1)
            text = f"{100 * value:.1f}" if cell > 32 else f"{100 * value:.0f}"
            write(page, x + cell / 2 - 0.5, y + _ROW / 2, text, SMALL, ha="center", color=ink(colour))
            edge, thick = (DOWN_COLOUR, 1.8) if case is reference else (LINE, 0.5)
            page.add_patch(Rectangle((x, y), cell - 2, _ROW - 2, fill=False, edgecolor=edge, linewidth=thick))
    for place, b in enumerate(bottoms):
        write(page, left + (place + 0.5) * cell, top + len(tops) * _ROW + 7, str(b), SMALL, ha="center")


def _blocks(drawing: str) -> tuple[int, tuple[int, int], int] | None:
    """Bottom layers, widths of the two transitions and top layers of a plain swap; None for anything else."""
    parts = drawing.split("|")
    if len(parts) != 3:
        return None
    layers = parts[1]
    inner = layers.strip("L")
    middle = inner.strip("T")
    if not middle or set(middle) != {"M"}:
        return None
    bottom, top = len(layers) - len(layers.lstrip("L")), len(layers) - len(layers.rstrip("L"))
    widths = (len(inner) - len(inner.lstrip("T")), len(inner) - len(inner.rstrip("T")))
    return bottom, widths, top


def _mixes(case: CaseResult) -> set[str]:
    """How the transitions are mixed, as the plan tells; empty where it does not."""
    marks, lines = case.drawing.replace("|", ""), case.plan_text.splitlines()
    if len(marks) != len(lines):
        return set()
    return {line.partition(": ")[2] for mark, line in zip(marks, lines, strict=True) if mark == "T"}
