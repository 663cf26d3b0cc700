"""What a process gives up before a program runs in it: rights, views and resources, for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import stat
import struct
import sys
from pathlib import Path
from typing import Any

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_PROCESSES = 0x00020000, 0x04000000, 0x08000000, 0x20000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION, REMOUNT, BIND = 1, 2, 4, 8, 32, 4096
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_KEEP_CAPABILITIES, SET_SECCOMP, DROP_BOUNDING = 1, 4, 8, 22, 24
SET_NO_NEW_PRIVILEGES = 38
READ_SEARCH = 1 << 2  # the bit of CAP_DAC_READ_SEARCH
SCRATCH = "/tmp"
SCRATCH_FILES = 1024
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
HIDDEN = ("/proc", "/confined")  # what this package's own processes see, and programs do not
PROGRAM_USER, NOBODY = 1, 65534
LINUX = sys.platform == "linux"
LIBRARY = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A function of the C library; OSError if it fails."""
    if getattr(LIBRARY, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def guard() -> None:
    """Closes this process's memory and files to others of the same user, and forgets its environment.

    No process that it starts can come to a right that it lacks, by whatever file it executes.
    """
    os.environ.clear()
    if LINUX:
        for number in range(64):
            with contextlib.suppress(OSError):  # numbers that this kernel does not know
                call("prctl", DROP_BOUNDING, number, 0, 0, 0)
        call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        call("prctl", SET_DUMPABLE, 0, 0, 0, 0)


def keep_devices() -> None:
    """Devices can be written to as ever, but no longer be changed themselves: they are the machine's own."""
    for path in DEVICES:
        call("mount", None, path.encode(), None, REMOUNT | BIND | READ_ONLY | NO_SUID | NO_EXECUTION, None)


def follow_parent() -> None:
    """Lets this process be killed when its parent ends, where the system can."""
    if LINUX:
        call("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def own_views(scratch_bytes: int) -> None:
    """An empty scratch folder, shared memory and host name of this process's own, and nothing of /proc."""
    call("unshare", NEW_MOUNTS | NEW_IPC | NEW_UTS)
    options = f"size={scratch_bytes},nr_inodes={SCRATCH_FILES},mode=1777".encode()
    call("mount", b"scratch", SCRATCH.encode(), b"tmpfs", NO_SUID | NO_DEVICES, options)
    for folder in HIDDEN:
        flags = READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION
        call("mount", b"nothing", folder.encode(), b"tmpfs", flags, b"size=4k,mode=555")
    os.chdir(SCRATCH)


def drop_rights() -> None:
    """Becomes the sandbox's second user if it has one, and gives up every capability."""
    with contextlib.suppress(OSError):
        os.setgroups([])
    with contextlib.suppress(OSError):
        os.setresgid(PROGRAM_USER, PROGRAM_USER, PROGRAM_USER)
        os.setresuid(PROGRAM_USER, PROGRAM_USER, PROGRAM_USER)
    drop_capabilities()
    call("prctl", SET_DUMPABLE, 0, 0, 0, 0)


def drop_capabilities(kept: int = 0) -> None:
    """Gives up every capability but the bits ``kept`` of the first word."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    call("capset", header, struct.pack("6I", kept, kept, 0, 0, 0, 0))


def become_nobody() -> None:
    """Without a sandbox: root becomes the user nobody, if this container lets it."""
    private = not all(path.stat().st_mode & stat.S_IXOTH for path in Path(os.__file__).resolve().parents)
    keep = LINUX and private  # the interpreter lives in root's own folder: keep the right to read, and nothing else
    with contextlib.suppress(OSError):
        if keep:
            call("prctl", SET_KEEP_CAPABILITIES, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        if keep:
            drop_capabilities(READ_SEARCH)


def filter_calls(program: bytes) -> None:
    """Installs a seccomp filter, in the kernel's own format; nothing if it is empty."""
    if program:
        text = ctypes.create_string_buffer(program, len(program))
        described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
        call("prctl", SET_SECCOMP, 2, ctypes.create_string_buffer(described, len(described)), 0, 0)


def limit(limits: dict[str, Any]) -> None:
    """Applies every limit to this process."""
    for name, soft, hard in (
        ("RLIMIT_CPU", limits["cpu_seconds"], limits["cpu_seconds"] + 1),
        ("RLIMIT_AS", limits["memory_bytes"], limits["memory_bytes"]),
        ("RLIMIT_FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("RLIMIT_NOFILE", limits["open_files"], limits["open_files"]),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_MSGQUEUE", 0, 0),
        ("RLIMIT_MEMLOCK", 0, 0),
        ("RLIMIT_NPROC", 0, 0),  # no further process or thread
    ):
        which = getattr(resource, name, None)
        if which is None:
            continue
        ceiling = resource.getrlimit(which)[1]
        values = [value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in (soft, hard)]
        try:
            resource.setrlimit(which, (values[0], values[1]))
        except (OSError, ValueError):
            if LINUX:
                raise


def can_fork() -> bool:
    """Whether this process could start another: the kernel does not hold every user to the limit."""
    try:
        pid = os.fork()
    except OSError:
        return False
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return True
