"""Figures of a run as SVG text: pure functions of a :class:`RunResult`, shown in its report.

:func:`figure_names` and :func:`shown` say what there is and import no matplotlib; :func:`figures` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from harness.reporting.figures.changes import change_map, experts
from harness.reporting.figures.forest import compared, forest
from harness.reporting.figures.layers import drawn, layer_map
from harness.reporting.figures.pareto import axes_of, pareto
from harness.reporting.figures.sweep import grid, sweep
from harness.reporting.results import RunResult

FOLDER = "figures"


def figures(run: RunResult) -> Mapping[str, str]:
    """File stem to SVG of every figure that the run has data for. Equal runs give equal bytes."""
    return {name: draw() for name, (_, draw) in _known(run).items()}


def figure_names(run: RunResult) -> tuple[str, ...]:
    """The stems of :func:`figures`, without drawing them."""
    return tuple(_known(run))


def shown(run: RunResult, name: str) -> str:
    """Markdown that shows one figure from beside the report; "" if the run has no data for it."""
    known = _known(run).get(name)
    return f"![{known[0]}]({FOLDER}/{name}.svg)" if known else ""


def shown_family(run: RunResult, family: str) -> str:
    """What stands below a family's table: its forest plot, and below ``count`` (or the last one) the sweep."""
    last = "count" if "count" in run.families else run.families[-1]
    names = [forest_name(family), *(["sweep"] if family == last else [])]
    return "".join(f"\n\n{text}" for text in (shown(run, name) for name in names) if text)


def forest_name(family: str) -> str:
    """The stem of a family's forest plot: letters, digits and ``-`` stay, all else becomes its code point."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f".{ord(c):x}" for c in family)
    return f"forest-{safe}"


def _known(run: RunResult) -> dict[str, tuple[str, Callable[[], str]]]:
    """The alt text and the way to draw every figure of the run, by stem, in the order of the report."""
    found: dict[str, tuple[str, Callable[[], str]]] = {}
    if drawn(run):
        found["layers"] = ("The expert that fills each slot, case by case", partial(layer_map, run))
    for family in run.families:
        if compared(run, family):
            text = f"{family}: differences to the un-ablated method and their intervals"
            found[forest_name(family)] = (_plain(text), partial(forest, run, family))
    if len(grid(run)) > 1:
        found["sweep"] = ("Points by numbers of language layers at the bottom and on top", partial(sweep, run))
    if experts(run):
        found["changes"] = ("Change of each expert's parameters by layer and kind of module", partial(change_map, run))
    if axes := axes_of(run):
        text = f"{axes.target} against {' and '.join(filter(None, (axes.english, axes.reading)))}"
        found["pareto"] = (_plain(text), partial(pareto, run))
    return found


def _plain(text: str) -> str:
    """``text`` without what ends the alt text of an image in Markdown or begins markup in it."""
    return "".join(c if c.isalnum() or c in " -_:,./+" else " " for c in text)
