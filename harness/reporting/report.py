"""The report of a run: ``report.md`` and ``results.json`` in its folder, and ``latest`` beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.errors import LayerswapError
from harness.files import replace_text
from harness.gating.floors import Verdict
from harness.reporting.findings import bought, drop_sentence
from harness.reporting.results import RunResult
from harness.reporting.samples import ColumnSamples, write_samples
from harness.reporting.sections import (
    cases_section,
    cost_section,
    does_swapping_pay_section,
    exploratory_section,
    folded,
    method_notes_section,
    moved_section,
    pareto_section,
    provenance_section,
)
from harness.reporting.tables import (
    DOWN,
    UP,
    detectable_drops,
    family_details,
    family_table,
    frame,
    key_values,
    markdown,
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
    families = [_family(run, family) for family in run.families]
    parts = [
        f"# Ablations of layer swapping: {run.profile}",
        f"**{verdict_line(run)}**",
        _header(run),
        _unmet(run),
        "## Families",
        _legend(run),
        *families,
        does_swapping_pay_section(run),
        pareto_section(run),
        exploratory_section(run),
        moved_section(run),
        cost_section(run),
        cases_section(run),
        provenance_section(run),
        method_notes_section(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_summary(run: RunResult, families: bool = True) -> str:
    """The short report: verdicts, floors that were not met, does swapping pay, and folded the families' tables."""
    tables = "\n\n".join(folded(family, family_table(run, family)) for family in run.families) if families else ""
    parts = [
        f"## Ablations of layer swapping: {run.profile}",
        f"**{verdict_line(run)}**",
        _unmet(run),
        does_swapping_pay_section(run),
        tables and f"{_legend(run)}\n\n{tables}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(run: RunResult, folder: Path, samples: Sequence[ColumnSamples] = ()) -> Path:
    """Write ``report.md`` and ``results.json`` into ``folder``, point ``latest`` beside it there; returns the report.

    ``latest`` is a relative symbolic link, or a text file with the folder's name where links cannot be made. Raises
    :class:`LayerswapError` if the folder cannot be written, a number is not finite, or ``latest`` is a folder.
    """
    try:
        data = json.dumps(run.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        replace_text(folder / "results.json", data + "\n")
        replace_text(folder / "report.md", render_report(run))
        replace_text(folder / "results.csv", frame(run).to_csv(index=False, lineterminator="\n"))
        if samples:
            write_samples(samples, folder / "samples.jsonl.gz")
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
    incomplete = f" (incomplete: {run.header['incomplete']})" if "incomplete" in run.header else ""
    return f"{', '.join(named)}: {_several(len(held), 'floor')} in {_several(len(cases), 'case')}{incomplete}"


def _family(run: RunResult, family: str) -> str:
    details = family_details(run, family)
    parts = [f"### {family}", bought(run, family), family_table(run, family)]
    if details:
        parts.append(folded(f"{family}: every interval and p-value", details))
    return "\n\n".join(part for part in parts if part)


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
        f"to the un-ablated method (`{run.reference}`) on the same documents. **Bold**: best of the column. {UP} and "
        f"{DOWN}: significantly above and below the method at 5 %, after Holm over the table. FAIL, MISSING and "
        f"INCOMPARABLE: the floor's verdict. {drop_sentence(detectable_drops(run))}\n\n"
        f"Drawings read embeddings, layers from the bottom up, then final norm and output head: {drawn}."
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
