"""The short report that a host of continuous integration shows beside a run."""

from __future__ import annotations

from pathlib import Path

from harness.reporting.report import render_summary
from harness.reporting.results import RunResult

MOST_BYTES = 900 * 1024  # GitHub refuses a step's summary of more than 1 MiB, all its parts together


def append_summary(run: RunResult, path: Path) -> None:
    """Adds the short report to ``path``: without the families' tables if it would be above 900 KiB with them."""
    text = render_summary(run)
    before = path.stat().st_size if path.exists() else 0
    if before + len(text.encode()) > MOST_BYTES:
        text = render_summary(run, families=False)
    if before + len(text.encode()) > MOST_BYTES:
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
