"""Figures of a run as SVG text: pure functions of a :class:`RunResult`, shown in its report.

:func:`figure_names` and :func:`shown` say what there is and import no matplotlib; :func:`figures` draws. Each figure
is drawn from a part of the run that holds what the figure shows and no timings, so that a figure whose part has not
changed since an earlier run can be taken from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from harness.cache import Cache, kept, key_of
from harness.reporting.figures.changes import change_map, experts
from harness.reporting.figures.forest import compared, forest
from harness.reporting.figures.layers import drawn, layer_map
from harness.reporting.figures.pareto import axes_of, pareto
from harness.reporting.figures.sweep import grid, sweep
from harness.reporting.results import CaseResult, ColumnResult, RunResult

FOLDER = "figures"


class _Figure(NamedTuple):
    """A figure's alternative text, the part of the run that it shows, and the way to draw that part."""

    text: str
    part: Callable[[], RunResult]
    draw: Callable[[RunResult], str]


def figures(run: RunResult, cache: Cache | None = None) -> Mapping[str, str]:
    """File stem to SVG of every figure that the run has data for. Equal runs give equal bytes.

    A figure in ``cache`` that shows the same and was drawn by the same code and matplotlib is not drawn again.
    """
    return {name: _drawn(figure, cache) for name, figure in _known(run).items()}


def _drawn(figure: _Figure, cache: Cache | None) -> str:
    part = figure.part()
    return kept(
        cache,
        "figure",
        lambda: key_of([figure.text, part.to_dict()], "matplotlib", "numpy"),
        lambda: figure.draw(part),
    )


def figure_names(run: RunResult) -> tuple[str, ...]:
    """The stems of :func:`figures`, without drawing them."""
    return tuple(_known(run))


def shown(run: RunResult, name: str) -> str:
    """Markdown that shows one figure from beside the report; "" if the run has no data for it."""
    known = _known(run).get(name)
    return f"![{known.text}]({FOLDER}/{name}.svg)" if known else ""


def shown_family(run: RunResult, family: str) -> str:
    """What stands below a family's table: its forest plot, and below ``count`` (or the last one) the sweep."""
    last = "count" if "count" in run.families else run.families[-1]
    names = [forest_name(family), *(["sweep"] if family == last else [])]
    return "".join(f"\n\n{text}" for text in (shown(run, name) for name in names) if text)


def forest_name(family: str) -> str:
    """The stem of a family's forest plot: letters, digits and ``-`` stay, all else becomes its code point."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f".{ord(c):x}" for c in family)
    return f"forest-{safe}"


def _known(run: RunResult) -> dict[str, _Figure]:
    """Every figure of the run by stem, in the order of the report."""
    found: dict[str, _Figure] = {}
    if drawn(run):
        found["layers"] = _Figure("The expert that fills each slot, case by case", partial(_plans, run), layer_map)
    for family in run.families:
        if compared(run, family):
            text = f"{family}: differences to the un-ablated method and their intervals"
            draw = partial(forest, family=family)
            found[forest_name(family)] = _Figure(_plain(text), partial(_comparisons, run, family), draw)
    if len(grid(run)) > 1:
        text = "Points by numbers of language layers at the bottom and on top"
        found["sweep"] = _Figure(text, partial(_values, run), sweep)
    if experts(run):
        text = "Change of each expert's parameters by layer and kind of module"
        found["changes"] = _Figure(text, partial(_moves, run), change_map)
    if axes := axes_of(run):
        text = f"{axes.target} against {' and '.join(filter(None, (axes.english, axes.reading)))}"
        found["pareto"] = _Figure(_plain(text), partial(_values, run), pareto)
    return found


def _plans(run: RunResult) -> RunResult:
    return _part(run, [_case(case, {}) for case in run.cases])


def _values(run: RunResult) -> RunResult:
    """Every case with its values, held against nothing."""
    return _part(run, [_case(case, {name: _value(r) for name, r in case.columns.items()}) for case in run.cases])


def _comparisons(run: RunResult, family: str) -> RunResult:
    """The cases of a family with their differences to the method."""
    members = [case for case in run.cases if case.family == family]
    held = [
        _case(case, {name: replace(_value(r), versus_method=r.versus_method) for name, r in case.columns.items()})
        for case in members
    ]
    return _part(run, held)


def _moves(run: RunResult) -> RunResult:
    return replace(_part(run, []), changes=run.changes)


def _part(run: RunResult, cases: Sequence[CaseResult]) -> RunResult:
    """The run's columns and ``cases``, without timings, dates, versions and digests of experts."""
    return RunResult("", "", run.columns, run.reference, tuple(cases), run.comparators)


def _case(case: CaseResult, columns: Mapping[str, ColumnResult]) -> CaseResult:
    return replace(case, columns=columns, merge_seconds=0.0, peak_bytes=0)


def _value(result: ColumnResult) -> ColumnResult:
    return ColumnResult(result.value, result.n, result.metric, None, result.graded)


def _plain(text: str) -> str:
    """``text`` without what ends the alt text of an image in Markdown or begins markup in it."""
    return "".join(c if c.isalnum() or c in " -_:,./+" else " " for c in text)
