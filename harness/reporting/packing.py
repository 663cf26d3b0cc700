"""Answers of a run packed for the page: JSON, compressed, as text that is safe anywhere in HTML."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.cache import Cache, kept
from harness.reporting.samples import ColumnSamples, samples_key


@dataclass(frozen=True)
class Packed:
    """One column for the page; ``data`` is :func:`packed_column` as JSON, through gzip and base64."""

    column: str
    cases: tuple[str, ...]
    data: str


def pack(samples: Sequence[ColumnSamples], cache: Cache | None = None) -> tuple[Packed, ...]:
    """Every column, packed; the same samples give the same text."""
    return tuple(Packed(column.column, tuple(column.answers), _text(column, cache)) for column in samples)


def _text(column: ColumnSamples, cache: Cache | None) -> str:
    return kept(cache, "samples", lambda: samples_key("page", [column]), lambda: _pack(packed_column(column)))


def packed_column(samples: ColumnSamples) -> dict[str, Any]:
    """What the page's script reads, as primitives.

    ``outcomes[i]`` are the distinct ``[answer, value]`` of document i. ``rows`` are the distinct ways to answer all
    documents, as indices into ``outcomes``, and ``cases`` says which row a case has: equal weights share one.
    ``graded`` is true if some value is neither 0 nor 1.
    """
    outcomes: list[dict[tuple[str, float], int]] = [{} for _ in samples.documents]
    rows: dict[tuple[int, ...], int] = {}
    cases = {}
    for case, answers in samples.answers.items():
        values = (round(value, 7) for value in samples.values[case])
        met = zip(outcomes, zip(answers, values, strict=True), strict=True)
        row = tuple(known.setdefault(outcome, len(known)) for known, outcome in met)
        cases[case] = rows.setdefault(row, len(rows))
    return {
        "documents": list(samples.documents),
        "prompts": list(samples.prompts),
        "targets": list(samples.targets),
        "graded": any(value not in (0, 1) for known in outcomes for _, value in known),
        "outcomes": [[list(outcome) for outcome in known] for known in outcomes],
        "rows": [list(row) for row in rows],
        "cases": cases,
    }


def _pack(data: dict[str, Any]) -> str:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as file:
        file.write(json.dumps(data, separators=(",", ":")).encode("ascii"))
    return base64.b64encode(buffer.getvalue()).decode("ascii")
