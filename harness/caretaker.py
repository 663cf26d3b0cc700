"""What ``python -m harness cache`` does with the response store: show it, drop what is not used, check every row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import LayerswapError
from harness.evaluation.responses import today
from harness.evaluation.store_file import SIDES, StoreFile
from harness.evaluation.store_schema import Trouble, pragma, reading, transaction, trouble
from harness.evaluation.stored import document_place, response_place, unseal

MEGABYTE = 10**6
AT_ONCE = 10_000  # rows that are read before damaged ones among them are removed
T = TypeVar("T")


class InUse(LayerswapError):
    """Another process writes to the store all the time."""


@dataclass(frozen=True)
class Found:
    """What a check of the whole store came to: a sentence, and whether all was as it had been written."""

    text: str
    sound: bool


def show(path: Path) -> str:
    """A table of what the store at ``path`` holds."""
    if not path.is_file():
        return "\n".join([f"no store at {path}", *_set_aside_lines(path)])
    return _with(path, lambda connection: _table(path, connection))


def collect(path: Path, days: int, megabytes: float | None = None) -> str:
    """Drops what no run has used for ``days`` days, then the longest unused until the file is small enough.

    ``megabytes`` is of 1,000,000 bytes, None for any size. Set-aside files of that age go too. LayerswapError if the
    store is in another process's use all the time.
    """
    if days < 0 or (megabytes is not None and megabytes < 0):
        raise LayerswapError("--days and --size take a number from 0 up")
    oldest = today() - days
    aside = [file for file in _set_aside(path) if file.stat().st_mtime < oldest * 86400]
    freed = sum(_bytes(file) for file in aside)
    for file in aside:
        for side in SIDES:
            Path(f"{file}{side}").unlink(missing_ok=True)
    if not path.is_file():
        return f"no store at {path}; set-aside files removed: {len(aside)}"

    def work(connection: sqlite3.Connection) -> str:
        before = _bytes(path)
        dropped = _drop(connection, oldest, None if megabytes is None else int(megabytes * MEGABYTE))
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        after = _bytes(path)
        return (
            f"{path}: dropped {dropped['variants']} variants with {dropped['responses']:,} responses, "
            f"{dropped['documents']} documents and {len(aside)} set-aside files; "
            f"{_megabytes(before - after + freed)} freed, {_megabytes(after)} left"
        )

    return _with(path, work)


def verify(path: Path) -> Found:
    """Reads every row, removes those that are not what was written, and has SQLite check the file itself.

    A file that SQLite cannot read as a whole is set aside.
    """
    if not path.is_file():
        return Found(f"no store at {path}: nothing to check", True)

    def work(connection: sqlite3.Connection) -> tuple[int, int, str]:
        read, removed = _check_rows(connection)
        return read, removed, str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])

    file = StoreFile(path)
    try:
        read, removed, structure = _done(file, work)
        if structure != "ok":
            file.set_aside(structure.replace("\n", " "))
            raise LayerswapError(_said(file))
    except InUse:
        raise
    except LayerswapError as error:
        return Found(str(error), False)
    finally:
        file.close()
    if removed:
        return Found(
            f"{path}: {removed:,} damaged of {read:,} rows were found and removed; they are computed again", False
        )
    return Found(f"{path}: {read:,} rows, all as they were written", True)


def _with(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """What ``work`` gives on the store at ``path``, as :func:`_done`."""
    file = StoreFile(path)
    try:
        return _done(file, work)
    finally:
        file.close()


def _done(file: StoreFile, work: Callable[[sqlite3.Connection], T]) -> T:
    """What ``work`` gives on the open store; LayerswapError with the reason if it is damaged or cannot be used."""
    try:
        connection = file.connection()
        if file.notes.keys() - {Trouble.UNWRITABLE.value}:  # that is trouble only for work that writes
            raise LayerswapError(_said(file))
        with reading():
            return work(connection)
    except sqlite3.Error as error:
        if trouble(error) is Trouble.BUSY:
            raise InUse(f"the response store {file.path} is in use: try again when no run is writing") from error
        file.settle(error)
        raise LayerswapError(_said(file)) from error


def _said(file: StoreFile) -> str:
    return "; ".join(file.notes.values())


def _table(path: Path, connection: sqlite3.Connection) -> str:
    kinds = connection.execute("SELECT kind, count(*) FROM documents GROUP BY kind ORDER BY kind").fetchall()
    first, last = connection.execute(
        "SELECT min(used), max(used) FROM (SELECT used FROM variants UNION ALL SELECT used FROM documents)"
    ).fetchone()
    rows = [
        ("store", str(path)),
        ("size", _megabytes(_bytes(path))),
        ("variants", f"{_count(connection, 'variants'):,}"),
        ("responses", f"{_count(connection, 'responses'):,}"),
        ("documents", ", ".join(f"{count:,} {kind}" for kind, count in kinds) or "0"),
        ("last used", "never" if last is None else f"{_age(last)}; the longest unused: {_age(first)}"),
    ]
    return "\n".join([*(f"{name:<10} {value}" for name, value in rows), *_set_aside_lines(path)])


def _drop(connection: sqlite3.Connection, oldest: int, limit: int | None) -> dict[str, int]:
    """Drops one by one, the longest unused first, each in a transaction: a kill leaves a sound store."""
    dropped = {"variants": 0, "responses": 0, "documents": 0}
    items = connection.execute(
        "SELECT used, 'variants', id FROM variants UNION ALL SELECT used, 'documents', id FROM documents ORDER BY 1"
    ).fetchall()
    for used, table, number in items:
        if used >= oldest and (limit is None or _live_bytes(connection) <= limit):
            break
        with transaction(connection):
            gone = connection.execute(f"DELETE FROM {table} WHERE id = ? AND used = ?", (number, used)).rowcount
            if gone and table == "variants":
                answers = connection.execute("DELETE FROM responses WHERE variant = ?", (number,)).rowcount
                dropped["responses"] += answers
        dropped[table] += gone  # 0 if a run has used it just now
    return dropped


def _check_rows(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many rows were read, and how many of them were damaged and are removed."""
    orphans = "responses WHERE variant NOT IN (SELECT id FROM variants)"
    (removed,) = connection.execute(f"SELECT count(*) FROM {orphans}").fetchone()
    if removed:
        _remove(connection, orphans, [()])
    read = int(removed)
    for number, owner in connection.execute("SELECT id, key FROM variants").fetchall():
        for rows in _blocks(connection, number):
            read += len(rows)
            bad = [
                (number, key, sealed)
                for key, run, sealed in rows
                if not (isinstance(owner, bytes) and isinstance(key, bytes))
                or unseal(response_place(owner, key), run, sealed) is None
            ]
            removed += _remove(connection, "responses WHERE variant = ? AND request IS ? AND body IS ?", bad)
    for (number,) in connection.execute("SELECT id FROM documents").fetchall():
        row = connection.execute("SELECT kind, key, run, body FROM documents WHERE id = ?", (number,)).fetchone()
        if row is None:  # dropped by another process
            continue
        kind, key, run, sealed = row
        read += 1
        if not isinstance(key, bytes) or unseal(document_place(str(kind), key), run, sealed) is None:
            removed += _remove(connection, "documents WHERE id = ? AND body IS ?", [(number, sealed)])
    return read, removed


def _blocks(connection: sqlite3.Connection, variant: int) -> Iterator[list[tuple[Any, ...]]]:
    """The responses of a variant, a few thousand at a time: a long reader would keep the log from being cut."""
    query = "SELECT request, run, body FROM responses WHERE variant = ?"
    rows = connection.execute(f"{query} ORDER BY request LIMIT {AT_ONCE}", (variant,)).fetchall()
    while rows:
        yield rows
        rest = f"{query} AND request > ? ORDER BY request LIMIT {AT_ONCE}"
        rows = connection.execute(rest, (variant, rows[-1][0])).fetchall()


def _remove(connection: sqlite3.Connection, where: str, rows: list[tuple[Any, ...]]) -> int:
    if rows:
        with transaction(connection):
            connection.executemany(f"DELETE FROM {where}", rows)
    return len(rows)


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages = pragma(connection, "page_count") - pragma(connection, "freelist_count")
    return pages * pragma(connection, "page_size")


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _set_aside(path: Path) -> list[Path]:
    return sorted(file for file in path.parent.glob(f"{path.name}.damaged-*") if not file.name.endswith(SIDES[1:]))


def _set_aside_lines(path: Path) -> list[str]:
    return [f"{'set aside':<10} {file.name}, {_megabytes(_bytes(file))}" for file in _set_aside(path)]


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for side in SIDES[:2] if (file := Path(f"{path}{side}")).is_file())


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"


def _age(day: int) -> str:
    days = today() - day
    return "today" if days <= 0 else "yesterday" if days == 1 else f"{days} days ago"
