"""What is paid for what: target-language mathematics against English mathematics and target-language reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.reporting.figures.canvas import (
    DOWN_COLOUR,
    NORMAL,
    SMALL,
    TEXT,
    UP_COLOUR,
    WIDTH,
    panel,
    points,
    sheet,
    svg,
    width_of,
    write,
)
from harness.reporting.figures.forest import ticks
from harness.reporting.results import CaseResult, RunResult

_TOP, _SIDE, _HEIGHT, _ROW = 56.0, 36.0, 350.0, 16.0


@dataclass(frozen=True)
class Axes:
    """The columns of the figure; English mathematics or reading is "" where the run has none."""

    target: str
    english: str
    reading: str


def axes_of(run: RunResult, benchmark: str = "mgsm") -> Axes | None:
    """The target language is that of the first column of ``benchmark`` that is not English; None without one."""
    named = [(column, column.split()) for column in run.columns]
    maths = [(column, words) for column, words in named if words[:1] == [benchmark] and len(words) > 1]
    target = next(((column, words[1]) for column, words in maths if words[1] != "en"), None)
    if target is None:
        return None
    english = next((column for column, words in maths if words[1] == "en"), "")
    readings = (c for c, words in named if words[:1] != [benchmark] and words[1:] == [target[1]])
    axes = Axes(target[0], english, next(readings, ""))
    return axes if any(_placed(run, axes.target, other) for other in (axes.english, axes.reading)) else None


def front(places: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """The names that no other beats on one axis without losing on the other, by falling second coordinate."""
    best = [
        name
        for name, (x, y) in places.items()
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in places.values())
    ]
    return tuple(sorted(best, key=lambda name: (-places[name][1], places[name][0])))


def pareto(run: RunResult) -> str:
    """One or two scatter plots as SVG; a marker is a set of weights, whatever number of cases has them."""
    axes = axes_of(run)
    assert axes is not None
    others = [other for other in (axes.english, axes.reading) if _placed(run, axes.target, other)]
    width = (WIDTH - _SIDE * len(others) - 14 * (len(others) - 1)) / len(others)
    keys = [len(front(_places(_placed(run, axes.target, other), axes.target, other))) for other in others]
    height = _TOP + _HEIGHT + 52 + max(keys) * _ROW

    def paint(figure: Any) -> None:
        page = sheet(figure)
        _legend(page, run, axes)
        for i, other in enumerate(others):
            left = _SIDE + i * (width + _SIDE + 14)
            size = axes.reading if other == axes.english else ""
            _scatter(figure, page, left, width, run, axes.target, other, size)

    return svg(height, paint)


def _placed(run: RunResult, target: str, other: str) -> list[CaseResult]:
    """The cases with both columns, one for each set of weights: the reference or a comparator if it has them."""
    both = [case for case in run.cases if target in case.columns and other in case.columns]
    known = [run.reference, *run.comparators.values()]
    ranked = sorted(both, key=lambda case: known.index(case.case_id) if case.case_id in known else len(known))
    first = {case.identity: case for case in reversed(ranked)}
    return [case for case in both if first[case.identity] is case]


def _places(cases: Sequence[CaseResult], target: str, other: str) -> dict[str, tuple[float, float]]:
    return {c.case_id: (100 * c.columns[other].value, 100 * c.columns[target].value) for c in cases}


def _scatter(
    figure: Any, page: Any, left: float, width: float, run: RunResult, target: str, other: str, size: str
) -> None:
    cases = _placed(run, target, other)
    places = _places(cases, target, other)
    (x0, x1), (y0, y1) = limits = [_limits([place[i] for place in places.values()]) for i in (0, 1)]
    plot = panel(figure, left, _TOP, width, _HEIGHT)
    plot.set(xlim=limits[0], ylim=limits[1], xticks=ticks(limits[0], 6), yticks=ticks(limits[1], 6))
    plot.grid(color=TEXT, alpha=0.2, linewidth=0.5)
    write(page, left + width / 2, _TOP + _HEIGHT + 28, f"{other} (points)", NORMAL, ha="center", weight="bold")
    write(page, left - 30, _TOP - 14, f"{target} (points)", NORMAL, weight="bold")
    best, radii = front(places), _radii(cases, size)
    steps = [[places[name][i] for name in best] for i in (0, 1)]
    plot.plot(*steps, color=UP_COLOUR, linewidth=0.8, dashes=(4, 3), drawstyle="steps-pre", zorder=1)
    for name, place in places.items():
        star = name == run.reference
        colour = DOWN_COLOUR if star else UP_COLOUR if name in best else TEXT
        plot.plot(
            *([coordinate] for coordinate in place),
            marker="*" if star else "o",
            markersize=points(2 * radii[name]) * (1.7 if star else 1),
            markerfacecolor=colour if star or name in best else "none",
            markeredgecolor=colour,
            zorder=4 if star else 3 if name in best else 2,
            clip_on=False,
        )
    pixels = {
        name: (left + width * (x - x0) / (x1 - x0), _TOP + _HEIGHT * (1 - (y - y0) / (y1 - y0)))
        for name, (x, y) in places.items()
    }
    numbers = {name: str(i + 1) for i, name in enumerate(best)}
    labels = {case_id: label for label, case_id in run.comparators.items() if case_id in places}
    _label(page, pixels, radii, numbers, {n: t for n, t in labels.items() if n not in numbers}, (left, left + width))
    for i, name in enumerate(best):
        y = _TOP + _HEIGHT + 52 + i * _ROW
        write(page, left + 14, y, numbers[name], SMALL, ha="right", color=UP_COLOUR, weight="bold")
        write(page, left + 22, y, f"{name} ({places[name][0]:.1f}, {places[name][1]:.1f})", SMALL, width - 22)


def _label(
    page: Any,
    pixels: Mapping[str, tuple[float, float]],
    radii: Mapping[str, float],
    numbers: Mapping[str, str],
    labels: Mapping[str, str],
    sides: tuple[float, float],
) -> None:
    """Numbers and labels where they cover least of markers, of one another and of the outside.

    Every number is written, a label only if there is room; with a line to the marker if that is not beside it.
    """
    taken = [(x - radii[n], y - radii[n], x + radii[n], y + radii[n]) for n, (x, y) in pixels.items()]
    for name, text in [*numbers.items(), *labels.items()]:
        x, y = pixels[name]
        wide = width_of(text, SMALL, bold=name in numbers)
        spots = []
        for distance in (3.0, 10.0, 18.0, 28.0):
            for dx, dy in (
                (1.0, 0.0),
                (0.7, -0.7),
                (0.0, -1.0),
                (-0.7, -0.7),
                (-1, 0),
                (-0.7, 0.7),
                (0, 1),
                (0.7, 0.7),
            ):
                near = radii[name] + distance
                spots.append((x + dx * (near + wide / 2), y + dy * (near + 5)))
        boxes = [(sx - wide / 2, sy - 6, sx + wide / 2, sy + 6) for sx, sy in spots]
        covered = [sum(_overlap(box, other) for other in taken) + 100 * _outside(box, sides) for box in boxes]
        chosen = covered.index(min(covered))
        if name in labels and covered[chosen] > 0:
            continue
        taken.append(boxes[chosen])
        if chosen >= 8:
            end = _edge(boxes[chosen], (x, y))
            page.plot([x, end[0]], [y, end[1]], color=UP_COLOUR if name in numbers else TEXT, linewidth=0.6)
        style: dict[str, Any] = {"color": UP_COLOUR, "weight": "bold"} if name in numbers else {}
        write(page, *spots[chosen], text, SMALL, ha="center", **style)


def _edge(box: tuple[float, float, float, float], point: tuple[float, float]) -> tuple[float, float]:
    """The place in ``box`` nearest to ``point``."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1] + 2), box[3] - 2)


def _outside(box: tuple[float, float, float, float], sides: tuple[float, float]) -> float:
    return max(0.0, sides[0] - box[0]) + max(0.0, box[2] - sides[1])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _limits(values: Sequence[float]) -> tuple[float, float]:
    pad = max(0.06 * (max(values) - min(values)), 0.5)
    return min(values) - pad, max(values) + pad


def _radii(cases: Sequence[CaseResult], size: str) -> dict[str, float]:
    """Radii in pixels: the area grows with the column ``size``, if there is one."""
    values = {case.case_id: case.columns[size].value for case in cases if size and size in case.columns}
    low, high = (min(values.values()), max(values.values())) if values else (0.0, 0.0)
    shares = {name: (value - low) / (high - low) if high > low else 0.5 for name, value in values.items()}
    return {c.case_id: (9 + 40 * shares[c.case_id]) ** 0.5 if c.case_id in shares else 4.5 for c in cases}


def _legend(page: Any, run: RunResult, axes: Axes) -> None:
    x = 10.0
    for marker, face, edge, text in (
        ("*", DOWN_COLOUR, DOWN_COLOUR, f"{run.reference}, un-ablated"),
        ("o", UP_COLOUR, UP_COLOUR, "no case is better on both axes: named below"),
        ("o", "none", TEXT, "other cases"),
    ):
        wide = 9 if marker == "*" else 6
        page.plot([x], [12], marker=marker, markersize=wide, markerfacecolor=face, markeredgecolor=edge, ls="none")
        write(page, x + 10, 12, text, SMALL)
        x += width_of(text, SMALL) + 36
    if axes.reading and axes.english:
        write(page, x - 8, 12, f"left: larger marker, higher {axes.reading}", SMALL)
