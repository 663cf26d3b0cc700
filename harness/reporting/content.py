"""What a run has to say, as rows and sentences: the Markdown report and the page say the same. Code is in backticks."""

from __future__ import annotations

from collections import Counter

from harness.gating.floors import Verdict
from harness.gating.resampling import RESAMPLES
from harness.reporting.contrasts import Contrast
from harness.reporting.findings import drop_sentence, several
from harness.reporting.results import RunResult
from harness.reporting.tables import DOWN, UP, detectable_drops, points

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
CASE_HEADERS = ("case", "what it is", "recipe", "weights")
COST_HEADERS = ("case", "merge, s", "evaluate, s", "peak memory, MiB", "weights and scores of")
METHOD_NOTES = (
    "- All comparisons are paired: the same documents, matched by the digest of their content.\n"
    "- Right/wrong metrics: two-sided exact McNemar test; Tango's score interval for the paired difference "
    "(Statistics in Medicine 17, 1998).\n"
    f"- Graded metrics: sign-flip permutation test and studentised paired bootstrap interval over documents "
    f"({RESAMPLES} resamples, fixed seed).\n"
    "- Intervals are at 95 % each and are not adjusted; p-values are adjusted by Holm's method over one table. An "
    "interval can therefore exclude 0 without an arrow. q-values are Benjamini's and Hochberg's, over the run.\n"
    "- The detectable drop is the smallest true loss that the test at 5 % finds with 80 % power at this n and the "
    "median discordance of the column's comparisons.\n"
    "- One set of experts is one sample: the intervals cover the choice of documents, not another training run.\n"
    "- Floors are decided on unrounded intervals; an INCONCLUSIVE floor had too few documents to tell."
)


def verdict_line(run: RunResult) -> str:
    """``112 passed, 1 failed, 3 inconclusive: 116 floors in 35 cases``; passed and failed are always named."""
    held = [(case.case_id, r.verdict) for case in run.cases for r in case.columns.values() if r.verdict]
    counts, cases = Counter(verdict for _, verdict in held), {case_id for case_id, _ in held}
    always = (Verdict.PASS, Verdict.FAIL)
    named = [f"{counts[v]} {word}" for v, word in _WORDS.items() if counts[v] or v in always]
    incomplete = f" (incomplete: {run.header['incomplete']})" if "incomplete" in run.header else ""
    return f"{', '.join(named)}: {several(len(held), 'floor')} in {several(len(cases), 'case')}{incomplete}"


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


def reading(run: RunResult, intervals: bool = True) -> str:
    """What value, difference, bold and arrows mean; ``intervals``: whether the cells have them."""
    return (
        "Values are in points (0 to 100, higher is better), averaged over documents. Below each value: the difference "
        f"to the un-ablated method (`{run.reference}`){' with its 95 % interval' * intervals}, on the same documents. "
        f"**Bold**: best of the column. {UP} and {DOWN}: significantly above and below the method at 5 %, after Holm "
        f"over the table. {drop_sentence(detectable_drops(run))}".rstrip()
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
        f"{reading(run, intervals=False)} FAIL, MISSING and INCOMPARABLE: the floor's verdict.\n\n"
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
    return [[case.case_id, case.title, f"`{case.recipe_text}`", f"`{case.identity[:12]}`"] for case in run.cases]


def case_costs(run: RunResult) -> list[list[str]]:
    """What each case took; one whose weights an earlier case has names that one, which was paid for instead."""
    first: dict[str, str] = {}
    costs = []
    for case in run.cases:
        twin = first.setdefault(case.identity, case.case_id)
        seconds = sum(result.seconds for result in case.columns.values())
        merge, evaluate, peak = f"{case.merge_seconds:.2f}", f"{seconds:.1f}", f"{case.peak_bytes / 2**20:.0f}"
        costs.append([case.case_id, *((merge, evaluate, peak, "") if twin == case.case_id else ("", "", "", twin))])
    return costs


def provenance(run: RunResult) -> dict[str, str]:
    """What stands below the tables, as name to Markdown."""
    return {f"weights of {name}": f"`{digest}`" for name, digest in run.experts.items()} | dict(run.provenance)
