"""The accepted results of a profile: one JSON file, small enough to commit and to read in a diff.

A line per case and column holds its values as one compact string; what many cases share (documents, fingerprints,
where the numbers came from) is written once and referred to by a digest. Accepting one case changes its lines only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.files import read_object, replace_text, shortened
from harness.gating.pairing import RESOLUTION, whole_values

SCHEMA = 1
_GRADED_BYTES = 3  # RESOLUTION is below 2**24

Provenance = Mapping[str, str]


@dataclass(frozen=True)
class Baselines:
    """Accepted scores by case and column. Scores read from a file have no samples.

    ``provenance`` has the same keys and says where each score came from (versions, device, date, ...).
    """

    path: Path
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, Provenance]] = field(default_factory=dict)

    def get(self, case_id: str, column: str) -> Score | None:
        """The accepted score of a case on a column, or None."""
        return self.scores.get(case_id, {}).get(column)


def load_baselines(path: Path, missing_ok: bool = False) -> Baselines:
    """Read accepted results. Without a file: no results if ``missing_ok``.

    Raises :class:`LayerswapError` naming the file and what is wrong with it.
    """
    if not path.exists():
        if missing_ok:
            return Baselines(path)
        raise LayerswapError(f"{path}: no such file: expected accepted results")
    data = read_object(path)
    try:
        return _decode(path, data)
    except KeyError as error:
        raise LayerswapError(f"{path}: {error} is referred to or required, but not there") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise LayerswapError(f"{path}: not a file of accepted results: {error}") from error


def save_baselines(path: Path, cases: Mapping[str, Mapping[str, Score]], provenance: Provenance) -> None:
    """Accept ``cases`` (case id to column to score): they replace what ``path`` has for them, the rest stays.

    ``provenance`` is recorded with the scores given, not with those that stay. The file is replaced in one step:
    a reader sees the old or the new one. Raises :class:`LayerswapError` for a file that cannot be read and for
    scores that cannot be stored (no documents, values outside [0, 1]).
    """
    before = load_baselines(path, missing_ok=True)
    scores = {case: dict(columns) for case, columns in before.scores.items()}
    origins = {case: dict(columns) for case, columns in before.provenance.items()}
    for case, columns in cases.items():
        for column, score in columns.items():
            if score.n == 0:
                raise LayerswapError(f"{case} on {column}: no documents, so there is nothing to accept")
            scores.setdefault(case, {})[column] = score
            origins.setdefault(case, {})[column] = dict(provenance)
    replace_text(path, _encode(scores, origins))


def _encode(scores: Mapping[str, Mapping[str, Score]], origins: Mapping[str, Mapping[str, Provenance]]) -> str:
    documents: dict[str, str] = {}
    sets: dict[str, str] = {}
    runs: dict[str, str] = {}
    cases: dict[str, dict[str, str]] = {}
    for case, columns in scores.items():
        for column, score in columns.items():
            values = whole_values(score)
            # In the order of their digests, so that another order of evaluation is not a change.
            order = sorted(range(score.n), key=score.documents.__getitem__)
            kind = {
                "benchmark": score.benchmark,
                "column": score.column,
                "documents": _refer(documents, [score.documents[i] for i in order]),
                "fingerprint": dict(score.fingerprint),
                "graded": score.graded,
                "metric": score.metric,
                # Written where it is the exception, so that files of before it was known stay as they are.
                **({} if score.higher_is_better else {"higher_is_better": False}),
            }
            record = {
                "corpus": {name: round(float(value), 6) for name, value in score.corpus.items()},
                "n": score.n,
                "run": _refer(runs, dict(origins[case][column])),
                "set": _refer(sets, kind),
                # For the reader of a diff: what decides are the documents' values.
                "value": round(sum(values) / (score.n * (RESOLUTION if score.graded else 1)), 6),
                "values": _pack([values[i] for i in order], score.graded),
            }
            cases.setdefault(case, {})[column] = _json(record)
    parts = [
        f'"schema": {SCHEMA}',
        f'"cases": {_block({case: _block(columns, 2) for case, columns in cases.items()}, 1)}',
        f'"documents": {_block(documents, 1)}',
        f'"runs": {_block(runs, 1)}',
        f'"sets": {_block(sets, 1)}',
    ]
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _decode(path: Path, data: Any) -> Baselines:
    if data["schema"] != SCHEMA:
        raise LayerswapError(
            f"{path}: written in schema {shortened(data['schema'])}, this version reads {SCHEMA}: accept the results "
            "again"
        )
    scores: dict[str, dict[str, Score]] = {}
    origins: dict[str, dict[str, Provenance]] = {}
    for case, columns in data["cases"].items():
        for column, record in columns.items():
            kind = data["sets"][record["set"]]
            documents = data["documents"][kind["documents"]]
            _check(record, kind, documents, f"{path}: {case} on {column}")
            try:
                values = _unpack(record["values"], len(documents), kind["graded"])
            except (ValueError, binascii.Error) as error:
                raise LayerswapError(f"{path}: {case} on {column}: damaged values: {error}") from error
            score = Score(
                benchmark=kind["benchmark"],
                column=kind["column"],
                metric=kind["metric"],
                graded=kind["graded"],
                documents=tuple(documents),
                values=values,
                fingerprint=kind["fingerprint"],
                corpus=record["corpus"],
                higher_is_better=kind.get("higher_is_better", True),
            )
            if not abs(score.value - record["value"]) <= 1e-6:  # NaN too
                raise LayerswapError(
                    f"{path}: {case} on {column}: the documents' values do not average to {record['value']}: "
                    "the file was edited or merged by hand, accept the results again"
                )
            scores.setdefault(case, {})[column] = score
            origins.setdefault(case, {})[column] = data["runs"][record["run"]]
    return Baselines(path, scores, origins)


def _check(record: Any, kind: Any, documents: Any, where: str) -> None:
    """Raises :class:`LayerswapError` unless what a column's entries hold is of the right kinds and sizes."""
    texts = (kind["benchmark"], kind["column"], kind["metric"], *documents, *kind["fingerprint"].values())
    numbers = (record["value"], *record["corpus"].values())
    wrong = {
        "documents, names and fingerprints are not all texts": not all(isinstance(value, str) for value in texts),
        "value and corpus metrics are not all numbers": not all(type(value) in (int, float) for value in numbers),
        "graded is neither true nor false": type(kind["graded"]) is not bool,
        "higher_is_better is neither true nor false": type(kind.get("higher_is_better", True)) is not bool,
        f"n is {shortened(record['n'])}, but there are {len(documents)} documents": record["n"] != len(documents),
        "there are no documents": not documents,
    }
    for what, found in wrong.items():
        if found:
            raise LayerswapError(f"{where}: {what}: the file was edited or damaged, accept the results again")


def _pack(values: list[int], graded: bool) -> str:
    """Right/wrong: one bit a document, in hex. Graded: three bytes a document, in base64."""
    if graded:
        return base64.b64encode(b"".join(value.to_bytes(_GRADED_BYTES, "big") for value in values)).decode()
    return f"{int(''.join(map(str, values)), 2):0{-(-len(values) // 4)}x}"


def _unpack(text: str, n: int, graded: bool) -> tuple[float, ...]:
    if graded:
        packed = base64.b64decode(text, validate=True)
        if len(packed) != _GRADED_BYTES * n:
            raise ValueError(f"{len(packed)} bytes for {n} documents")
        whole = [int.from_bytes(packed[i : i + _GRADED_BYTES], "big") for i in range(0, len(packed), _GRADED_BYTES)]
        if max(whole) > RESOLUTION:
            raise ValueError(f"{max(whole) / RESOLUTION} is above 1")
        return tuple(value / RESOLUTION for value in whole)
    if not set(text) <= set("0123456789abcdef"):
        raise ValueError("not all hexadecimal digits")
    bits = f"{int(text, 16):0{n}b}"
    if len(text) != -(-n // 4) or len(bits) != n:
        raise ValueError(f"{len(text)} hexadecimal digits for {n} documents")
    return tuple(float(bit) for bit in bits)


def _refer(table: dict[str, str], value: Any) -> str:
    """Put ``value`` into ``table`` once and return the digest that stands for it."""
    text = _json(value)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    table[digest] = text
    return digest


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _block(items: Mapping[str, str], depth: int) -> str:
    """A JSON object with one item a line, sorted by name; the items' values are JSON already."""
    if not items:
        return "{}"
    pad = " " * (depth + 1)
    lines = ",\n".join(f"{pad}{json.dumps(name)}: {text}" for name, text in sorted(items.items()))
    return "{\n" + lines + "\n" + " " * depth + "}"
