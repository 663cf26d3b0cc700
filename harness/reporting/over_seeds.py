"""Runs of the same suite on several training seeds of the experts, joined: one pair of experts is one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from harness.errors import LayerswapError
from harness.gating.baselines import Baselines
from harness.gating.pairing import IncomparableError, pair
from harness.gating.seeds import hierarchical
from harness.reporting.tables import markdown, points, signed


@dataclass(frozen=True)
class SeedRow:
    """One case on one column: its value in each run, and its lead over the reference, all as shares of one.

    ``low`` to ``high`` is the lead's 95 % interval over runs drawn anew and, in each, documents drawn anew; the lead is
    None for the reference itself.
    """

    case: str
    column: str
    values: tuple[float, ...]
    lead: float | None = None
    low: float | None = None
    high: float | None = None


def over_seeds(runs: Sequence[Baselines], column: str, reference: str) -> tuple[SeedRow, ...]:
    """Every case that all ``runs`` have on ``column``, the reference first.

    Raises :class:`LayerswapError` for fewer than two runs, runs without the reference, and scores that cannot be
    compared.
    """
    if len(runs) < 2:
        raise LayerswapError(f"{len(runs)} run: expected two or more, one for every seed")
    shared = set.intersection(*({c for c in run.scores if run.get(c, column)} for run in runs))
    if reference not in shared:
        raise LayerswapError(f"not every run has {reference} on {column!r}: run the suite whole on every seed")
    rows = []
    for case in sorted(shared, key=lambda name: (name != reference, name)):
        pairs = [(run.get(case, column), run.get(reference, column)) for run in runs]
        scores = [(score, method) for score, method in pairs if score is not None and method is not None]
        values = tuple(score.value for score, _ in scores)
        if case == reference:
            rows.append(SeedRow(case, column, values))
            continue
        try:
            paired = [pair(score, method) for score, method in scores]
        except IncomparableError as error:
            raise LayerswapError(f"{case}: {error}") from error
        differences = [[d / p.scale for d in p.differences] for p in paired]
        low, high = hierarchical(differences)
        rows.append(SeedRow(case, column, values, fmean(fmean(run) for run in differences), low, high))
    return tuple(rows)


def seeds_table(rows: Sequence[SeedRow]) -> str:
    """Markdown, in points: mean and standard deviation over runs, each run's value, and the lead with its interval."""
    cells = [
        [
            row.case,
            points(fmean(row.values)),
            points(stdev(row.values)),
            ", ".join(points(value) for value in row.values),
            "" if row.lead is None else signed(row.lead),
            "" if row.low is None or row.high is None else f"[{signed(row.low)}, {signed(row.high)}]",
        ]
        for row in rows
    ]
    headers = ["case", "mean", "sd", "each run", "to the reference", "95 % interval over seeds and documents"]
    return markdown(cells, headers)
