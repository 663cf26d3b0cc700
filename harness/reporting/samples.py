"""What every variant answered to every document of a run: ``samples.jsonl.gz`` beside the report."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.cache import Cache, kept, key_of
from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.files import replace_bytes, shortened


@dataclass(frozen=True)
class ColumnSamples:
    """One column: its ``documents`` (content digests) with prompt and target, and what each case made of them.

    ``answers`` and ``values`` map case ids to a sequence in the order of ``documents``; a value is in [0, 1]. Cases of
    equal weights share their sequences.
    """

    column: str
    documents: tuple[str, ...]
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    answers: Mapping[str, Sequence[str]]
    values: Mapping[str, Sequence[float]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything in it."""
        cases = [list(self.answers), list(self.values)]
        text = json.dumps([self.column, self.documents, self.prompts, self.targets, cases, list(self.answers.values())])
        digest = hashlib.sha256(text.encode())
        for values in self.values.values():
            digest.update(array("d", values).tobytes())
        return digest.hexdigest()


def collect(scores: Mapping[str, Mapping[str, Score]], columns: Sequence[str]) -> tuple[ColumnSamples, ...]:
    """Samples by column, of scores by case id and column; a case with other documents than the first is left out."""
    found = []
    for column in columns:
        held = {case: by[column] for case, by in scores.items() if column in by and by[column].samples}
        if not held:
            continue
        first = next(iter(held.values()))
        same = {case: score for case, score in held.items() if score.documents == first.documents}
        found.append(
            ColumnSamples(
                column=column,
                documents=first.documents,
                prompts=tuple(sample.prompt for sample in first.samples),
                targets=tuple(sample.target for sample in first.samples),
                answers={case: tuple(sample.answer for sample in score.samples) for case, score in same.items()},
                values={case: score.values for case, score in same.items()},
            )
        )
    return tuple(found)


def write_samples(samples: Sequence[ColumnSamples], path: Path, cache: Cache | None = None) -> None:
    """A line of JSON for every document of every column, compressed; the same samples give the same bytes."""
    text = kept(cache, "samples", lambda: samples_key("lines", samples), lambda: _compressed(samples))
    replace_bytes(path, base64.b64decode(text))


def samples_key(use: str, samples: Sequence[ColumnSamples]) -> str:
    """The key in a cache of what is packed from ``samples`` for some ``use``."""
    return key_of([use, [column.digest for column in samples], zlib.ZLIB_RUNTIME_VERSION])


def _compressed(samples: Sequence[ColumnSamples]) -> str:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as packed:
        for column in samples:
            for i, document in enumerate(column.documents):
                line = {
                    "column": column.column,
                    "document": document,
                    "prompt": column.prompts[i],
                    "target": column.targets[i],
                    "answers": {case: answers[i] for case, answers in column.answers.items()},
                    "values": {case: round(values[i], 7) for case, values in column.values.items()},
                }
                packed.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def read_samples(path: Path) -> tuple[ColumnSamples, ...]:
    """The inverse of :func:`write_samples`; raises :class:`LayerswapError` for a damaged file."""
    rows: dict[str, list[Any]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for text in file:
                row = json.loads(text)
                rows.setdefault(row["column"], []).append(row)
        return tuple(_column(name, found) for name, found in rows.items())
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, RecursionError, zlib.error) as error:
        raise LayerswapError(f"{path}: cannot be read: {shortened(error, 200)}") from error


def _column(name: str, rows: Sequence[Any]) -> ColumnSamples:
    def by_case(key: str) -> dict[str, tuple[Any, ...]]:
        return {case: tuple(row[key][case] for row in rows) for case in rows[0][key]}

    documents, prompts, targets = (tuple(row[key] for row in rows) for key in ("document", "prompt", "target"))
    return ColumnSamples(name, documents, prompts, targets, by_case("answers"), by_case("values"))
