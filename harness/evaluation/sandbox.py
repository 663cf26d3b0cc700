"""Runs short programs that a model wrote against their asserts, outside this process. POSIX only.

A *runner* process with the standard library alone, an empty environment and an empty scratch folder forks one child
for each program. The child has limits on CPU and wall time, memory, file size and open files, can start no process
or thread, and has no standard streams; as root it becomes the user nobody. It and all it started are killed when the
verdict is in. Programs see a fixed hash and random seed, so one program always gets one verdict; installed packages
(numpy, ...) are not there.

What this protects from: endless loops, memory and fork bombs, big files and output, leftover processes, early exits
(``sys.exit``, ``os._exit``) and printed verdicts taken for a pass, a crash of this process.

What it does not protect from: a program may read what its user can read (as root, with an interpreter that only root
can reach: every file), use the network, write many small files wherever its user may, signal its user's processes,
read the verdict's secret out of its own process if it was made to, or return objects whose ``__eq__`` is always true.
Do not run programs from someone who means harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from types import TracebackType

from harness.errors import LayerswapError

_RUNNER_DIED = "the sandbox's process died"
_START_SECONDS = 60.0  # for an interpreter to start on a busy machine
_GRACE_SECONDS = 30.0  # for an answer, beyond the program's own wall limit, before the runner counts as dead


@dataclass(frozen=True)
class Limits:
    """What one program may use: CPU and wall seconds, bytes of address space and of any one file, open files.

    The address space includes the interpreter's own (about 30 MB), the open files its own four.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 5.0
    memory_bytes: int = 512 * 1024**2
    file_bytes: int = 1024**2
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
    """Judges programs one at a time, in one runner that starts with the first program and ends with ``close()``.

    Outcomes are remembered by the text of program and tests. Threads may share a sandbox (they take turns); a forked
    copy starts its own runner. Closing, leaving the ``with`` block, garbage collection and exit all end the runner;
    it ends by itself when this process dies. A closed sandbox starts anew when it is used again.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._memo: dict[bytes, Outcome] = {}
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[int, subprocess.Popen[bytes], str], Sandbox] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, program: str, tests: Sequence[str]) -> Outcome:
        """The outcome of ``program`` followed by each of ``tests`` (source lines with asserts, in its namespace).

        A runner that dies is replaced and the program tried once more; if that one dies too the program has failed.
        Raises LayerswapError where programs cannot be run (no ``fork``, full disk, no process to be had), and
        ValueError without a test, as nothing would be judged.
        """
        if not tests:
            raise ValueError("a program needs at least one test")
        text = json.dumps({"program": program, "tests": list(tests), "limits": asdict(self.limits)}).encode()
        key = hashlib.sha256(text).digest()
        self._leave_fork()
        with self._lock:
            outcome = self._memo.get(key) or self._ask(text) or self._ask(text)
            if outcome is None:
                return Outcome(False, _RUNNER_DIED)
            self._memo[key] = outcome
            return outcome

    def close(self) -> None:
        """End the runner with all that it started and remove its folder. May be called again."""
        self._leave_fork()
        with self._lock:
            self._stop()

    def _leave_fork(self) -> None:
        """In a forked copy of this process: let go of the parent's runner without ending it."""
        if self._owner != os.getpid():
            self._lock, self._owner = threading.Lock(), os.getpid()
            if self._process is not None:
                _close_pipes(self._process)
                self._process.returncode = 0  # not our child: nothing to wait for
            if self._end is not None:
                self._end.detach()
            self._process = self._end = None

    def _ask(self, request: bytes) -> Outcome | None:
        """The runner's answer; None if it died. Anything else that interrupts (Ctrl-C) ends the runner."""
        process = self._process or self._start()
        try:
            _send(process, request)
            passed, reason = json.loads(_receive(process, self.limits.wall_seconds + _GRACE_SECONDS))
            if passed is None:
                raise LayerswapError(f"Generated programs cannot be run here: {reason}.")
            return Outcome(bool(passed), str(reason))
        except (OSError, EOFError):
            self._stop(kill=True)
            return None
        except BaseException:
            self._stop(kill=True)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        if not (hasattr(os, "fork") and hasattr(select, "poll") and sys.executable):
            raise LayerswapError("Generated programs are run in forked processes, which this system does not have.")
        folder = tempfile.mkdtemp(prefix="layerswap-sandbox-")
        try:
            process = subprocess.Popen(
                self._command(),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise LayerswapError(f"The process for generated programs does not start: {error}.") from error
        self._process = process
        self._end = weakref.finalize(self, _end, os.getpid(), process, folder)
        try:
            _receive(process, _START_SECONDS)
        except (OSError, EOFError) as error:
            self._stop(kill=True)
            command = " ".join(self._command())
            raise LayerswapError(
                f"The process for generated programs ends at once; try it by hand: {command}"
            ) from error
        except BaseException:
            self._stop(kill=True)
            raise
        return process

    def _command(self) -> list[str]:
        """Isolated like ``-I``, which would also ignore the hash seed; the script drops its folder from the path."""
        return [sys.executable, "-s", "-S", "-B", str(Path(__file__).with_name("_runner.py"))]

    def _stop(self, kill: bool = False) -> None:
        if self._process is not None and kill:
            _kill(self._process)
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _send(process: subprocess.Popen[bytes], message: bytes) -> None:
    assert process.stdin is not None
    left = memoryview(struct.pack(">I", len(message)) + message)
    while left:
        left = left[process.stdin.write(left) or 0 :]


def _receive(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One frame. EOFError if the runner is gone, TimeoutError (an OSError) if it says nothing for that long."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    text = b""
    while len(text) < 4 or len(text) < 4 + struct.unpack(">I", text[:4])[0]:
        if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            raise TimeoutError
        piece = os.read(pipe, 65536)
        if not piece:
            raise EOFError
        text += piece
    return text[4:]


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the runner's group; its child is in another, and dies by its parent-death signal (Linux) or its limits."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(owner: int, process: subprocess.Popen[bytes], folder: str) -> None:
    """Close the runner's stdin, on which it kills its child and leaves; kill it if it does not."""
    if os.getpid() != owner:
        return
    _close_pipes(process)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
