"""Rows of benchmark files as their authors publish them; what is wrong with one is said with its file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError, one_line
from harness.evaluation.data import need
from harness.files import read_text, shortened

Rows = list[dict[str, Any]]
AT = "_at"  # a row's file and line, for messages
LETTERS = "ABCD"


def rows_of(folder: Path, benchmark: str, split: str, language: str = "en") -> Rows:
    """The rows of a benchmark's file, or of the files of its folder; each has its place under :data:`AT`.

    Raises :class:`LayerswapError` naming file and line of what cannot be read, or the file that has no row.
    """
    path = need(folder, benchmark, split, language)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found: Rows = []
    for file in files:
        read, unit = _READERS.get(file.suffix, (_lines, "line"))
        found += [{**row, AT: f"{file}, {unit} {number}"} for number, row in read(file)]
    if not found:
        raise LayerswapError(f"{path}: no documents in it")
    return found


def wrong(row: dict[str, Any], what: str) -> LayerswapError:
    """What is wrong with a row."""
    return LayerswapError(f"{row.get(AT, 'a row of the hub')}: {what}")


def text(row: dict[str, Any], key: str) -> str:
    """A row's text; raises :class:`LayerswapError` if it is missing or something else."""
    if key not in row:
        raise wrong(row, f"no {key}: it has {shortened([name for name in row if name != AT])}")
    if not isinstance(row[key], str):
        raise wrong(row, f"{key} is {shortened(row[key])}: expected a text")
    return str(row[key])


def texts(row: dict[str, Any], key: str) -> list[str]:
    """A row's list of texts."""
    value = row.get(key)
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
        raise wrong(row, f"{key} is {shortened(value)}: expected a list of texts")
    return list(value)


def whole(row: dict[str, Any], key: str, within: range | None = None) -> int:
    """A row's whole number, written as one or as text."""
    value = row.get(key)
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or (within is not None and number not in within):
        expected = f"a whole number from {within[0]} to {within[-1]}" if within is not None else "a whole number"
        raise wrong(row, f"{key} is {shortened(value)}: expected {expected}")
    return number


Numbered = Iterable[tuple[int, dict[str, Any]]]


def _jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _numbered(file):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LayerswapError(f"{file}, line {number}: not JSON: {one_line(error)}") from error
        if not isinstance(row, dict):
            raise LayerswapError(f"{file}, line {number}: expected a JSON object, found {shortened(row)}")
        yield number, row


def _tsv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _numbered(file):
        question, tab, answer = line.rpartition("\t")
        if not (tab and question.strip()):
            raise LayerswapError(f"{file}, line {number}: expected a question, a tab and a number")
        yield number, {"question": question, "answer_number": answer}


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """MMLU's own: no header; the subject is the file's name."""
    subject = file.stem.rsplit("_", 1)[0]
    reader = csv.reader(io.StringIO(read_text(file, newline=""), newline=""), strict=True)
    try:
        for fields in reader:
            if len(fields) != 6 or fields[-1].strip() not in tuple(LETTERS):
                raise LayerswapError(
                    f"{file}, line {reader.line_num}: expected a question, four choices and a letter from A to D, "
                    f"found {shortened(fields)}"
                )
            question, *choices, letter = fields
            answer = LETTERS.index(letter.strip())
            yield (
                reader.line_num,
                {"subject": subject, "question": question, "choices": choices, "answer": answer},
            )
    except csv.Error as error:
        raise LayerswapError(f"{file}, line {reader.line_num}: not CSV: {error}") from error


def _parquet(file: Path) -> Numbered:
    from pyarrow import parquet

    try:
        return list(enumerate(parquet.read_table(file).to_pylist(), 1))
    except Exception as error:  # whatever pyarrow makes of a file from anywhere
        raise LayerswapError(f"{file}: not parquet that can be read: {one_line(error)}") from error


def _lines(file: Path) -> Numbered:
    return ((number, {"text": line}) for number, line in _numbered(file))


def _numbered(file: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers; only a line feed ends one, whatever else Unicode knows."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


_READERS: dict[str, tuple[Callable[[Path], Numbered], str]] = {
    ".jsonl": (_jsonl, "line"),
    ".tsv": (_tsv, "line"),
    ".csv": (_csv, "line"),
    ".parquet": (_parquet, "row"),
}
