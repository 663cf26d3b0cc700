"""The SQLite file of the response store: opened, and set aside where it cannot be trusted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from harness.evaluation.store_schema import BUSY_SECONDS, Trouble, check, connect, create, prepare, reading, trouble

LOCK_SECONDS = 60.0  # that a process waits for another one to open the file or to set it aside
SIDES = ("", "-wal", "-shm")


class StoreFile:
    """Gives a connection to the store at ``path``, whatever is there: in memory if nothing else is possible.

    ``notes`` has one sentence for each kind of thing that went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: dict[str, str] = {}
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the open file; None in memory
        self._process = 0
        self._foreign: list[sqlite3.Connection] = []  # of the process that this one was forked from: never closed

    def connection(self) -> sqlite3.Connection:
        """The open file. It is opened anew in a forked process, and if another file now stands at the path."""
        if self._connection is not None and self._process != os.getpid():
            self._foreign.append(self._connection)
            self._connection = None
        if self._connection is not None and self._identity and self._identity != identity_of(self.path):
            self.close()
        if self._connection is None:
            self._process = os.getpid()
            self._connection = self._open()
        return self._connection

    def close(self) -> None:
        """Closes the file, if this process opened it."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
            self._connection = None

    def settle(self, error: sqlite3.Error) -> bool:
        """Notes what ``error`` means. True if the file was damaged and a new one may be used instead."""
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            raise error  # a mistake in the calling code
        if self._damage(error):
            self.set_aside(error)
            return True
        kind = trouble(error)
        self.notes.setdefault(
            kind.value,
            {
                Trouble.BUSY: f"the response store {self.path} was in another process's use for {BUSY_SECONDS:.0f} "
                "seconds: some of what this run computed will be computed again by the next",
                Trouble.FULL: f"the response store {self.path} could not keep everything ({error}): "
                "some of what this run computed will be computed again by the next",
                Trouble.UNWRITABLE: self._unwritable(error),
            }[kind],
        )
        return False

    def _damage(self, error: sqlite3.Error) -> bool:
        """Also where only the file's own header says that no version of SQLite may write it."""
        if trouble(error) is Trouble.UNWRITABLE and Trouble.UNWRITABLE.value not in self.notes:
            return "readonly" in str(error) and os.access(self.path, os.W_OK)
        return trouble(error) is Trouble.DAMAGED

    def set_aside(self, reason: object) -> None:
        """Renames the open file, once for all processes that find it damaged, so that a new one takes its place."""
        identity = self._identity
        self.close()
        if identity is None:  # in memory
            return
        try:
            with FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS):
                if identity == identity_of(self.path):
                    self._rename(reason)
        except (OSError, NotImplementedError) as error:
            self._connection = self._without(error)

    def _open(self) -> sqlite3.Connection:
        self._identity = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS):
                try:
                    connection = connect(self.path)
                except sqlite3.DatabaseError as error:
                    if not self._damage(error):
                        raise
                    self._rename(error)
                    connection = connect(self.path)
                self._identity = identity_of(self.path)
                return connection
        except (OSError, NotImplementedError, sqlite3.Error) as error:
            return self._read_only(error)

    def _read_only(self, reason: Exception) -> sqlite3.Connection:
        """A store that may be read: of a folder without rights to write, only if no log is to be joined to the file."""
        try:
            log = self.path.with_name(f"{self.path.name}-wal")
            still = "" if log.exists() and log.stat().st_size else "&immutable=1"
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro{still}", uri=True, isolation_level=None
            )
            try:
                with reading():
                    prepare(connection)
                    check(connection)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error):
            return self._without(reason)
        self._identity = identity_of(self.path)
        self.notes[Trouble.UNWRITABLE.value] = self._unwritable(reason)
        return connection

    def _unwritable(self, reason: object) -> str:
        return f"the response store {self.path} cannot be written ({reason}): what this run computes is not kept"

    def _without(self, reason: object) -> sqlite3.Connection:
        self._identity = None
        self.notes["without"] = (
            f"the response store {self.path} cannot be used ({reason}): this run goes on without it, and keeps nothing "
            "for the next; LAYERSWAP_CACHE names another folder"
        )
        connection = sqlite3.connect(":memory:", isolation_level=None)
        prepare(connection)
        create(connection)
        return connection

    def _rename(self, reason: object) -> None:
        aside = next(path for n in range(1, 10**6) if not (path := aside_path(self.path, n)).exists())
        for side in SIDES:  # the file first: SQLite itself removes the log of a file that is not there
            with suppress(FileNotFoundError):
                Path(f"{self.path}{side}").rename(f"{aside}{side}")
        self.notes["damaged"] = (
            f"the response store {self.path} could not be read ({reason}): it was set aside as {aside.name}, and what "
            "it held is computed again"
        )


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells the file at ``path`` from another one there; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def aside_path(path: Path, number: int) -> Path:
    """Where a damaged store goes."""
    return path.with_name(f"{path.name}.damaged-{number}")
