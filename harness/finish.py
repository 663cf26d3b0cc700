"""What a run leaves behind: its report, accepted results, and what a host of continuous integration shows of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cache import Cache
from harness.evaluation.cells import CellReader
from harness.evaluation.scores import Score
from harness.files import Taken
from harness.gating.baselines import Baselines, save_baselines
from harness.options import Options
from harness.reporting.results import RunResult

if TYPE_CHECKING:
    from harness.reporting.samples import ColumnSamples

MOST_ANNOTATIONS = 10
MOST_LINES = 40
Scores = Mapping[str, Mapping[str, Score]]


def finish(
    options: Options,
    folder: Path,
    order: Iterable[str],
    header: Mapping[str, str],
    store: Cache,
    cells: CellReader,
) -> list[str]:
    """Writes everything from what the run's processes left in ``folder``; returns lines for the terminal.

    ``cells`` reads the run's scores; ``store`` has what earlier runs derived from the same ones: see
    :mod:`harness.cache`.

    Raises :class:`LayerswapError` or :class:`OSError` if something cannot be written.
    """
    from harness.reporting.samples import collect
    from harness.reporting.summary import append_summary
    from harness.runlog import corpus_contrasts, held_or_recorded, run_result, scores

    profile = options.profile
    started = datetime.now()
    name = f"{profile.name}-{started:%Y%m%d-%H%M%S}"
    result = run_result(folder, name, profile, header, order)
    every = scores(folder, result, profile, cells)
    held = held_or_recorded(result, every)
    lines = []
    if options.reports is not None:
        result = replace(result, corpus=corpus_contrasts(result, every, store))
        samples = collect(every, result.columns)
        lines.append(f"report: {_new_report(result, options.reports / name, samples, held, store)}")
    if options.accept_into is not None:
        lines += _accept(options, held, result)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        append_summary(result, Path(summary))
    return lines


def _new_report(result: RunResult, place: Path, samples: Sequence[ColumnSamples], held: Scores, store: Cache) -> Path:
    """Writes a run's report to ``place``, or beside it if another run is there or gets there meanwhile."""
    from harness.reporting.report import write_report
    from harness.runlog import provenance

    def scores(folder: Path) -> None:
        save_baselines(folder / "scores.json", held, provenance(result))

    while True:
        target = _unused(place)
        try:
            return write_report(result, target, samples, store, scores)
        except Taken:
            continue


def _unused(folder: Path) -> Path:
    """``folder``, or the first of ``folder-2``, ``folder-3``, ... that is not there: two runs may end in one second."""
    number, free = 1, folder
    while free.exists() or free.is_symlink():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _accept(options: Options, held: Scores, result: RunResult) -> list[str]:
    from harness.runlog import provenance

    assert options.accept_into is not None
    path, before = options.accept_into, options.baselines
    chosen = {
        case: {name: score for name, score in columns.items() if options.accept_all or before.get(case, name) is None}
        for case, columns in held.items()
    }
    chosen = {case: columns for case, columns in chosen.items() if columns}
    lines = _differences(before, chosen) if options.updating else []
    save_baselines(path, chosen, provenance(result))
    return [*lines, f"accepted: {len(chosen)} cases in {path}"]


def _differences(before: Baselines, after: Scores) -> list[str]:
    """``transition/removed on mmlu: 61.2 → 62.5`` for everything that changes, old first."""
    lines, same = [], 0
    for case, columns in after.items():
        for name, new in columns.items():
            old = before.get(case, name)
            if old is not None and _content(old) == _content(new):
                same += 1
                continue
            was = f"{100 * old.value:.2f} (n={old.n})" if old else "none"
            lines.append(f"  {case} on {name}: {was} → {100 * new.value:.2f} (n={new.n})")
    shown, hidden = lines[:MOST_LINES], len(lines) - MOST_LINES
    more = [f"  and {hidden} more"] if hidden > 0 else []
    return [f"accepted results: {len(lines)} change, {same} stay", *shown, *more]


def _content(score: Score) -> Any:
    from harness.gating.pairing import whole_values

    values = sorted(zip(score.documents, whole_values(score), strict=True))
    return score.metric, score.graded, dict(score.fingerprint), values


def error_lines(reports: Iterable[Any]) -> list[str]:
    """GitHub's workflow commands for failed items, at most ten: a host shows them beside the lines of the suite."""
    failed = [report for report in reports if "ablation" in getattr(report, "keywords", ())]
    lines = []
    for report in failed[:MOST_ANNOTATIONS]:
        path, line, name = report.location
        text = _escaped(str(report.longrepr))
        lines.append(f"::error file={_escaped(path, True)},line={(line or 0) + 1},title={_escaped(name, True)}::{text}")
    return lines


def _escaped(text: str, in_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text
