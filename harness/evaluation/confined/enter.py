"""Runs a command as root of a new user namespace that can have none below it: the first step into the sandbox.

Where this process is root, the namespace has a second user besides, for programs: the kernel does not hold root to a
number of processes. ``python enter.py COMMAND...``; OSError if the machine does not allow it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import NoReturn

NEW_USER = 0x10000000


def enter(command: list[str]) -> NoReturn:
    """Makes the namespace, then becomes ``command``."""
    owner, user, group = os.getpid(), os.getuid(), os.getgid()
    ready, entered = os.pipe()
    helper = os.fork()  # maps of two users are written from outside
    if not helper:
        failed = 1
        try:
            os.close(entered)
            os.read(ready, 1)
            _map(owner, user, group)
            failed = 0
        finally:
            os._exit(failed)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USER):
        number = ctypes.get_errno()
        raise OSError(number, f"no user namespace ({os.strerror(number)})")
    os.close(entered)
    if os.waitpid(helper, 0)[1]:
        raise OSError("no user can be mapped into a new user namespace")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    os.execv(command[0], command)


def _map(owner: int, user: int, group: int) -> None:
    folder = Path(f"/proc/{owner}")
    two = "\n1 65534 1" if user == 0 else ""
    if user:
        (folder / "setgroups").write_text("deny")
    for kind, own in (("uid_map", user), ("gid_map", group)):
        try:
            (folder / kind).write_text(f"0 {own} 1{two}\n")
        except OSError:  # a container whose root has no second user to give
            (folder / kind).write_text(f"0 {own} 1\n")


if __name__ == "__main__":
    try:
        enter(sys.argv[1:])
    except OSError as error:
        sys.exit(f"{error.strerror or error}")
