"""One score over the runs under a folder of reports, as a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.gating.baselines import load_baselines
from harness.gating.pairing import IncomparableError
from harness.gating.statistics import compare, interval
from harness.reporting.compare import SCORES
from harness.reporting.figures.canvas import TEXT, UP_COLOUR
from harness.reporting.report import read_results
from harness.reporting.tables import difference, markdown, p_value, points


@dataclass(frozen=True)
class Point:
    """One run's score: ``value`` with its own interval, shares of one, and when the run was (UTC)."""

    run: str
    date: str
    score: Score
    low: float
    high: float


def trend_points(reports: Path, case: str, column: str) -> tuple[tuple[Point, ...], list[str]]:
    """The score of every run in ``reports``, oldest first, and a sentence for each that has none.

    Raises :class:`LayerswapError` if no run has it, or there is no such folder.
    """
    if not reports.is_dir():
        raise LayerswapError(f"{reports}: there is no such folder: expected one of reports")
    found, skipped = [], []
    seen = [path for path in reports.glob("*") if not path.name.startswith(".")]  # the others are being written
    for folder in sorted(path for path in seen if path.is_dir() and not path.is_symlink()):
        try:
            run = read_results(folder)
            score = load_baselines(folder / SCORES).get(case, column)
        except LayerswapError as error:
            skipped.append(f"left out: {error}")
            continue
        if score is None:
            skipped.append(f"left out: {folder} has no {case} on {column}")
            continue
        found.append(Point(run.name, run.provenance.get("date", ""), score, *interval(score)))
    if not found:
        listed = "".join(f"\n  {line}" for line in skipped)
        raise LayerswapError(f"{reports}: no run has {case} on {column!r}{listed}")
    return tuple(sorted(found, key=lambda point: (point.date, point.run))), skipped


def trend_table(points_: Sequence[Point]) -> str:
    """A row a run: its value with its interval, and the paired difference to the run before it."""
    rows: list[list[object]] = []
    for i, point in enumerate(points_):
        cells: list[object] = [point.run, point.date, point.score.n, points(point.score.value)]
        cells.append(f"[{points(point.low)}, {points(point.high)}]")
        if i == 0:
            rows.append([*cells, "", ""])
            continue
        try:
            c = compare(point.score, points_[i - 1].score)
        except IncomparableError as error:
            rows.append([*cells, f"not comparable: {', '.join(error.fields)}", ""])
        else:
            rows.append([*cells, difference(c), p_value(c.p)])
    return markdown(rows, ["run", "date", "n", "value", "95 % interval", "to the run before [95 % interval]", "p"])


def trend_figure(points_: Sequence[Point], title: str) -> str:
    """The same as SVG text: values with their intervals in the order of time."""
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text, and names may hold what mathematics would be typeset from.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "layerswap", "text.parse_math": False}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.add_subplot()
        x = range(len(points_))
        values = [100 * point.score.value for point in points_]
        errors = (
            [100 * max(0.0, point.score.value - point.low) for point in points_],
            [100 * max(0.0, point.high - point.score.value) for point in points_],
        )
        axes.errorbar(x, values, yerr=errors, marker="o", capsize=3, color=UP_COLOUR, ecolor=TEXT)
        axes.set_xticks(list(x), [point.date[:16] or point.run for point in points_], rotation=30, ha="right")
        axes.set_title(title, color=TEXT, fontsize=10)
        axes.set_ylabel("points", color=TEXT)
        axes.tick_params(colors=TEXT, labelsize=8)
        axes.grid(axis="y", color=TEXT, alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color(TEXT)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
