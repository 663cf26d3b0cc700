"""The process that judges generated programs for :mod:`harness.evaluation.sandbox`: one forked child for each.

It is started as a script and imports only the standard library. Frames on stdin and stdout are a four-byte length
and JSON: in come a program, its tests and the limits, out go ``[passed, reason]``, where ``passed`` is null if this
machine, not the program, is at fault. It ends when stdin closes or its parent is gone, and removes its working
directory, which holds the programs' scratch folders.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this script's folder: its neighbours are not for programs

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import random
import resource
import select
import shutil
import signal
import struct
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

PRELOADED = (  # what short programs import: loaded once here instead of once in every child
    "array bisect cmath collections copy datetime decimal fractions functools heapq itertools math operator re "
    "statistics string textwrap typing dataclasses"
)
NOBODY = 65534  # the user that programs run as when the runner is root
REPORT = 3  # the child's file descriptor for the verdict
REPORT_BYTES = 2048
NONCE_BYTES = 16
PASSED, FAILED, FAULT = b"passed", b"failed", b"fault "  # what follows the nonce, then the reason
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_KEEP_CAPABILITIES, SET_SUBREAPER, SET_NO_NEW_PRIVILEGES = 1, 4, 8, 36, 38
READ_SEARCH = 1 << 2  # the bit of CAP_DAC_READ_SEARCH
RESERVE = 4 * 1024**2  # bytes set free when a program has used up its memory, to say so


class Confinement:
    """What a child gives up before the program starts. Linux does all of it, other systems the limits alone."""

    def __init__(self) -> None:
        self._linux = sys.platform == "linux"
        self._root = os.geteuid() == 0
        library = Path(os.__file__).resolve()
        self._private_library = not all(path.stat().st_mode & 1 for path in library.parents)
        if self._linux:
            libc = ctypes.CDLL(None)
            self._prctl: Callable[..., int] = libc.prctl
            self._capset: Callable[..., int] = libc.capset
            self._prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
            self._prctl(SET_DUMPABLE, 0, 0, 0, 0)  # a child of the same user cannot open this process's pipes
            self._prctl(SET_SUBREAPER, 1, 0, 0, 0)  # what a program leaves behind becomes this process's child

    def own(self, scratch: str) -> None:
        """Give the scratch folder to the user that the program runs as."""
        if self._root:
            with contextlib.suppress(OSError):
                os.chown(scratch, NOBODY, NOBODY)

    def enter(self, limits: dict[str, int]) -> None:
        """Apply every limit to this process, for good."""
        if self._root:
            with contextlib.suppress(OSError):  # a container without this right: its root is no better than a user
                self._become_nobody()
        if self._linux:
            self._prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        for name, soft, hard in (
            ("RLIMIT_CPU", limits["cpu_seconds"], limits["cpu_seconds"] + 1),
            ("RLIMIT_AS", limits["memory_bytes"], limits["memory_bytes"]),
            ("RLIMIT_FSIZE", limits["file_bytes"], limits["file_bytes"]),
            ("RLIMIT_NOFILE", limits["open_files"], limits["open_files"]),
            ("RLIMIT_CORE", 0, 0),
            ("RLIMIT_NPROC", 0, 0),  # no further process or thread
        ):
            which = getattr(resource, name)
            ceiling = resource.getrlimit(which)[1]
            values = [value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in (soft, hard)]
            try:
                resource.setrlimit(which, (values[0], values[1]))
            except (OSError, ValueError):
                if self._linux:
                    raise

    def _become_nobody(self) -> None:
        keep = self._linux and self._private_library
        if keep:  # the interpreter lives in root's own folder: keep the right to read, and nothing else
            self._prctl(SET_KEEP_CAPABILITIES, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        if keep:
            header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
            self._capset(header, struct.pack("6I", READ_SEARCH, READ_SEARCH, 0, 0, 0, 0))


def described(error: BaseException) -> str:
    """An exception in one line; its own text may come from the program, so it is not trusted to be printable."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "?"
    return f"{type(error).__name__}: {text}"[:200]


def judge(program: str, tests: list[str], namespace: dict[str, Any]) -> str:
    """Run the program and then every test in its namespace; '' if all held, otherwise the reason.

    What the program could replace is bound before it starts: only an assert that raises nothing counts.
    """
    _reserve = mmap.mmap(-1, RESERVE)  # freed on return
    run, settrace, setprofile = exec, sys.settrace, sys.setprofile
    try:
        checks = [compile(test, "<test>", "exec", dont_inherit=True, optimize=0) for test in tests]
    except (SyntaxError, ValueError) as error:
        return f"unreadable test: {described(error)}"
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError) as error:  # NUL bytes and lone surrogates are ValueErrors
        return f"SyntaxError: {described(error).partition(': ')[2]}"[:200]
    except MemoryError:
        return "memory"
    try:
        run(code, namespace)
        for check in checks:
            settrace(None)
            setprofile(None)
            run(check, namespace)
    except AssertionError:
        return "assertion failed"
    except MemoryError:
        return "memory"
    except (SystemExit, GeneratorExit):
        return "exited before the asserts"
    except BaseException as error:
        return described(error)
    return ""


def child(request: dict[str, Any], report: int, nonce: bytes, scratch: str, runner: int, confine: Confinement) -> None:
    """Confine this process, judge, and write the nonce with the verdict. The caller ends the process."""
    write, process, identity = os.write, os.getpid, os.getpid()
    os.setsid()
    os.chdir(scratch)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(report, 9, inheritable=False)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.dup2(9, REPORT, inheritable=False)
    os.closerange(REPORT + 1, 64)
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    random.seed(0)  # the same program gets the same verdict every time
    try:
        confine.enter(request["limits"])
    except (OSError, ValueError) as error:
        write(REPORT, nonce + FAULT + described(error).encode())
        return
    if os.getppid() != runner:  # it died before the death signal was set
        return
    reason = judge(request["program"], request["tests"], module.__dict__)
    if process() == identity:  # not a copy that the program made of itself
        write(REPORT, nonce + (FAILED + reason.encode("utf-8", "replace") if reason else PASSED))


def report_of(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """What the child wrote until it closed the pipe, and whether the deadline (monotonic seconds) came first."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(0, 0)  # hang-up only: the parent is gone
    text = b""
    while len(text) < REPORT_BYTES:
        left = deadline - time.monotonic()
        ready = dict(poll.poll(1000 * left)) if left > 0 else {}
        if 0 in ready or not ready:
            return text, True
        piece = os.read(pipe, REPORT_BYTES)
        if not piece:
            break
        text += piece
    return text, False


def stragglers() -> list[int]:
    """Children of this process that are still there: what a program started outside its process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(folder.name))
    return found


def clear(pid: int) -> tuple[int, float]:
    """Kill a child with all that it started; its wait status and CPU seconds."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    with contextlib.suppress(ChildProcessError):  # raised when no child is left, which is the usual case
        while os.waitpid(-1, os.WNOHANG) is not None:
            for straggler in stragglers():
                with contextlib.suppress(OSError):
                    os.kill(straggler, signal.SIGKILL)
    return status, usage.ru_utime + usage.ru_stime


def run(request: dict[str, Any], scratch: str, confine: Confinement) -> tuple[bool | None, str]:
    """The verdict on one program; None for a fault of this machine."""
    limits = request["limits"]
    os.makedirs(scratch, mode=0o700)  # noqa: PTH103
    confine.own(scratch)
    nonce = os.urandom(NONCE_BYTES)
    runner = os.getpid()
    source, report = os.pipe()
    deadline = time.monotonic() + limits["wall_seconds"]
    pid = os.fork()
    if not pid:
        leave = os._exit
        try:
            child(request, report, nonce, scratch, runner, confine)
        finally:
            leave(0)
    os.close(report)
    text, late = report_of(source, deadline)
    os.close(source)
    status, used = clear(pid)
    try:
        os.rmdir(scratch)  # noqa: PTH106
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
    if text == nonce + PASSED:
        return True, "passed"
    if text.startswith(nonce):
        kind, reason = text[NONCE_BYTES:][:6], text[NONCE_BYTES + 6 :].decode("utf-8", "replace")
        return (None if kind == FAULT else False), reason
    if late:
        return False, "wall limit"
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if used >= limits["cpu_seconds"] or ended_by == signal.SIGXCPU:
        return False, "cpu limit"
    if ended_by not in (0, signal.SIGKILL):
        return False, f"killed by signal {ended_by} ({signal.strsignal(ended_by)})"
    return False, "exited before the asserts"


def read(size: int, parent: int) -> bytes:
    """Exactly ``size`` bytes of stdin. EOFError when it closes, or when the parent is no longer there."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    text = b""
    while len(text) < size:
        while not poll.poll(1000):
            if os.getppid() != parent:
                raise EOFError
        piece = os.read(0, size - len(text))
        if not piece:
            raise EOFError
        text += piece
    return text


def write(message: object) -> None:
    """One frame to stdout."""
    text = json.dumps(message).encode()
    os.write(1, struct.pack(">I", len(text)) + text)


def main() -> NoReturn:
    """Serve until stdin closes."""
    folder = str(Path.cwd())
    parent = os.getppid()
    os.environ.clear()
    for name in PRELOADED.split():
        importlib.import_module(name)
    confine = Confinement()
    gc.collect()
    gc.freeze()
    write("ready")
    count = 0
    try:
        while True:
            (size,) = cast("tuple[int]", struct.unpack(">I", read(4, parent)))
            request = json.loads(read(size, parent))
            count += 1
            try:
                answer = run(request, f"{folder}/{count}", confine)
            except OSError as error:  # no process to be had, a full disk
                answer = None, described(error)
            write(answer)
    except (EOFError, BrokenPipeError):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
