"""Tables of a run: pandas for the numbers, tabulate for the Markdown. Pure functions of a :class:`RunResult`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.gating.adjust import holm
from harness.gating.floors import Verdict
from harness.gating.power import column_detectable
from harness.gating.statistics import Comparison
from harness.reporting.results import CaseResult, ColumnResult, RunResult

ALPHA = 0.05
UP, DOWN = "▲", "▼"
_HARD_SPACE = "\u00a0"


CSV_COLUMNS = (
    "family", "case", "column", "metric", "n", "value", "difference", "low", "high", "p", "verdict", "seconds"
)  # fmt: skip


def frame(run: RunResult) -> Any:
    """A tidy ``pandas.DataFrame``: one row per case and column, shares of one, NaN where there was no baseline."""
    import pandas as pd

    return pd.DataFrame(_tidy(run), columns=list(CSV_COLUMNS))


def csv_text(run: RunResult) -> str:
    """The rows of :func:`frame` as CSV, as pandas writes it, without the time that importing pandas takes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(["" if row[name] is None else row[name] for name in CSV_COLUMNS] for row in _tidy(run))
    return text.getvalue()


def _tidy(run: RunResult) -> list[dict[str, Any]]:
    rows = []
    for case in run.cases:
        for column, result in case.columns.items():
            c = result.versus_method
            rows.append(
                {
                    "family": case.family,
                    "case": case.case,
                    "column": column,
                    "metric": result.metric,
                    "n": result.n,
                    "value": result.value,
                    "difference": c.difference if c else None,
                    "low": c.low if c else None,
                    "high": c.high if c else None,
                    "p": c.p if c else None,
                    "verdict": str(result.verdict) if result.verdict else None,
                    "seconds": result.seconds,
                }
            )
    return rows


def family_table(run: RunResult, family: str) -> str:
    """One family as Markdown: the reference first, then a row per case; a column per benchmark column.

    A cell has the value and, below it, the difference to the reference. Bold is the best value of a column, unless all
    are equal. An arrow marks a difference that is significant after Holm's adjustment over all comparisons in this
    table. The last row is the smallest true drop that the column would find with 80 % power. Narrow enough for
    GitHub's page at ten columns: intervals are in :func:`family_details`.
    """
    shown, columns = family_cases(run, family), family_columns(run, family)
    reference = run.case(run.reference)
    best = best_values(shown)
    arrows = significance(case for case in shown if case is not reference)
    first: dict[str, str] = {}
    rows = []
    for case in shown:
        twin = first.setdefault(case.identity, case.case)
        row = [_name(case, case is reference, twin)]
        for column in columns:
            result = case.columns.get(column)
            if result is None:
                row.append("")
                continue
            arrow = arrows.get((case.case_id, column), "")
            row.append(_cell(result, result.value == best.get(column), arrow, case is reference))
        rows.append(row)
    if drops := detectable_drops(run):
        rows.append(["*detectable drop*", *(f"*{points(drops[c])}*" if c in drops else "" for c in columns)])
    counts = [document_count(shown, column) for column in columns]
    headers = ["case", *(f"{c}<br>{count}" for c, count in zip(columns, counts, strict=True))]
    return markdown(rows, headers)


def family_cases(run: RunResult, family: str) -> tuple[CaseResult, ...]:
    """The rows of a family's table: the reference, if the run has it, then the cases."""
    reference = run.case(run.reference)
    cases = tuple(case for case in run.cases if case.family == family and case.case_id != run.reference)
    return (reference, *cases) if reference else cases


def family_columns(run: RunResult, family: str) -> tuple[str, ...]:
    """The columns of a family's table: those of the run that one of its rows has."""
    shown = family_cases(run, family)
    return tuple(column for column in run.columns if any(column in case.columns for case in shown))


def best_values(cases: Sequence[CaseResult]) -> dict[str, float]:
    """The best value of every column in which the cases are not all equal."""
    values: dict[str, list[float]] = {}
    for case in cases:
        for column, result in case.columns.items():
            values.setdefault(column, []).append(result.value)
    return {column: max(found) for column, found in values.items() if max(found) > min(found)}


def document_count(cases: Iterable[CaseResult], column: str) -> str:
    """How many documents a column has; a range if the cases do not agree."""
    low_to_high = sorted({case.columns[column].n for case in cases if column in case.columns})
    return f"n={low_to_high[0]}" if len(low_to_high) == 1 else f"n={low_to_high[0]} to {low_to_high[-1]}"


def family_details(run: RunResult, family: str) -> str:
    """Every comparison of a family with the reference: interval, p and p after Holm, a row each."""
    found = compared(case for case in run.cases if case.family == family and case.case_id != run.reference)
    adjusted = holm([c.p for _, _, c in found])
    rows = [
        [case.case, column, c.n, points(c.value), difference(c), f"{c.gained}/{c.lost}", p_value(c.p), p_value(p)]
        for (case, column, c), p in zip(found, adjusted, strict=True)
    ]
    headers = ["case", "column", "n", "value", "difference [95 % interval]", "better/worse", "p", "p (Holm)"]
    return markdown(rows, headers)


def compared(cases: Iterable[CaseResult]) -> list[tuple[CaseResult, str, Comparison]]:
    """Every (case, column) that was compared with the reference."""
    return [
        (case, column, result.versus_method)
        for case in cases
        for column, result in case.columns.items()
        if result.versus_method is not None
    ]


def detectable_drops(run: RunResult) -> dict[str, float]:
    """The smallest true drop of each column, as a share of one, that this run finds with 80 % power."""
    by_column: dict[str, list[Comparison]] = {}
    for _, column, c in compared(run.cases):
        by_column.setdefault(column, []).append(c)
    graded = {column: result.graded for case in run.cases for column, result in case.columns.items()}
    drops = {column: column_detectable(found, graded[column]) for column, found in by_column.items()}
    return {column: drop for column, drop in drops.items() if drop is not None}


def significance(cases: Iterable[CaseResult]) -> dict[tuple[str, str], str]:
    """The arrow of every (case id, column) that differs from the reference after Holm over all of them."""
    found = compared(cases)
    adjusted = holm([c.p for _, _, c in found])
    return {
        (case.case_id, column): UP if c.difference > 0 else DOWN
        for (case, column, c), p in zip(found, adjusted, strict=True)
        if p <= ALPHA and c.difference != 0
    }


def key_values(items: Mapping[str, object]) -> str:
    """A two-column table; its first item is the head, since a GitHub table has one in any case."""
    first, *rows = [[name, value] for name, value in items.items()]
    return markdown(rows, [str(cell) for cell in first])


def markdown(rows: Iterable[Iterable[object]], headers: Sequence[str]) -> str:
    """A GitHub table; the only place that turns cells into Markdown, so that every pipe is escaped."""
    from tabulate import tabulate

    escaped = [[_escape(cell) for cell in row] for row in rows]
    return str(tabulate(escaped, [_escape(h) for h in headers], tablefmt="github", disable_numparse=True))


def points(share: float) -> str:
    """A share of one in points, to one decimal."""
    return f"{100 * share:.1f}"


def difference(c: Comparison) -> str:
    """``+1.4 [-0.8, +3.6]``, in points; in a narrow column it breaks before the interval, not inside it."""
    return f"{signed(c.difference)} [{signed(c.low)},{_HARD_SPACE}{signed(c.high)}]"


def p_value(p: float) -> str:
    """Three decimals, or a bound."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(share: float) -> str:
    """``+2.4``: in points, with its sign; a zero has none."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _cell(result: ColumnResult, bold: bool, arrow: str, is_reference: bool) -> str:
    value = f"**{points(result.value)}**" if bold else points(result.value)
    word = str(result.verdict) if result.verdict in (Verdict.FAIL, Verdict.MISSING, Verdict.INCOMPARABLE) else ""
    # An arrow alone on a line would be taken for the difference's.
    first = " ".join(part for part in (f"{value}{_HARD_SPACE}{arrow}" if arrow else value, word) if part)
    if is_reference or result.versus_method is None:
        return first
    return f"{first}<br>{signed(result.versus_method.difference)}"


def _name(case: CaseResult, is_reference: bool, twin: str) -> str:
    """``twin`` is the first row with equal weights: two recipes can come to one plan, and a reader should see it."""
    name = f"{case.case} (reference)" if is_reference else case.case
    same = "" if twin == case.case else f"<br>= {twin}"
    return f"{name}<br>`{case.drawing}`{same}"


def _escape(cell: object) -> str:
    return re.sub(r"[ \t\r\n]+", " ", str(cell)).replace("|", "\\|")
