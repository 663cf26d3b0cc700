"""How far experts moved from their base, as Markdown tables and as files: what ``layerswap analyze`` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from harness.files import replace_text
from harness.merging.analysis import Change, totals
from harness.plan import OUTER_SLOTS
from harness.reporting.results import ParameterChange, RunResult
from harness.reporting.tables import markdown

MOST = 3
CSV_COLUMNS = ("expert", "slot", "kind", "parameters", "mean_absolute", "relative")
Measure = Literal["mean_absolute", "relative"]
_WORDS: Mapping[Measure, str] = {"mean_absolute": "mean absolute change", "relative": "relative change"}


def changes_text(rows: Sequence[Change], full: bool = False) -> str:
    """The tables: where each expert moved most, then by slot and by kind of module; ``full`` adds slot by kind.

    A cell is the mean of |expert - base|, in the weights' units, or the norm of the change over the base's norm.
    """
    experts = tuple(dict.fromkeys(row.expert for row in rows))
    by_slot, by_kind = totals(rows, "slot"), totals(rows, "kind")
    parts = [
        "## Where each expert moved most",
        _summary(experts, by_slot, by_kind),
        "## By layer",
        _side_by_side("slot", experts, by_slot),
        "## By kind of module",
        _side_by_side("kind", experts, by_kind),
    ]
    for expert in experts if full else ():
        own = [row for row in rows if row.expert == expert]
        for measure, words in _WORDS.items():
            parts += [f"## {expert}: {words} by layer and kind of module", _matrix(own, measure)]
    notes = "Mean absolute: mean of \\|expert − base\\|, in units of the weights. Relative: ‖expert − base‖ / ‖base‖."
    return "\n\n".join([*parts, notes]) + "\n"


def most_changed(by_slot: Sequence[Change], measure: Measure) -> tuple[str, ...]:
    """The layers of the largest change, the largest first; none that did not move."""
    moved = [row for row in by_slot if row.slot not in OUTER_SLOTS and getattr(row, measure) > 0]
    moved.sort(key=lambda row: -float(getattr(row, measure)))
    return tuple(row.slot.partition(".")[2] for row in moved[:MOST])


def as_parameter_changes(rows: Sequence[Change]) -> tuple[ParameterChange, ...]:
    """The rows as a run's results hold them."""
    return tuple(
        ParameterChange(
            row.expert,
            row.slot,
            row.kind,
            row.parameters,
            row.mean_absolute,
            row.relative if row.base_squared_sum else None,
        )
        for row in rows
    )


def write_figures(rows: Sequence[Change], folder: Path) -> tuple[Path, ...]:
    """``changes.svg``, the heat maps of both measures, and ``changes.csv``, the numbers in them."""
    from harness.reporting.figures.changes import change_map

    run = RunResult("", "", (), "", (), {}, changes=as_parameter_changes(rows))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([getattr(row, name) for name in CSV_COLUMNS] for row in rows)
    written = {folder / "changes.svg": change_map(run), folder / "changes.csv": text.getvalue()}
    for path, content in written.items():
        replace_text(path, content)
    return tuple(written)


def _summary(experts: Sequence[str], by_slot: Sequence[Change], by_kind: Sequence[Change]) -> str:
    cells = []
    for expert in experts:
        slots, kinds = ([row for row in rows if row.expert == expert] for rows in (by_slot, by_kind))
        inside = [row for row in kinds if row.kind not in OUTER_SLOTS and row.squared_sum]
        kind = max(inside, key=lambda row: row.relative).kind if inside else "none"
        measured = [", ".join(most_changed(slots, measure)) or "none" for measure in _WORDS]
        cells.append([expert, *measured, kind])
    return markdown(cells, ["expert", "layers, mean absolute", "layers, relative", "kind of module, relative"])


def _side_by_side(by: Literal["slot", "kind"], experts: Sequence[str], rows: Sequence[Change]) -> str:
    """A row a slot or kind, both measures of every expert beside each other."""
    found = {(getattr(row, by), row.expert): row for row in rows}
    names = dict.fromkeys(name for name, _ in found)
    cells = [
        [name, *(_number(found.get((name, expert)), measure) for measure in _WORDS for expert in experts)]
        for name in names
    ]
    heads = [f"{words.removesuffix(' change')}, {expert}" for words in _WORDS.values() for expert in experts]
    return markdown(cells, ["layer" if by == "slot" else "module", *heads])


def _matrix(rows: Sequence[Change], measure: Measure) -> str:
    inside = [row for row in rows if row.slot not in OUTER_SLOTS]
    found = {(row.slot, row.kind): row for row in inside}
    slots, kinds = (dict.fromkeys(names) for names in ([r.slot for r in inside], [r.kind for r in inside]))
    cells = [[slot, *(_number(found.get((slot, kind)), measure) for kind in kinds)] for slot in slots]
    return markdown(cells, ["layer", *kinds])


def _number(row: Change | None, measure: Measure) -> str:
    return "" if row is None else f"{getattr(row, measure):.3g}"
