"""Which processes there are, from /proc."""

from __future__ import annotations

import time
from pathlib import Path


def processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        found[int(folder.name)] = (int(parent), state)
    return found


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process has ended, or ends within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if processes().get(pid, (0, "Z"))[1] == "Z":
            return True
        time.sleep(0.02)
    return False


def below(pid: int) -> set[int]:
    """A process and all that descend from it, without those that only wait to be waited for."""
    found, known = {pid}, processes()
    while more := {child for child, (parent, state) in known.items() if parent in found and state != "Z"} - found:
        found |= more
    return found


def settled(pid: int) -> set[int]:
    """All that a runner has started, once it waits for work."""
    last: set[int] = set()
    while (found := below(pid)) != last:
        last = found
        time.sleep(0.05)
    return found


def more_than(count: int, pid: int, seconds: float = 5) -> int:
    """By how many processes more than ``count`` a runner still has, at the end of some time to be rid of them."""
    deadline = time.monotonic() + seconds
    while (left := len(below(pid)) - count) > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    return max(0, left)


def wait_for_program(pid: int) -> set[int]:
    """All that a runner has started, once a program is being judged: a judge is there, and two cells."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if len(found := below(pid)) >= 7:
            return found
        time.sleep(0.01)
    raise AssertionError("no program is being judged")
