"""The report's sections after the families' tables, each as Markdown, or empty where a run has nothing for it."""

from __future__ import annotations

from harness.gating.corpus import CorpusComparison
from harness.reporting.content import (
    CASE_HEADERS,
    COST_HEADERS,
    METHOD_NOTES,
    case_costs,
    case_rows,
    cost_rows,
    findings,
    provenance,
)
from harness.reporting.contrasts import contrast_table, contrasts
from harness.reporting.figures import shown
from harness.reporting.findings import exploratory_table, movers, pareto_table
from harness.reporting.results import RunResult
from harness.reporting.tables import key_values, markdown, p_value, points


def folded(title: str, text: str) -> str:
    """Markdown that opens at a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def does_swapping_pay_section(run: RunResult) -> str:
    """The un-ablated method against what it could be replaced by; empty if the run has none of it."""
    rows = contrasts(run)
    if not rows:
        return ""
    return (
        "## Does swapping pay?\n\n"
        f"The default swap (`{run.reference}`) against the models it could be replaced by, on the same problems.\n\n"
        f"{contrast_table(rows)}\n\n" + "\n".join(f"- {sentence}" for sentence in findings(rows)) + _corpus(run)
    )


def _corpus(run: RunResult) -> str:
    rows = [[row.column, row.label, *_corpus_cells(row.comparison)] for row in run.corpus]
    if not rows:
        return ""
    headers = ["column", "against", "metric", "swap", "other", "difference [95 % interval]", "p"]
    return "\n\n" + folded("Metrics of whole corpora, by paired bootstrap over documents", markdown(rows, headers))


def _corpus_cells(c: CorpusComparison) -> list[str]:
    interval = f"[{c.low:+.1f},\u00a0{c.high:+.1f}]"
    return [c.metric, f"{c.value:.1f}", f"{c.baseline:.1f}", f"{c.difference:+.1f} {interval}", p_value(c.p)]


def pareto_section(run: RunResult) -> str:
    """The Pareto set; empty if the run lacks one of the aims."""
    table = pareto_table(run)
    if not table:
        return ""
    return (
        "## What nothing beats\n\nCases than which no other is at least as good on all three aims and better on one; "
        f"by estimate, whatever the noise.\n\n{table}\n\n{shown(run, 'pareto')}"
    )


def averages_section(run: RunResult) -> str:
    """Every case's mean and best over languages or pairs of experts; empty if the run averages nothing."""
    averaged = {name: columns for name, columns in run.averages.items() if name in run.columns}
    if not averaged:
        return ""
    rows = []
    for case in run.cases:
        cells = [case.case_id]
        for name, columns in averaged.items():
            values = {column: case.columns[column].value for column in columns if column in case.columns}
            mean = case.columns.get(name)
            if mean is None or not values:
                cells += ["", ""]
                continue
            best = max(values, key=values.__getitem__)
            cells += [points(mean.value), f"{points(values[best])} ({best.partition(' ')[2]})"]
        rows.append(cells)
    headers = ["case", *(text for name in averaged for text in (name, "best"))]
    made = "; ".join(f"`{name}` is of {', '.join(f'`{c}`' for c in columns)}" for name, columns in averaged.items())
    return (
        f"## Over languages and pairs of experts\n\nMean over documents, and the best column: {made}.\n\n"
        + markdown(rows, headers)
    )


def exploratory_section(run: RunResult) -> str:
    """All comparisons of the run, the strongest first."""
    table, found, total = exploratory_table(run)
    if not table:
        return ""
    title = f"The {table.count(chr(10)) - 1} strongest differences of the whole run"
    said = f"Of {total} comparisons of distinct variants with the un-ablated method, {found} have"
    return f"## Where to look first\n\n{said} a Benjamini-Hochberg q of at most 5 %.\n\n{folded(title, table)}"


def moved_section(run: RunResult) -> str:
    """How far each expert moved from the base."""
    sentences = movers(run)
    if not sentences:
        return ""
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    picture = shown(run, "changes")
    said = (
        "The change of each expert's weights against the base, by layer and kind of module; in words relative to the "
        "base's, by Euclidean norms. It says where the tuning acted, not what it is good for."
    )
    return "\n\n".join(part for part in ("## How far the experts moved", said, picture, listed) if part)


def cost_section(run: RunResult) -> str:
    """Seconds by stage, and what each case took."""
    if not run.seconds:
        return ""
    stages, cases = markdown(cost_rows(run), ["stage", "seconds"]), markdown(case_costs(run), COST_HEADERS)
    return f"## Cost\n\n{stages}\n\n{folded('By case', cases)}"


def cases_section(run: RunResult) -> str:
    """What each case is."""
    rows = case_rows(run)
    return "## Cases\n\n" + folded(f"Recipes and digests of all {len(rows)} cases", markdown(rows, CASE_HEADERS))


def provenance_section(run: RunResult) -> str:
    """Where the weights and the run came from."""
    rows = provenance(run)
    return "## Provenance\n\n" + key_values(rows) if rows else ""


def method_notes_section() -> str:
    """How the numbers were made."""
    return f"## How to read the numbers\n\n{METHOD_NOTES}"
