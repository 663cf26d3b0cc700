"""The response store: every answer of every variant, and the scores made of them, kept from run to run.

Nothing is known by a name or a path: a variant is the digest of its weights, a request the digest of all that makes
its answer. An entry that does not pass its checksum is not there. What it is and what it costs: docs/store.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from harness.evaluation.store_file import StoreFile
from harness.evaluation.store_schema import Trouble, reading, transaction, trouble
from harness.evaluation.stored import document_place, key_of, pack, response_place, run_of, seal, unpack, unseal
from harness.files import cache_folder

FILE_NAME = "responses-v1.sqlite"
AT_ONCE = 900  # requests a query: older SQLites take 999 parameters
LONGEST = 500_000_000  # bytes of one document: SQLite takes twice as many
T = TypeVar("T")


def default_path() -> Path:
    """The store of this user."""
    return cache_folder() / FILE_NAME


def today() -> int:
    """Days since 1970, in which the store counts when something was last used."""
    return int(time.time() // 86400)


class Store:
    """The store at ``path``, made if it is not there. Any number of processes may have it open, a thread in each.

    ``run`` names the run; its processes share the name, and no other run has it. With ``refresh`` only what this run
    has written itself is served: by name, not by time, since clocks may go backwards.

    Trouble with the file is never raised. It is a sentence in ``messages``, and the store goes on: with a new file in
    place of a damaged one, without keeping what there is no space or right to write, or in memory alone.
    """

    def __init__(self, path: Path, *, refresh: bool = False, run: str = "") -> None:
        self.path = path
        self._file = StoreFile(path)
        self._run = run_of(run or uuid4().hex)
        self._only_run = refresh
        self._damaged = 0
        self._file.connection()

    @property
    def messages(self) -> list[str]:
        """What a person should know, a sentence each: nothing in a run without trouble."""
        found = list(self._file.notes.values())
        if self._damaged:
            found.append(
                f"the response store {self.path} had {self._damaged} damaged entries: they were not used, and are "
                "computed again; 'python -m harness cache verify' looks at all the others"
            )
        return found

    def responses(self, variant: str, requests: Sequence[str]) -> dict[str, Any]:
        """The known answers of a variant by request: ``[float, bool]`` for a log-likelihood, text for a generation."""
        wanted = {key_of(request): request for request in requests}
        return self._attempt(lambda connection: self._responses(connection, key_of(variant), wanted), {})

    def add_responses(self, variant: str, answers: Mapping[str, Any]) -> None:
        """Keeps a batch of answers by request, all of them or none; what is there already is replaced.

        TypeError or ValueError, with nothing kept, if an answer is no JSON value.
        """
        owner = key_of(variant)
        rows = []
        for request, answer in answers.items():
            key = key_of(request)
            rows.append((key, self._run, seal(response_place(owner, key), self._run, pack(answer))))
        rows.sort()

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "INSERT INTO variants (key, used) VALUES (?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET used = excluded.used WHERE used != excluded.used",
                    (owner, today()),
                )
                (number,) = connection.execute("SELECT id FROM variants WHERE key = ?", (owner,)).fetchone()
                connection.executemany(
                    "INSERT OR REPLACE INTO responses (variant, request, run, body) VALUES (?, ?, ?, ?)",
                    ((number, *row) for row in rows),
                )

        if rows:
            self._attempt(write, None)

    def document(self, kind: str, key: str) -> str | None:
        """The text of a kind kept under ``key``, or None."""
        return self._attempt(lambda connection: self._document(connection, kind, key_of(key)), None)

    def add_document(self, kind: str, key: str, text: str) -> None:
        """Keeps a text, in place of the one that is there under this key."""
        name = key_of(key)
        sealed = seal(document_place(kind, name), self._run, pack(text))
        if len(sealed) > LONGEST:
            self._file.notes["long"] = f"a {kind} of {len(sealed) / 1e6:.0f} MB is too long to be kept in {self.path}"
            return

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "INSERT INTO documents (kind, key, run, used, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key) "
                    "DO UPDATE SET run = excluded.run, used = excluded.used, body = excluded.body",
                    (kind, name, self._run, today(), sealed),
                )

        self._attempt(write, None)

    def close(self) -> None:
        """Closes the file; a store that is used again opens it again."""
        self._file.close()

    def _responses(self, connection: sqlite3.Connection, owner: bytes, wanted: Mapping[bytes, str]) -> dict[str, Any]:
        variant = connection.execute("SELECT id, used FROM variants WHERE key = ?", (owner,)).fetchone()
        if variant is None:
            return {}
        number, used = variant
        keys, found, damaged = list(wanted), {}, []
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            query = f"SELECT request, run, body FROM responses WHERE variant = ? AND request IN ({_marks(some)})"
            for key, run, sealed in connection.execute(query, (number, *some)):
                request = wanted.get(key)
                body = None if request is None else unseal(response_place(owner, key), run, sealed)
                if request is None or body is None:
                    damaged.append((number, key, sealed))
                elif run == self._run or not self._only_run:
                    found[request] = unpack(body)
        if damaged:
            self._remove(connection, "DELETE FROM responses WHERE variant = ? AND request = ? AND body IS ?", damaged)
        if found and used != today():
            self._aside(connection, "UPDATE variants SET used = ? WHERE id = ?", [(today(), number)])
        return found

    def _document(self, connection: sqlite3.Connection, kind: str, key: bytes) -> str | None:
        query = "SELECT id, run, used, body FROM documents WHERE kind = ? AND key = ?"
        row = connection.execute(query, (kind, key)).fetchone()
        if row is None:
            return None
        number, run, used, sealed = row
        body = unseal(document_place(kind, key), run, sealed)
        if body is None:
            self._remove(connection, "DELETE FROM documents WHERE id = ? AND body IS ?", [(number, sealed)])
            return None
        if self._only_run and run != self._run:
            return None
        if used != today():
            self._aside(connection, "UPDATE documents SET used = ? WHERE id = ?", [(today(), number)])
        return str(unpack(body))

    def _remove(self, connection: sqlite3.Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
        self._damaged += len(rows)
        self._aside(connection, statement, rows)

    def _aside(self, connection: sqlite3.Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Writes what reading brings with it: no reader fails because that cannot be written."""
        try:
            with transaction(connection):
                connection.executemany(statement, rows)
        except sqlite3.Error as error:
            if trouble(error) is Trouble.DAMAGED:
                raise

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        for _ in range(2):
            try:
                with reading():
                    return work(self._file.connection())
            except sqlite3.Error as error:
                if not self._file.settle(error):
                    break
        return otherwise


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
