"""What the file of the response store is to SQLite: its tables, its settings, and what an error of it means."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

APPLICATION = 0x4C535750  # of the file's header: "LSWP"
VERSION = 1
BUSY_SECONDS = 30.0  # that a process waits for another one's transaction
LOG_BYTES = 16 * 1024**2  # what the write-ahead log is cut to when it has been copied into the file

SCHEMA = {
    "variants": "CREATE TABLE variants (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL)",
    "responses": "CREATE TABLE responses (variant INTEGER NOT NULL, request BLOB NOT NULL, run INTEGER NOT NULL, "
    "body BLOB NOT NULL, PRIMARY KEY (variant, request)) WITHOUT ROWID",
    "documents": "CREATE TABLE documents (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key BLOB NOT NULL, "
    "run INTEGER NOT NULL, used INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (kind, key))",
}


class Trouble(Enum):
    """What an error of SQLite means for a run."""

    DAMAGED = "damaged"
    BUSY = "busy"
    FULL = "full"
    UNWRITABLE = "cannot be written"


TROUBLES = (  # SQLite's codes, and words of its messages
    (Trouble.BUSY, (5, 6, 15), ("locked", "locking")),
    (Trouble.FULL, (10, 13), ("full", "I/O")),
    (Trouble.UNWRITABLE, (3, 8, 14, 23), ("readonly", "unable to open", "authoriz")),
)


class NotAStore(sqlite3.DatabaseError):
    """The file is a database, but not a response store of this version."""


def trouble(error: sqlite3.Error) -> Trouble:
    """What kind of trouble ``error`` is; what is not about locks, space or rights counts as damage."""
    code = getattr(error, "sqlite_errorcode", None)  # since Python 3.11
    for kind, codes, texts in TROUBLES:
        if code & 0xFF in codes if code is not None else any(text in str(error) for text in texts):
            return kind
    return Trouble.DAMAGED


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is written inside; an exception leaves the file as it was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@contextmanager
def reading() -> Iterator[None]:
    """Has what Python's sqlite3 makes of damaged text, also in SQLite's own messages, be an error of the database."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("text in it cannot be read") from error


def connect(path: Path) -> sqlite3.Connection:
    """The store at ``path``, made if nothing is there. NotAStore for another database; sqlite3.Error otherwise."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        with reading():
            prepare(connection)
            told = pragma(connection, "application_id"), pragma(connection, "user_version")
            if told == (0, 0) and not tables(connection):
                connection.execute("PRAGMA journal_mode = WAL")
                create(connection)
            check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Settings of a connection: a commit outlives the process's death, and nothing in the file is trusted."""
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")


def create(connection: sqlite3.Connection) -> None:
    """The tables of an empty store."""
    with transaction(connection):
        for statement in SCHEMA.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")


def check(connection: sqlite3.Connection) -> None:
    """NotAStore unless the file says that it is a response store of this version and has its tables."""
    if pragma(connection, "application_id") != APPLICATION:
        raise NotAStore("it is a database of something else")
    if (version := pragma(connection, "user_version")) != VERSION:
        raise NotAStore(f"it is of version {version}, and this is version {VERSION}")
    if tables(connection) != SCHEMA:
        raise NotAStore("its tables are not those of a response store")


def tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Name → definition of what the file has."""
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """A number that SQLite knows of the file."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
