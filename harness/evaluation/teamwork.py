"""Work that the processes of one run divide between them, by files in a folder that they share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.files import replace_text


@dataclass(frozen=True)
class Part:
    """Work that one process does for all. Its name is the same in each of them; ``after`` must be done before."""

    name: str
    work: Callable[[], None]
    after: tuple[Part, ...] = ()


class Team:
    """The processes that have ``folder`` in common. A lost process loses its locks: others do what it was at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[str, float] = {}

    def agreed(self, name: str, make: Callable[[], str]) -> str:
        """What ``make`` returned to the process that asked first."""
        path = self._path(name, "agreed")
        with FileLock(self._path(name, "lock")):
            if not path.is_file():
                replace_text(path, make())
        return path.read_text("utf-8")

    def seconds(self, part: Part) -> float | None:
        """What ``part`` took, or None if it is not done."""
        if part.name not in self._done:
            try:
                self._done[part.name] = float(self._path(part.name, "done").read_text("utf-8"))
            except FileNotFoundError:
                return None
        return self._done[part.name]

    def left(self, parts: Sequence[Part]) -> list[Part]:
        """Those that are not done."""
        return [part for part in parts if self.seconds(part) is None]

    def attempt(self, parts: Sequence[Part]) -> bool:
        """Does the first of ``parts`` that can be done and that nobody is at; whether there was one."""
        return any(self._take(part, 0) for part in self._ready(parts))

    def wait(self, parts: Sequence[Part]) -> None:
        """Waits for the first of ``parts`` that others are at; does it if they were lost."""
        for part in self._ready(parts)[:1]:
            self._take(part, -1)

    def _ready(self, parts: Sequence[Part]) -> list[Part]:
        return [part for part in self.left(parts) if not self.left(part.after)]

    def _take(self, part: Part, timeout: float) -> bool:
        try:
            held = FileLock(self._path(part.name, "lock")).acquire(timeout=timeout)
        except Timeout:
            return False
        with held:
            if self.seconds(part) is not None:
                return False
            started = time.monotonic()
            part.work()
            replace_text(self._path(part.name, "done"), repr(time.monotonic() - started))
        return True

    def _path(self, name: str, kind: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.{kind}"
