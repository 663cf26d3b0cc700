"""The sandbox's own first process: takes requests, and has each judged by two processes that share one channel.

Frames on stdin and stdout are a four-byte length and JSON. First come the limits, what there is around, and the
seccomp filter; then a program with its tests each time. Out go ``[passed, reason]``, where ``passed`` is null if this
machine, not the program, is at fault. It ends when stdin closes or its owner's process ends, and everything in the
sandbox ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from . import confine
from .judge import EXITED, Lost, judge
from .plain import receive
from .zygote import PATIENCE, Setting, zygote

NONCE_BYTES = 16
VERDICT_BYTES = 2048
PASSED, FAILED, FAULT, LOST = b"passed", b"failed", b"fault ", b"lost  "  # what follows the nonce, then the reason
CHECK = {"program": "import pickle\ndef f(x): return pickle.loads(pickle.dumps(x))", "tests": ["assert f(1) == 1"]}


class Cell:
    """A program's process that waits for its program, by the runner's ends of its sockets."""

    def __init__(self, zygote: socket.socket) -> None:
        self._control, keepers = socket.socketpair()
        self.channel, programs = socket.socketpair()
        with keepers, programs:
            socket.send_fds(zygote, [b"+"], [keepers.fileno(), programs.fileno()])

    def start(self) -> None:
        """From here on its time counts."""
        with contextlib.suppress(OSError):
            self._control.sendall(b"!")

    def stop(self) -> None:
        """Have it killed, without waiting for that."""
        self.channel.close()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    def end(self) -> dict[str, Any]:
        """Have it killed; how it ended, once nothing of it is left."""
        self.stop()
        text = b""
        with contextlib.suppress(OSError), self._control:
            while piece := self._control.recv(4096):
                text += piece
        return dict(json.loads(text)) if text else {}


class Runner:
    """Serves requests one at a time, with the next cell made meanwhile and the last one taken down."""

    def __init__(self, setting: Setting, watched: list[int]) -> None:
        self._setting = setting
        self._watched = watched
        self._zygote, theirs = socket.socketpair()
        self._zygote_pid = os.fork()
        if not self._zygote_pid:
            try:
                self._zygote.close()
                confine.follow_parent()
                for file in (0, 1, *watched):
                    with contextlib.suppress(OSError):
                        os.close(file)
                null = os.open(os.devnull, os.O_RDWR)
                for standard in (0, 1, 2):
                    os.dup2(null, standard)
                zygote(theirs, setting)
            finally:
                os._exit(1)
        theirs.close()
        self._next = Cell(self._zygote)
        self._last: Cell | None = None
        gc.collect()
        gc.freeze()

    def run(self, request: dict[str, Any]) -> tuple[bool | None, str]:
        """The verdict on one program; None for a fault of this machine."""
        cell = self._next
        source, report = os.pipe()
        nonce = os.urandom(NONCE_BYTES)
        cell.start()
        pid = os.fork()
        if not pid:
            try:
                os.close(source)
                self._judge(request, cell, nonce, report)
            finally:
                os._exit(0)
        os.close(report)
        self._next = Cell(self._zygote)
        if self._last is not None:
            self._last.end()
        self._last = None
        try:
            text, late = self._verdict(source)
        except EOFError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            cell.end()
            raise
        os.close(source)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        kind = text[NONCE_BYTES:][: len(PASSED)] if text.startswith(nonce) else b""
        reason = text[NONCE_BYTES + len(PASSED) :].decode("utf-8", "replace")
        if kind in (PASSED, FAILED, FAULT):
            cell.stop()
            self._last = cell
            return {PASSED: True, FAILED: False, FAULT: None}[kind], reason
        ended = cell.end()
        if kind == LOST:
            return False, _ending(ended.get("status", 0), ended.get("cpu", 0.0), ended.get("limit", ""), self._setting)
        return False, "wall limit" if late else _ending(status, usage.ru_utime + usage.ru_stime, "", self._setting)

    def close(self) -> None:
        """Ends what waits."""
        for cell in (self._next, self._last):
            if cell is not None:
                cell.end()
        self._zygote.close()
        os.waitpid(self._zygote_pid, 0)

    def _judge(self, request: dict[str, Any], cell: Cell, nonce: bytes, report: int) -> None:
        """Judge and write the nonce with the verdict: what a program has to guess, in a pipe that it does not have."""
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        if self._setting.isolated:
            confine.drop_capabilities()
        confine.limit({**self._setting.limits, "open_files": 64})
        try:
            kind, *text = receive(cell.channel)
        except EOFError:
            kind, *text = "fault", "the program's process did not start"
        if kind != "ready":
            os.write(report, nonce + FAULT + str(text[0]).encode())
            return
        try:
            reason = judge(request["program"], request["tests"], cell.channel)
        except Lost:
            os.write(report, nonce + LOST)
            return
        os.write(report, nonce + (FAILED + reason.encode("utf-8", "replace") if reason else PASSED + b"passed"))

    def _verdict(self, source: int) -> tuple[bytes, bool]:
        """What the judge wrote until it closed the pipe, and whether it was too late for that."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        for file in self._watched:
            poll.register(file, 0 if file == 0 else select.POLLIN)  # of stdin, the hang-up only
        deadline = time.monotonic() + 2 * PATIENCE * self._setting.limits["wall_seconds"]
        text = b""
        while len(text) < VERDICT_BYTES:
            ready = dict(poll.poll(1000 * max(0.0, deadline - time.monotonic())))
            if not ready:
                return text, True
            if set(ready) & set(self._watched):
                raise EOFError
            piece = os.read(source, VERDICT_BYTES)
            if not piece:
                break
            text += piece
        return text, False


def _ending(status: int, used: float, limit: str, setting: Setting) -> str:
    """Why a process ended before its verdict."""
    if limit:
        return limit
    by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if used >= setting.limits["cpu_seconds"] or by == signal.SIGXCPU:
        return "cpu limit"
    if by not in (0, signal.SIGKILL):
        return f"killed by signal {by} ({signal.strsignal(by)})"
    return EXITED


def _read(size: int, watched: list[int]) -> bytes:
    """Exactly ``size`` bytes of stdin. EOFError when it closes, or when the watched process has ended."""
    poll = select.poll()
    for file in watched:
        poll.register(file, select.POLLIN)
    text = bytearray()
    while len(text) < size:
        if set(dict(poll.poll())) - {0}:
            raise EOFError
        piece = os.read(0, size - len(text))
        if not piece:
            raise EOFError
        text += piece
    return bytes(text)


def _request(watched: list[int]) -> Any:
    (size,) = struct.unpack(">I", _read(4, watched))
    return json.loads(_read(size, watched))


def _write(message: object) -> None:
    text = json.dumps(message).encode()
    os.write(1, struct.pack(">I", len(text)) + text)


def main() -> NoReturn:
    """Serve until stdin closes. The argument, if any, is an open file that tells when the owner's process has ended."""
    sys.path.pop()  # the folder of this package: its neighbours are not for programs
    watched = [0, *(int(file) for file in sys.argv[1:])]
    del sys.argv[1:]
    folder = ""
    try:
        confine.guard()
        facts = _request(watched)
        if facts["isolated"]:
            confine.keep_devices()
        else:
            folder = str(Path.cwd())
        runner = Runner(Setting(facts["limits"], facts["isolated"], bytes.fromhex(facts["seccomp"])), watched)
        _write(runner.run(CHECK))
        while True:
            request = _request(watched)
            try:
                answer = runner.run(request)
            except (EOFError, BrokenPipeError):
                raise
            except OSError as error:  # no process to be had, a full disk
                answer = None, f"{type(error).__name__}: {error}"
            _write(answer)
    except (EOFError, BrokenPipeError):
        with contextlib.suppress(NameError, OSError):
            runner.close()
        if folder:  # of the programs' scratch folders
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
