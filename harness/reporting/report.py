"""The report of a run: its files in the run's folder, as Markdown, page and data, and ``latest`` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from harness.errors import LayerswapError
from harness.files import replace_text
from harness.reporting.content import (
    CASE_HEADERS,
    METHOD_NOTES,
    UNMET_HEADERS,
    case_rows,
    cost_rows,
    findings,
    header,
    legend,
    provenance,
    unmet,
    verdict_line,
)
from harness.reporting.page import render_page
from harness.reporting.results import RunResult
from harness.reporting.samples import ColumnSamples, write_samples
from harness.reporting.tables import contrast_table, contrasts, family_table, frame, key_values, markdown


def render_report(run: RunResult) -> str:
    """The whole report as Markdown that GitHub renders."""
    families = [f"### {family}\n\n{family_table(run, family)}" for family in run.families]
    parts = [
        f"# Ablations of layer swapping: {run.profile}",
        f"**{verdict_line(run)}**",
        _header(run),
        _unmet(run),
        "## Families",
        legend(run),
        *families,
        _does_swapping_pay(run),
        _cost(run),
        _cases(run),
        _provenance(run),
        _method_notes(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(run: RunResult, folder: Path, samples: Sequence[ColumnSamples] = ()) -> Path:
    """Write the run's files into ``folder`` and point ``latest`` beside it there; returns the path of ``report.md``.

    ``report.md`` and ``report.html`` are to be read, ``results.json`` is everything that they show, ``results.csv`` a
    line per case and column, and ``samples.jsonl.gz``, if there are ``samples``, every answer. ``latest`` is a
    relative symbolic link, or a text file with the folder's name where links cannot be made. Raises
    :class:`LayerswapError` if the folder cannot be written, a number is not finite, or ``latest`` is a folder.
    """
    try:
        data = json.dumps(run.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        replace_text(folder / "results.json", data + "\n")
        replace_text(folder / "results.csv", frame(run).to_csv(index=False, lineterminator="\n"))
        if samples:
            write_samples(samples, folder / "samples.jsonl.gz")
        replace_text(folder / "report.html", render_page(run, samples, _figures(run)))
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


def _header(run: RunResult) -> str:
    return key_values(header(run))


def _unmet(run: RunResult) -> str:
    rows = unmet(run)
    if not rows:
        return ""
    return "## Floors that were not met\n\n" + markdown(rows, UNMET_HEADERS)


def _does_swapping_pay(run: RunResult) -> str:
    rows = contrasts(run)
    if not rows:
        return ""
    return (
        "## Does swapping pay?\n\n"
        f"The default swap (`{run.reference}`) against the models it could be replaced by, on the same problems.\n\n"
        f"{contrast_table(rows)}\n\n" + "\n".join(f"- {sentence}" for sentence in findings(rows))
    )


def _cost(run: RunResult) -> str:
    if not run.seconds:
        return ""
    return "## Cost\n\n" + markdown(cost_rows(run), ["stage", "seconds"])


def _cases(run: RunResult) -> str:
    rows = case_rows(run)
    table = markdown(rows, CASE_HEADERS)
    return (
        f"## Cases\n\n<details><summary>Recipes and digests of all {len(rows)} cases</summary>\n\n{table}\n\n</details>"
    )


def _provenance(run: RunResult) -> str:
    rows = provenance(run)
    return "## Provenance\n\n" + key_values(rows) if rows else ""


def _method_notes() -> str:
    return f"## How to read the numbers\n\n{METHOD_NOTES}"


def _figures(run: RunResult) -> Mapping[str, str]:
    """SVG by name; none where drawing is not installed."""
    try:
        figures: Mapping[str, str] = import_module("harness.reporting.figures").figures(run)
    except ModuleNotFoundError:
        return {}
    return figures


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
