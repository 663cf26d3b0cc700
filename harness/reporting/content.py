"""What a run has to say, as rows and sentences: the Markdown report and the page say the same. Code is in backticks."""

from __future__ import annotations

from collections import Counter

from harness.gating.floors import Verdict
from harness.gating.statistics import RESAMPLES
from harness.reporting.results import RunResult
from harness.reporting.tables import DOWN, UP, Contrast, points

_WORDS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.NEW: "new",
    Verdict.MISSING: "missing",
    Verdict.INCOMPARABLE: "incomparable",
}
MARKS = {
    "L": "language expert",
    "M": "math expert",
    "T": "weighted average",
    "B": "base",
    "*": "another operation",
}
UNMET_HEADERS = ("verdict", "case", "column", "because")
CASE_HEADERS = ("case", "what it is", "recipe", "weights", "seconds")
METHOD_NOTES = (
    "- All comparisons are paired: the same documents, matched by the digest of their content.\n"
    "- Right/wrong metrics: two-sided exact McNemar test; Tango's score interval for the paired difference "
    "(Statistics in Medicine 17, 1998).\n"
    f"- Graded metrics: sign-flip permutation test and paired bootstrap percentile interval over documents "
    f"({RESAMPLES} resamples, fixed seed).\n"
    "- Intervals are at 95 % each and are not adjusted; p-values are adjusted by Holm's method over one table. An "
    "interval can therefore exclude 0 without an arrow.\n"
    "- One set of experts is one sample: the intervals cover the choice of documents, not another training run.\n"
    "- Floors are decided on unrounded intervals; an INCONCLUSIVE floor had too few documents to tell."
)


def verdict_line(run: RunResult) -> str:
    """``112 passed, 1 failed, 3 inconclusive: 116 floors in 35 cases``; passed and failed are always named."""
    held = [(case.case_id, r.verdict) for case in run.cases for r in case.columns.values() if r.verdict]
    counts, cases = Counter(verdict for _, verdict in held), {case_id for case_id, _ in held}
    always = (Verdict.PASS, Verdict.FAIL)
    named = [f"{counts[v]} {word}" for v, word in _WORDS.items() if counts[v] or v in always]
    return f"{', '.join(named)}: {_several(len(held), 'floor')} in {_several(len(cases), 'case')}"


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def header(run: RunResult) -> dict[str, str]:
    """What stands above the tables, as name to Markdown."""
    documents = sum(result.n for case in run.cases for result in case.columns.values())
    rows = {
        "run": run.name,
        "profile": run.profile,
        "experts": ", ".join(f"{name} `{digest[:12]}`" for name, digest in run.experts.items()),
        **run.header,
        "versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "counts": f"{len(run.cases)} cases, {len(run.columns)} columns, {documents} scored documents",
        "seconds": f"{sum(run.seconds.values()):.0f}",
    }
    return {name: value for name, value in rows.items() if value}


def unmet(run: RunResult) -> list[list[str]]:
    """Verdict, case, column and reason of every floor that was not met, the worst first."""
    told = (Verdict.FAIL, Verdict.MISSING, Verdict.INCOMPARABLE, Verdict.INCONCLUSIVE)
    return [
        [str(verdict), case.case_id, column, result.reason]
        for verdict in told
        for case in run.cases
        for column, result in case.columns.items()
        if result.verdict is verdict
    ]


def reading(run: RunResult) -> str:
    """What value, difference, bold and arrows mean."""
    return (
        "Values are in points (0 to 100, higher is better), averaged over documents. Below each value: the difference "
        f"to the un-ablated method (`{run.reference}`) with its 95 % interval, on the same documents. **Bold**: best "
        f"of the column. {UP} and {DOWN}: significantly above and below the method at 5 %, after Holm over the table."
    )


def marks(run: RunResult) -> dict[str, str]:
    """What the letters of the layer maps stand for, of those that the run has."""
    found = {mark for case in run.cases for mark in case.drawing if mark != "|"}
    known = {mark: name for mark, name in MARKS.items() if mark in found}
    return known | dict.fromkeys(sorted(found - known.keys()), "a further expert")


def legend(run: RunResult) -> str:
    """How to read a family's table, as Markdown."""
    drawn = ", ".join(f"`{mark}` {name}" for mark, name in sorted(marks(run).items()))
    return (
        f"{reading(run)} FAIL, MISSING and INCOMPARABLE: the floor's verdict.\n\n"
        f"Drawings read embeddings, layers from the bottom up, then final norm and output head: {drawn}."
    )


def findings(rows: tuple[Contrast, ...]) -> list[str]:
    """A sentence a column: what the swap is above, below, and not told apart from."""
    return [_finding(column, rows) for column in dict.fromkeys(row.column for row in rows)]


def _finding(column: str, rows: tuple[Contrast, ...]) -> str:
    mine = [row for row in rows if row.column == column]
    groups = {word: [row.label for row in mine if row.finding == word] for word in ("above", "below", "not told apart")}
    parts = [
        f"significantly above {', '.join(groups['above']) or 'none'}",
        f"significantly below {', '.join(groups['below']) or 'none'}",
        f"not told apart from {', '.join(groups['not told apart']) or 'none'}",
    ]
    return f"`{column}`: the swap ({points(mine[0].comparison.value)} points) is {'; '.join(parts)}."


def cost_rows(run: RunResult) -> list[list[str]]:
    """Seconds by stage, and all of them."""
    rows = [[stage, f"{seconds:.1f}"] for stage, seconds in run.seconds.items()]
    return [*rows, ["all", f"{sum(run.seconds.values()):.1f}"]]


def case_rows(run: RunResult) -> list[list[str]]:
    """The cells of the table of cases, as Markdown."""
    return [
        [
            case.case_id,
            case.title,
            f"`{case.recipe_text}`",
            f"`{case.identity[:12]}`",
            f"{sum(result.seconds for result in case.columns.values()):.1f}",
        ]
        for case in run.cases
    ]


def provenance(run: RunResult) -> dict[str, str]:
    """What stands below the tables, as name to Markdown."""
    return {f"weights of {name}": f"`{digest}`" for name, digest in run.experts.items()} | dict(run.provenance)
