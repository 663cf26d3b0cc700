"""The report of a run: ``report.md`` and ``results.json`` in its folder, and ``latest`` beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from harness.cache import Cache
from harness.errors import LayerswapError
from harness.files import Taken, atomic_folder, read_object, replace_text
from harness.reporting.content import UNMET_HEADERS, header, legend, unmet, verdict_line
from harness.reporting.figures import FOLDER, figures, shown, shown_family
from harness.reporting.findings import bought
from harness.reporting.page import render_page
from harness.reporting.results import RunResult
from harness.reporting.samples import ColumnSamples, write_samples
from harness.reporting.sections import (
    averages_section,
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
from harness.reporting.tables import csv_text, family_details, family_table, key_values, markdown


def render_report(run: RunResult) -> str:
    """The whole report as Markdown that GitHub renders."""
    families = [_family(run, family) for family in run.families]
    parts = [
        f"# Ablations of layer swapping: {run.profile}",
        f"**{verdict_line(run)}**",
        _header(run),
        _unmet(run),
        "## Families",
        legend(run),
        shown(run, "layers"),
        *families,
        does_swapping_pay_section(run),
        averages_section(run),
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
        tables and f"{legend(run)}\n\n{tables}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(
    run: RunResult,
    folder: Path,
    samples: Sequence[ColumnSamples] = (),
    cache: Cache | None = None,
    also: Callable[[Path], None] | None = None,
) -> Path:
    """Write the run's files into ``folder``; returns the path of ``report.md``. ``latest`` leads to the newest run.

    ``report.md``, ``report.html`` and ``figures/`` are to be read, ``results.json`` is everything that they show,
    ``results.csv`` a line per case and column, and ``samples.jsonl.gz``, if there are ``samples``, every answer.
    What costs most (figures, packed answers) comes from ``cache`` if an earlier run had the same. ``also`` is called
    with the folder to write more. A new folder appears in one step, when all is written; in one that is there, each
    file is replaced in one. ``latest`` is a relative symbolic link, or a text file with the folder's name where links
    cannot be made. Raises :class:`LayerswapError` if the folder cannot be written, a number is not finite, or
    ``latest`` is a folder.
    """
    rewritten = (folder / "results.json").exists()
    # Beside a report that is there its files are replaced one by one.
    place = nullcontext(folder) if folder.exists() else atomic_folder(folder, flush=False, hidden="report")
    try:
        with place as at:
            _write_files(run, at, samples, cache, also)
    except Taken:
        raise
    except (LayerswapError, OSError, ValueError) as error:
        raise LayerswapError(f"{folder}: the report cannot be written: {error}") from error
    if not rewritten and folder.name != "latest":
        _point_to(folder.parent / "latest", folder.name)
    return folder / "report.md"


def _write_files(
    run: RunResult,
    folder: Path,
    samples: Sequence[ColumnSamples],
    cache: Cache | None,
    also: Callable[[Path], None] | None,
) -> None:
    data = json.dumps(run.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(folder / "results.json", data + "\n")
    replace_text(folder / "results.csv", csv_text(run))
    if samples:
        write_samples(samples, folder / "samples.jsonl.gz", cache)
    if also is not None:
        also(folder)
    drawn = figures(run, cache)
    for name, svg in drawn.items():
        replace_text(folder / FOLDER / f"{name}.svg", svg)
    replace_text(folder / "report.html", render_page(run, samples, drawn, cache=cache))
    replace_text(folder / "report.md", render_report(run))


def read_results(folder: Path) -> RunResult:
    """The run whose ``results.json`` is in ``folder``; raises :class:`LayerswapError` if it cannot be read."""
    path = folder / "results.json"
    data = read_object(path)
    try:
        return RunResult.from_dict(data)
    except LayerswapError as error:
        raise LayerswapError(f"{path}: {error}") from error


def _family(run: RunResult, family: str) -> str:
    details = family_details(run, family)
    parts = [f"### {family}", bought(run, family), family_table(run, family), shown_family(run, family).strip()]
    if details:
        parts.append(folded(f"{family}: every interval and p-value", details))
    return "\n\n".join(part for part in parts if part)


def _several(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _header(run: RunResult) -> str:
    return key_values(header(run))


def _unmet(run: RunResult) -> str:
    rows = unmet(run)
    return "## Floors that were not met\n\n" + markdown(rows, UNMET_HEADERS) if rows else ""


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
