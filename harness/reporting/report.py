"""The report of a run: ``report.md`` and ``results.json`` in its folder, and ``latest`` beside it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from harness.errors import LayerswapError
from harness.files import replace_text
from harness.gating.floors import Verdict
from harness.gating.statistics import RESAMPLES
from harness.reporting.results import RunResult
from harness.reporting.tables import (
    DOWN,
    UP,
    Contrast,
    contrast_table,
    contrasts,
    family_table,
    key_values,
    markdown,
    points,
)

_WORDS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.NEW: "new",
    Verdict.MISSING: "missing",
    Verdict.INCOMPARABLE: "incomparable",
}


def render_report(run: RunResult) -> str:
    """The whole report as Markdown that GitHub renders."""
    families = [f"### {family}\n\n{family_table(run, family)}" for family in run.families]
    parts = [
        f"# Ablations of layer swapping: {run.profile}",
        f"**{verdict_line(run)}**",
        _header(run),
        _unmet(run),
        "## Families",
        _legend(run),
        *families,
        _does_swapping_pay(run),
        _cost(run),
        _cases(run),
        _provenance(run),
        _method_notes(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(run: RunResult, folder: Path) -> Path:
    """Write ``report.md`` and ``results.json`` into ``folder``, point ``latest`` beside it there; returns the report.

    ``latest`` is a relative symbolic link, or a text file with the folder's name where links cannot be made. Raises
    :class:`LayerswapError` if the folder cannot be written, a number is not finite, or ``latest`` is a folder.
    """
    try:
        data = json.dumps(run.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        replace_text(folder / "results.json", data + "\n")
        replace_text(folder / "report.md", render_report(run))
    except (OSError, ValueError) as error:
        raise LayerswapError(f"{folder}: the report cannot be written: {error}") from error
    if folder.name != "latest":
        _point_to(folder.parent / "latest", folder.name)
    return folder / "report.md"


def read_results(folder: Path) -> RunResult:
    """The run whose ``results.json`` is in ``folder``; raises :class:`LayerswapError` if it cannot be read."""
    path = folder / "results.json"
    try:
        return RunResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise LayerswapError(f"{path}: cannot be read: {error}") from error
    except LayerswapError as error:
        raise LayerswapError(f"{path}: {error}") from error


def verdict_line(run: RunResult) -> str:
    """``112 passed, 1 failed, 3 inconclusive: 116 floors in 35 cases``; passed and failed are always named."""
    held = [(case.case_id, r.verdict) for case in run.cases for r in case.columns.values() if r.verdict]
    counts, cases = Counter(verdict for _, verdict in held), {case_id for case_id, _ in held}
    always = (Verdict.PASS, Verdict.FAIL)
    named = [f"{counts[v]} {word}" for v, word in _WORDS.items() if counts[v] or v in always]
    return f"{', '.join(named)}: {_several(len(held), 'floor')} in {_several(len(cases), 'case')}"


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _header(run: RunResult) -> str:
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
    return key_values({name: value for name, value in rows.items() if value})


def _unmet(run: RunResult) -> str:
    told = (Verdict.FAIL, Verdict.MISSING, Verdict.INCOMPARABLE, Verdict.INCONCLUSIVE)
    rows = [
        [str(verdict), case.case_id, column, result.reason]
        for verdict in told
        for case in run.cases
        for column, result in case.columns.items()
        if result.verdict is verdict
    ]
    if not rows:
        return ""
    return "## Floors that were not met\n\n" + markdown(rows, ["verdict", "case", "column", "because"])


def _legend(run: RunResult) -> str:
    marks = sorted({mark for case in run.cases for mark in case.drawing if mark.isalpha() or mark == "*"})
    names = {"L": "language expert", "M": "math expert", "B": "base", "T": "weighted average", "*": "another operation"}
    drawn = ", ".join(f"`{mark}` {names.get(mark, 'a further expert')}" for mark in marks)
    return (
        "Values are in points (0 to 100, higher is better), averaged over documents. Below each value: the difference "
        f"to the un-ablated method (`{run.reference}`) with its 95 % interval, on the same documents. **Bold**: best "
        f"of the column. {UP} and {DOWN}: significantly above and below the method at 5 %, after Holm over the table. "
        "FAIL, MISSING and INCOMPARABLE: the floor's verdict.\n\n"
        f"Drawings read embeddings, layers from the bottom up, then final norm and output head: {drawn}."
    )


def _does_swapping_pay(run: RunResult) -> str:
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


def _cost(run: RunResult) -> str:
    if not run.seconds:
        return ""
    rows = [[stage, f"{seconds:.1f}"] for stage, seconds in run.seconds.items()]
    return "## Cost\n\n" + markdown([*rows, ["all", f"{sum(run.seconds.values()):.1f}"]], ["stage", "seconds"])


def _cases(run: RunResult) -> str:
    rows = [
        [
            case.case_id,
            case.title,
            f"`{case.recipe_text}`",
            f"`{case.identity[:12]}`",
            f"{sum(result.seconds for result in case.columns.values()):.1f}",
        ]
        for case in run.cases
    ]
    table = markdown(rows, ["case", "what it is", "recipe", "weights", "seconds"])
    return (
        f"## Cases\n\n<details><summary>Recipes and digests of all {len(rows)} cases</summary>\n\n{table}\n\n</details>"
    )


def _provenance(run: RunResult) -> str:
    rows = {f"weights of {name}": f"`{digest}`" for name, digest in run.experts.items()} | dict(run.provenance)
    return "## Provenance\n\n" + key_values(rows) if rows else ""


def _method_notes() -> str:
    return (
        "## How to read the numbers\n\n"
        "- All comparisons are paired: the same documents, matched by the digest of their content.\n"
        "- Right/wrong metrics: two-sided exact McNemar test; Tango's score interval for the paired difference "
        "(Statistics in Medicine 17, 1998).\n"
        f"- Graded metrics: sign-flip permutation test and studentised paired bootstrap interval over documents "
        f"({RESAMPLES} resamples, fixed seed).\n"
        "- Intervals are at 95 % each and are not adjusted; p-values are adjusted by Holm's method over one table. An "
        "interval can therefore exclude 0 without an arrow.\n"
        "- One set of experts is one sample: the intervals cover the choice of documents, not another training run.\n"
        "- Floors are decided on unrounded intervals; an INCONCLUSIVE floor had too few documents to tell."
    )


def _point_to(latest: Path, name: str) -> None:
    if latest.is_dir() and not latest.is_symlink():
        raise LayerswapError(f"{latest}: is a folder, expected a link to the latest report: move it away")
    temporary = latest.with_name(f".{latest.name}.{name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(name, target_is_directory=True)
        temporary.replace(latest)
    except (OSError, NotImplementedError):
        replace_text(latest, name + "\n")
    finally:
        temporary.unlink(missing_ok=True)
