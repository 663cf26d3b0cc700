"""Does swapping pay? The un-ablated method held against each model that it could be replaced by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.gating.adjust import holm
from harness.gating.statistics import Comparison
from harness.reporting.results import RunResult
from harness.reporting.tables import ALPHA, difference, markdown, p_value, points


@dataclass(frozen=True)
class Contrast:
    """The method against another model on one column; ``p_holm`` is adjusted over all contrasts of the run."""

    column: str
    label: str
    comparison: Comparison
    p_holm: float

    @property
    def finding(self) -> str:
        """``above``, ``below`` or ``not told apart``, at 5 % after Holm."""
        if self.p_holm > ALPHA or self.comparison.difference == 0:
            return "not told apart"
        return "above" if self.comparison.difference > 0 else "below"


def contrasts(run: RunResult, benchmark: str = "mgsm") -> tuple[Contrast, ...]:
    """The reference held against each of ``run.comparators`` on every column of ``benchmark``."""
    found = []
    for column in run.columns:
        if column.split()[:1] != [benchmark]:
            continue
        for label, case_id in run.comparators.items():
            case = run.case(case_id)
            result = case.columns.get(column) if case else None
            if result is not None and result.versus_method is not None:
                found.append((column, label, result.versus_method.reversed))
    adjusted = holm([c.p for _, _, c in found])
    return tuple(Contrast(*entry, p) for entry, p in zip(found, adjusted, strict=True))


CONTRAST_HEADERS = (
    "column",
    "against",
    "n",
    "swap",
    "other",
    "difference [95 % interval]",
    "p",
    "p (Holm)",
    "the swap is",
)


def contrast_table(rows: Sequence[Contrast]) -> str:
    """The contrasts as Markdown, in points."""
    return markdown(contrast_rows(rows), CONTRAST_HEADERS)


def contrast_rows(rows: Sequence[Contrast]) -> list[list[str]]:
    """The cells of :func:`contrast_table`."""
    return [
        [
            row.column,
            row.label,
            str(row.comparison.n),
            points(row.comparison.value),
            points(row.comparison.baseline),
            difference(row.comparison),
            p_value(row.comparison.p),
            p_value(row.p_holm),
            row.finding,
        ]
        for row in rows
    ]
