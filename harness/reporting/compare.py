"""Two saved runs held against each other, outside pytest: the statistics and the verdicts of the suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import LayerswapError
from harness.gating.adjust import holm
from harness.gating.baselines import Baselines, load_baselines
from harness.gating.floors import Floor, Verdict
from harness.gating.statistics import Comparison
from harness.reporting.tables import difference, markdown, p_value, points

SCORES = "scores.json"
BROKEN = (Verdict.FAIL, Verdict.MISSING, Verdict.INCOMPARABLE)


@dataclass(frozen=True)
class Row:
    """One case on one column in both runs; ``p_holm`` is adjusted over the case's family."""

    case: str
    column: str
    verdict: Verdict
    reason: str
    comparison: Comparison | None = None
    p_holm: float | None = None


def load_saved(place: str, baselines: Path = Path("ablations/baselines")) -> Baselines:
    """The scores of a report's folder, of a file of accepted results, or of accepted results by name.

    Raises :class:`LayerswapError` if there are none.
    """
    path = Path(place)
    named = baselines / f"{place}.json"
    if path.is_dir():
        if not (path / SCORES).is_file():
            raise LayerswapError(f"{path}: no {SCORES} in it: expected the folder of a report, such as reports/latest")
        return load_baselines(path / SCORES)
    if path.is_file():
        return load_baselines(path)
    if named.is_file():
        return load_baselines(named)
    raise LayerswapError(
        f"{place}: no such run: expected a report's folder, a file of accepted results, or a name with {named}"
    )


def compare_runs(before: Baselines, after: Baselines, floor: Floor) -> tuple[Row, ...]:
    """Every case and column of either run, ``after`` held to ``before``: MISSING is in ``before`` alone, NEW in
    ``after`` alone."""
    keys = {(case, column) for run in (before, after) for case, columns in run.scores.items() for column in columns}
    rows = []
    for case, column in sorted(keys):
        outcome = floor.verdict(after.get(case, column), before.get(case, column))
        rows.append(Row(case, column, outcome.verdict, outcome.reason, outcome.comparison))
    return _adjusted(rows)


def _adjusted(rows: Sequence[Row]) -> tuple[Row, ...]:
    families: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.comparison is not None:
            families.setdefault(row.case.partition("/")[0], []).append(i)
    found = list(rows)
    for places in families.values():
        adjusted = holm([c.p for i in places if (c := rows[i].comparison) is not None])
        for i, p in zip(places, adjusted, strict=True):
            found[i] = replace(rows[i], p_holm=p)
    return tuple(found)


def render_comparison(rows: Sequence[Row], floor: Floor, everything: bool = False) -> str:
    """Markdown: a line of verdicts, then what differs (or ``everything``), broken floors first."""
    counts = Counter(row.verdict for row in rows)
    named = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]) or "nothing to compare"
    same = [row for row in rows if row.comparison is not None and row.comparison.identical]
    rank = {verdict: i for i, verdict in enumerate((*BROKEN, Verdict.INCONCLUSIVE, Verdict.NEW, Verdict.PASS))}
    shown = sorted((row for row in rows if everything or row not in same), key=lambda row: rank[row.verdict])
    parts = [f"**{named}** (floor: {floor.text}; {len(same)} of {len(rows)} equal on every document)"]
    if shown:
        headers = ["verdict", "case", "column", "n", "before", "after", "difference [95 % interval]", "p", "p (Holm)"]
        parts.append(markdown([_cells(row) for row in shown], headers))
    parts += [f"- {row.case} on {row.column}: {row.reason}" for row in shown if row.verdict in BROKEN]
    return "\n\n".join(parts[:2]) + "".join(f"\n{line}" for line in ["", *parts[2:]] if len(parts) > 2) + "\n"


def _cells(row: Row) -> list[object]:
    c = row.comparison
    if c is None:
        return [row.verdict, row.case, row.column, "", "", "", "", "", ""]
    p_holm = "" if row.p_holm is None else p_value(row.p_holm)
    values = [c.n, points(c.baseline), points(c.value), difference(c), p_value(c.p), p_holm]
    return [row.verdict, row.case, row.column, *values]
