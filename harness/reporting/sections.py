"""The report's sections after the families' tables, each as Markdown, or empty where a run has nothing for it."""

from __future__ import annotations

from harness.gating.statistics import RESAMPLES
from harness.reporting.findings import exploratory_table, movers, pareto_table
from harness.reporting.results import RunResult
from harness.reporting.tables import Contrast, contrast_table, contrasts, key_values, markdown, points


def folded(title: str, text: str) -> str:
    """Markdown that opens at a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def does_swapping_pay_section(run: RunResult) -> str:
    """The un-ablated method against what it could be replaced by; empty if the run has none of it."""
    rows = contrasts(run)
    if not rows:
        return ""
    sentences = [_finding(column, rows) for column in dict.fromkeys(row.column for row in rows)]
    return (
        "## Does swapping pay?\n\n"
        f"The default swap (`{run.reference}`) against the models it could be replaced by, on the same problems.\n\n"
        f"{contrast_table(rows)}\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)
    )


def _finding(column: str, rows: tuple[Contrast, ...]) -> str:
    mine = [row for row in rows if row.column == column]
    groups = {word: [row.label for row in mine if row.finding == word] for word in ("above", "below", "not told apart")}
    parts = [
        f"significantly above {', '.join(groups['above']) or 'none'}",
        f"significantly below {', '.join(groups['below']) or 'none'}",
        f"not told apart from {', '.join(groups['not told apart']) or 'none'}",
    ]
    return f"`{column}`: the swap ({points(mine[0].comparison.value)} points) is {'; '.join(parts)}."


def pareto_section(run: RunResult) -> str:
    """The Pareto set; empty if the run lacks one of the aims."""
    table = pareto_table(run)
    if not table:
        return ""
    return (
        "## What nothing beats\n\nCases than which no other is at least as good on all three aims and better on one; "
        f"by estimate, whatever the noise.\n\n{table}"
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
    return f"## How far the experts moved\n\nChange relative to the base's weights (Euclidean norms).\n\n{listed}"


def cost_section(run: RunResult) -> str:
    """Seconds by stage, and what each case took."""
    if not run.seconds:
        return ""
    rows = [[stage, f"{seconds:.1f}"] for stage, seconds in run.seconds.items()]
    stages = markdown([*rows, ["all", f"{sum(run.seconds.values()):.1f}"]], ["stage", "seconds"])
    first: dict[str, str] = {}
    costs = []
    for case in run.cases:
        twin = first.setdefault(case.identity, case.case_id)
        seconds = sum(result.seconds for result in case.columns.values())
        merge, evaluate, peak = f"{case.merge_seconds:.2f}", f"{seconds:.1f}", f"{case.peak_bytes / 2**20:.0f}"
        costs.append([case.case_id, *((merge, evaluate, peak, "") if twin == case.case_id else ("", "", "", twin))])
    table = markdown(costs, ["case", "merge, s", "evaluate, s", "peak memory, MiB", "weights and scores of"])
    return f"## Cost\n\n{stages}\n\n{folded('By case', table)}"


def cases_section(run: RunResult) -> str:
    """What each case is."""
    rows = [[case.case_id, case.title, f"`{case.recipe_text}`", f"`{case.identity[:12]}`"] for case in run.cases]
    table = markdown(rows, ["case", "what it is", "recipe", "weights"])
    return "## Cases\n\n" + folded(f"Recipes and digests of all {len(rows)} cases", table)


def provenance_section(run: RunResult) -> str:
    """Where the weights and the run came from."""
    rows = {f"weights of {name}": f"`{digest}`" for name, digest in run.experts.items()} | dict(run.provenance)
    return "## Provenance\n\n" + key_values(rows) if rows else ""


def method_notes_section() -> str:
    """How the numbers were made."""
    return (
        "## How to read the numbers\n\n"
        "- All comparisons are paired: the same documents, matched by the digest of their content.\n"
        "- Right/wrong metrics: two-sided exact McNemar test; Tango's score interval for the paired difference "
        "(Statistics in Medicine 17, 1998).\n"
        f"- Graded metrics: sign-flip permutation test and paired bootstrap percentile interval over documents "
        f"({RESAMPLES} resamples, fixed seed).\n"
        "- Intervals are at 95 % each and are not adjusted; p-values are adjusted by Holm's method over one table. An "
        "interval can therefore exclude 0 without an arrow. q-values are Benjamini's and Hochberg's, over the run.\n"
        "- The detectable drop is the smallest true loss that the test at 5 % finds with 80 % power at this n and the "
        "median discordance of the column's comparisons.\n"
        "- One set of experts is one sample: the intervals cover the choice of documents, not another training run.\n"
        "- Floors are decided on unrounded intervals; an INCONCLUSIVE floor had too few documents to tell."
    )
