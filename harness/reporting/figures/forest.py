"""Forest plots: a family's differences to the un-ablated method with their intervals, a panel a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.gating.statistics import Comparison
from harness.reporting.figures.canvas import (
    DOWN_COLOUR,
    LINE,
    NORMAL,
    SMALL,
    TEXT,
    UP_COLOUR,
    WIDTH,
    sheet,
    svg,
    width_of,
    write,
)
from harness.reporting.results import CaseResult, RunResult
from harness.reporting.tables import UP, significance

_ROW, _TOP, _BOTTOM = 19.0, 24.0, 26.0
_RADIUS, _NAME, _TICK = 3.5, 320.0, 4.0


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
        # Axes of its own for each panel would take most of the time.
        marks = _Marks()
        for i, column in enumerate(columns):
            left, top = names + (i % across) * pitch, 22 + (i // across) * block + _TOP
            write(page, left, top - 10, column, NORMAL, pitch - 4, weight="bold")
            if i % across == 0:
                for row, case in enumerate(cases):
                    write(page, names - 10, top + (row + 0.5) * _ROW, case.case, room=names - 10, ha="right")
            place = _Panel(left, top, pitch - 12, len(cases) * _ROW, limits)
            marks.frame(page, place, len(cases))
            for row, case in enumerate(cases):
                if c := _versus(case, column):
                    marks.add(place, top + (row + 0.5) * _ROW, c, arrows.get((case.case_id, column), ""))
        marks.paint(page)
        write(
            page, names + (WIDTH - names) / 2, height - 10, "points above or below the un-ablated method", ha="center"
        )

    return svg(height, paint)


class _Panel(NamedTuple):
    """Where a panel lies on the page, in pixels, and the points at its two sides."""

    left: float
    top: float
    width: float
    height: float
    limits: tuple[float, float]

    def x(self, points: float) -> float:
        low, high = self.limits
        return self.left + (points - low) / (high - low) * self.width


Point = tuple[float, float]


@dataclass
class _Marks:
    """What all panels have of one kind, painted together: lines by their colour and width, markers by kind."""

    stripes: list[list[Point]] = field(default_factory=list)
    zeros: list[tuple[Point, Point]] = field(default_factory=list)
    frames: list[tuple[Point, Point]] = field(default_factory=list)
    intervals: list[tuple[Point, Point]] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    markers: dict[str, list[Point]] = field(default_factory=dict)

    def frame(self, page: Any, at: _Panel, rows: int) -> None:
        """Stripes, the line at zero and the scale."""
        right, bottom = at.left + at.width, at.top + at.height
        for row in range(0, rows, 2):
            high, low = at.top + row * _ROW, at.top + (row + 1) * _ROW
            self.stripes.append([(at.left, high), (right, high), (right, low), (at.left, low)])
        self.zeros.append(((at.x(0), at.top), (at.x(0), bottom)))
        self.frames.append(((at.left, bottom), (right, bottom)))
        found = ticks(at.limits, 4)
        whole = all(value == int(value) for value in found)
        for value in found:
            self.frames.append(((at.x(value), bottom), (at.x(value), bottom + _TICK)))
            write(page, at.x(value), bottom + _TICK + 8, f"{value:.{0 if whole else 1}f}", SMALL, ha="center")

    def add(self, at: _Panel, y: float, c: Comparison, arrow: str) -> None:
        """Interval and marker; a hollow marker is left empty, without the interval's line in it."""
        low, middle, high = (at.x(100 * value) for value in (c.low, c.difference, c.high))
        for start, end in [(low, high)] if arrow else [(low, middle - _RADIUS), (middle + _RADIUS, high)]:
            if end > start:
                self.intervals.append(((start, y), (end, y)))
                self.colours.append(_colour(arrow))
        self.markers.setdefault(arrow, []).append((middle, y))

    def paint(self, page: Any) -> None:
        from matplotlib.collections import LineCollection, PolyCollection

        page.add_collection(PolyCollection(self.stripes, facecolors=LINE, alpha=0.09, linewidths=0), autolim=False)
        for lines, colours, width, pattern in (
            (self.zeros, LINE, 0.9, (0, (3, 2))),
            (self.frames, LINE, 0.6, "solid"),
            (self.intervals, self.colours, 1.5, "solid"),
        ):
            drawn = LineCollection(lines, colors=colours, linewidths=width, linestyles=[pattern])
            page.add_collection(drawn, autolim=False)
        for arrow, places in self.markers.items():
            colour = _colour(arrow)
            style: dict[str, Any] = (
                {"marker": "^" if arrow == UP else "v", "color": colour, "markersize": 6.5}
                if arrow
                else {"marker": "o", "markerfacecolor": "none", "markeredgecolor": colour, "markersize": 1.5 * _RADIUS}
            )
            page.plot(*zip(*places, strict=True), linestyle="none", markeredgewidth=1.1, **style)


def _colour(arrow: str) -> str:
    return {"": TEXT, UP: UP_COLOUR}.get(arrow, DOWN_COLOUR)


def ticks(limits: tuple[float, float], most: int) -> list[float]:
    """Round numbers inside ``limits``, 0 among them if it is inside, at most ``most`` and a few."""
    span = limits[1] - limits[0]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200) if span / s <= most)
    return [i * step for i in range(math.ceil(limits[0] / step), math.floor(limits[1] / step) + 1)]


def _versus(case: CaseResult, column: str) -> Comparison | None:
    result = case.columns.get(column)
    return result.versus_method if result else None


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
