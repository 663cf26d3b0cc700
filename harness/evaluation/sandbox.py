"""Judges short programs that a model wrote by their asserts, in a sandbox of bubblewrap. See docs/sandbox.md.

A sandbox is started once; in it every program runs in a process of its own with fresh process, mount and IPC
namespaces, an empty scratch folder, no network, no environment, no rights and limits on all that it may use. Another
process evaluates the asserts and asks the program's for values alone. Programs see a fixed hash and random seed, so one
program always gets one verdict; installed packages (numpy, ...) are not there.

Where there is no bubblewrap or it may not make namespaces, programs are not run, unless they are allowed to run
unconfined: then the limits are all there is. Do not do that with programs from someone who means harm.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, astuple, dataclass
from functools import cache
from types import TracebackType

from harness.errors import LayerswapError
from harness.evaluation.sandbox_command import bubblewrap, seccomp_filter
from harness.evaluation.sandbox_process import RunnerProcess

_RUNNER_DIED = "the sandbox's process died"


@dataclass(frozen=True)
class Limits:
    """What one program may use: CPU and wall seconds, bytes of address space, of any one file and of all, open files.

    The address space includes the interpreter's own (about 30 MB), the open files its own four. Wall seconds do not
    count while the program is ready to run and other processes have the processors.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 5.0
    memory_bytes: int = 512 * 1024**2
    file_bytes: int = 1024**2
    scratch_bytes: int = 16 * 1024**2
    open_files: int = 16

    def __post_init__(self) -> None:
        if not all(value > 0 for value in astuple(self)):
            raise LayerswapError(f"Every limit for generated programs must be above zero: {self}.")


@dataclass(frozen=True)
class Outcome:
    """Whether the program and then every assert ran to its end, and why not.

    ``reason`` is ``passed``, ``assertion failed``, ``cpu limit``, ``wall limit``, ``memory``,
    ``exited before the asserts``, ``killed by signal N (...)``, or an exception in one line (``SyntaxError: ...``).
    """

    passed: bool
    reason: str


class Sandbox:
    """Judges programs, as many at a time as ``size`` and the threads that ask, in runners that stay for the next.

    Outcomes are remembered by the text of program and tests. A forked copy starts its own runners. Closing, leaving the
    ``with`` block, garbage collection and exit all end them; they end by themselves when this process dies. A closed
    sandbox starts anew when it is used again. ``unsafe`` runs programs without confinement, with limits alone.
    """

    def __init__(self, limits: Limits | None = None, unsafe: bool = False, size: int = 2) -> None:
        self.limits = limits or Limits()
        self.unsafe = unsafe
        self.size = size
        self._memo: dict[bytes, Outcome] = {}
        self._start_over()

    def _start_over(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(self.size)
        self._all: list[RunnerProcess] = []
        self._idle: list[RunnerProcess] = []

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, program: str, tests: Sequence[str]) -> Outcome:
        """The outcome of ``program`` followed by each of ``tests`` (source lines with asserts, about its names).

        A runner that dies is replaced and the program tried once more; if that one dies too the program has failed.
        Raises LayerswapError where programs cannot be run (no sandbox, no process to be had), and ValueError without a
        test, as nothing would be judged.
        """
        if not tests:
            raise ValueError("a program needs at least one test")
        text = json.dumps({"program": program, "tests": list(tests)}).encode()
        key = hashlib.sha256(text).digest()
        if key in self._memo:
            return self._memo[key]
        self._leave_fork()
        with self._room:
            outcome = self._ask(text) or self._ask(text)
        if outcome is None:
            return Outcome(False, _RUNNER_DIED)
        return self._memo.setdefault(key, outcome)

    def open(self) -> None:
        """Start a runner now. LayerswapError if programs cannot be run here, with the reason."""
        self._leave_fork()
        with self._room:
            self._idle.append(self._take())

    def close(self) -> None:
        """End the runners with all that they started, once no program is being judged. May be called again."""
        self._leave_fork()
        with contextlib.ExitStack() as stack:
            for _ in range(self.size):
                stack.enter_context(self._room)
            while self._all:
                self._all.pop().end()
            self._idle.clear()

    def _leave_fork(self) -> None:
        """In a forked copy of this process: let go of the parent's runners without ending them."""
        if self._owner != os.getpid():
            for process in self._all:
                process.forget()
            self._start_over()

    def _take(self) -> RunnerProcess:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        process = RunnerProcess(asdict(self.limits), self.unsafe)
        self._all.append(process)
        return process

    def _ask(self, request: bytes) -> Outcome | None:
        """A runner's answer; None if it died. Anything else that interrupts (Ctrl-C) ends the runner."""
        process = self._take()
        try:
            passed, reason = process.ask(request)
        except BaseException as error:
            self._all.remove(process)
            process.end(kill=True)
            if isinstance(error, OSError | EOFError):
                return None
            raise
        self._idle.append(process)
        if passed is None:
            raise LayerswapError(f"Generated programs cannot be run here: {reason}")
        return Outcome(bool(passed), str(reason))


_UNSAFE: ContextVar[bool] = ContextVar("unsafe code", default=False)


@contextlib.contextmanager
def allowing(unsafe: bool) -> Iterator[None]:
    """What is scored inside may run programs without a sandbox where there is none.

    lm-eval hands a metric nothing but a document and an answer, so this goes past it.
    """
    token = _UNSAFE.set(unsafe)
    try:
        yield
    finally:
        _UNSAFE.reset(token)


@cache
def no_sandbox() -> str:
    """Why generated programs cannot be confined on this machine; '' if they can. Tried once."""
    try:
        with Sandbox() as tried:
            tried.open()
    except LayerswapError as error:
        return str(error)
    return ""


def sandbox_facts() -> str:
    """What confines generated programs here, in words. LayerswapError if nothing does."""
    if reason := no_sandbox():
        raise LayerswapError(reason)
    found = bubblewrap()
    calls = "system calls filtered" if seccomp_filter() else "system calls unfiltered (pip install pyseccomp)"
    return f"bubblewrap {found.version} ({found.path}), {calls}"


def shared_sandbox() -> Sandbox:
    """This process's own, with the default limits; inside :func:`allowing` an unconfined one if need be."""
    return _shared(_UNSAFE.get() and bool(no_sandbox()))


@cache
def _shared(unsafe: bool) -> Sandbox:
    sandbox = Sandbox(unsafe=unsafe)
    atexit.register(sandbox.close)
    return sandbox
