"""Forest plots: a family's differences to the un-ablated method with their intervals, a panel a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.gating.statistics import Comparison
from harness.reporting.figures.canvas import (
    DOWN_COLOUR,
    LINE,
    NORMAL,
    SMALL,
    TEXT,
    UP_COLOUR,
    WIDTH,
    panel,
    sheet,
    svg,
    width_of,
    write,
)
from harness.reporting.results import CaseResult, RunResult
from harness.reporting.tables import UP, significance

_ROW, _TOP, _BOTTOM = 19.0, 24.0, 26.0
_RADIUS, _NAME = 3.5, 320.0


def compared(run: RunResult, family: str) -> tuple[CaseResult, ...]:
    """The family's cases that were held against the method on some column."""
    return tuple(c for c in run.cases if c.family == family and any(r.versus_method for r in c.columns.values()))


def forest(run: RunResult, family: str) -> str:
    """One family as SVG: a row a case, small multiples of its columns on one scale in points."""
    cases = compared(run, family)
    columns = [name for name in run.columns if any(_versus(case, name) for case in cases)]
    found = [c for case in cases for name in columns if (c := _versus(case, name))]
    low, high = min(100 * c.low for c in found), max(100 * c.high for c in found)
    pad = 0.04 * max(high - low, 1.0)
    limits = (min(low, 0.0) - pad, max(high, 0.0) + pad)
    arrows = significance(c for c in run.cases if c.family == family and c.case_id != run.reference)
    names = min(_NAME, max(width_of(case.case) for case in cases)) + 12
    across = min(5, len(columns))
    pitch = (WIDTH - names - 4) / across
    lines = math.ceil(len(columns) / across)
    block = _TOP + len(cases) * _ROW + _BOTTOM
    height = 22 + lines * block + 16

    def paint(figure: Any) -> None:
        page = sheet(figure)
        _legend(page, 10)
        for i, column in enumerate(columns):
            left, top = names + (i % across) * pitch, 22 + (i // across) * block + _TOP
            write(page, left, top - 10, column, NORMAL, pitch - 4, weight="bold")
            if i % across == 0:
                for row, case in enumerate(cases):
                    write(page, names - 10, top + (row + 0.5) * _ROW, case.case, room=names - 10, ha="right")
            axes = panel(figure, left, top, pitch - 12, len(cases) * _ROW)
            axes.set(xlim=limits, ylim=(len(cases), 0), yticks=[])
            axes.set_xticks(ticks(limits, 4))
            axes.spines["left"].set_visible(False)
            for row in range(0, len(cases), 2):
                axes.axhspan(row, row + 1, color=LINE, alpha=0.09, linewidth=0)
            axes.axvline(0, color=LINE, linewidth=0.9, dashes=(3, 2))
            scale = (limits[1] - limits[0]) / (pitch - 12)
            for row, case in enumerate(cases):
                if c := _versus(case, column):
                    _mark(axes, row + 0.5, c, arrows.get((case.case_id, column), ""), scale * _RADIUS)
        write(
            page, names + (WIDTH - names) / 2, height - 10, "points above or below the un-ablated method", ha="center"
        )

    return svg(height, paint)


def ticks(limits: tuple[float, float], most: int) -> list[float]:
    """Round numbers inside ``limits``, 0 among them if it is inside, at most ``most`` and a few."""
    span = limits[1] - limits[0]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200) if span / s <= most)
    return [i * step for i in range(math.ceil(limits[0] / step), math.floor(limits[1] / step) + 1)]


def _versus(case: CaseResult, column: str) -> Comparison | None:
    result = case.columns.get(column)
    return result.versus_method if result else None


def _mark(axes: Any, y: float, c: Comparison, arrow: str, radius: float) -> None:
    """Interval and marker; a hollow marker is left empty, without the interval's line in it."""
    colour = {"": TEXT, UP: UP_COLOUR}.get(arrow, DOWN_COLOUR)
    low, middle, high = 100 * c.low, 100 * c.difference, 100 * c.high
    parts = [(low, high)] if arrow else [(low, middle - radius), (middle + radius, high)]
    for start, end in parts:
        if end > start:
            axes.plot([start, end], [y, y], color=colour, linewidth=1.5, solid_capstyle="butt", zorder=2)
    style: dict[str, Any] = (
        {"marker": "^" if arrow == UP else "v", "color": colour, "markersize": 6.5}
        if arrow
        else {"marker": "o", "markerfacecolor": "none", "markeredgecolor": colour, "markersize": 1.5 * _RADIUS}
    )
    axes.plot([middle], [y], linestyle="none", markeredgewidth=1.1, zorder=3, clip_on=False, **style)


def _legend(page: Any, y: float) -> None:
    entries: Sequence[tuple[str, str, str, str]] = (
        ("^", UP_COLOUR, UP_COLOUR, "significantly above"),
        ("v", DOWN_COLOUR, DOWN_COLOUR, "significantly below (5 %, after Holm over the family)"),
        ("o", "none", TEXT, "not told apart"),
    )
    x = 8.0
    for marker, face, edge, text in entries:
        page.plot([x], [y], marker=marker, markerfacecolor=face, markeredgecolor=edge, markersize=6, linestyle="none")
        write(page, x + 9, y, text, SMALL)
        x += width_of(text, SMALL) + 34
    page.plot([x - 8, x + 8], [y, y], color=TEXT, linewidth=1.5)
    write(page, x + 14, y, "95 % interval", SMALL)
