"""The process in which programs are judged, as its owner sees it: started, asked, and ended without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping

from harness.errors import LayerswapError
from harness.evaluation.sandbox_command import confined_command, forbidden, plain_command, seccomp_filter

_START_SECONDS = 60.0  # for two interpreters to start on a busy machine
_GRACE_SECONDS = 30.0  # for an answer, beyond what a program can take, before the runner counts as dead
_PATIENCE = 25  # times the program's own wall limit; the runner gives up before


class RunnerProcess:
    """One runner, confined or not. LayerswapError if it does not start, with what it said."""

    def __init__(self, limits: Mapping[str, float], unsafe: bool) -> None:
        if not (hasattr(os, "fork") and hasattr(select, "poll")):
            raise LayerswapError("Generated programs are run in forked processes, which this system does not have.")
        self._wait = _PATIENCE * limits["wall_seconds"] + _GRACE_SECONDS
        # A sandbox has its own folders, in memory.
        folder = tempfile.mkdtemp(prefix="layerswap-sandbox-") if unsafe else ""
        try:
            self._process = _start(unsafe, folder)
        except BaseException as error:
            _remove(folder)
            if isinstance(error, OSError):
                raise LayerswapError(f"The process for generated programs does not start: {error}") from error
            raise
        self._end = weakref.finalize(self, _end, os.getpid(), self._process, folder)
        advice = "" if unsafe else forbidden()
        facts = {"limits": limits, "isolated": not unsafe, "seccomp": "" if unsafe else seccomp_filter().hex()}
        try:
            _send(self._process, json.dumps(facts).encode())
            passed, reason = json.loads(_receive(self._process, _START_SECONDS))
            if not passed:
                raise LayerswapError(f"Generated programs cannot be run here: {reason}{advice}")
        except (OSError, EOFError) as error:
            said = _last_words(self._process)
            self.end(kill=True)
            raise LayerswapError(f"The process for generated programs ends at once: {said}{advice}") from error
        except BaseException:
            self.end(kill=True)
            raise

    @property
    def pid(self) -> int:
        """Of the process that was started: bubblewrap, if there is a sandbox."""
        return self._process.pid

    def ask(self, request: bytes) -> tuple[bool | None, str]:
        """Whether a program passes, and why not; None for a fault of this machine. OSError or EOFError if it died."""
        _send(self._process, request)
        passed, reason = json.loads(_receive(self._process, self._wait))
        return passed, reason

    def end(self, kill: bool = False) -> None:
        """End it with all that it started and remove its folder; ``kill``: at once."""
        if kill:
            _kill(self._process)
        self._end()

    def forget(self) -> None:
        """In a forked copy of its owner: let go of it."""
        _close_pipes(self._process)
        self._process.returncode = 0  # not our child: nothing to wait for
        self._end.detach()


def _start(unsafe: bool, folder: str) -> subprocess.Popen[bytes]:
    watched = _own_life()
    try:
        return subprocess.Popen(
            (plain_command if unsafe else confined_command)([str(file) for file in watched]),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder or "/",
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
            pass_fds=watched,
        )
    finally:
        for file in watched:
            os.close(file)


def _own_life() -> list[int]:
    """A file that becomes readable when this process ends, however it does; none where there is no such thing."""
    try:
        return [os.pidfd_open(os.getpid())]
    except (AttributeError, OSError):
        return []


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """The last line that a process which has failed to start wrote."""
    assert process.stderr is not None
    _kill(process)
    process.wait()
    lines = process.stderr.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")


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
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the runner's group; what is in others dies by its parent-death signal, or by the end of its namespace."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(owner: int, process: subprocess.Popen[bytes], folder: str) -> None:
    """Close the runner's stdin, on which it leaves with all that it started; kill it if it does not."""
    if os.getpid() != owner:
        return
    _close_pipes(process)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()
    _remove(folder)


def _remove(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
