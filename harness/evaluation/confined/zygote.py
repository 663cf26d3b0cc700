"""Makes a confined process for each program, ahead of time; it has never seen a test.

Forked from the runner before the first request, so nothing that a program can find in its own memory comes from any
test or any other program. For every pair of sockets that it is sent it forks a *keeper*, the first process of a new
process namespace, which forks the program's process, watches its processor and waiting time, and takes everything
with it when it ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import confine
from .plain import send
from .program import serve

PRELOADED = (  # what short programs import: loaded once here instead of once in every process
    "array bisect cmath collections copy datetime decimal fractions functools heapq itertools math operator re "
    "statistics string textwrap typing dataclasses"
)
CHANNEL = 3  # the program's only open file beside the standard three
TICK = 0.02  # seconds between two looks at a program that runs
PATIENCE = 10  # times the wall limit, by the clock: for a machine that gives no processor time at all


@dataclass(frozen=True)
class Setting:
    """What holds for every program: its limits, whether there is a sandbox around, and the seccomp filter."""

    limits: dict[str, Any]
    isolated: bool
    seccomp: bytes


def zygote(control: socket.socket, setting: Setting) -> NoReturn:
    """Serves until the runner is gone."""
    for name in PRELOADED.split():
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, lambda *_: _reap(os.WNOHANG))  # keepers report for themselves
    own = os.open("/proc/self/ns/pid", os.O_RDONLY) if setting.isolated else -1
    gc.collect()
    gc.freeze()
    while True:
        _, files, _, _ = socket.recv_fds(control, 1, 2)
        if len(files) != 2:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _reap(0)
            os._exit(0)
        try:
            if setting.isolated:
                confine.call("setns", own, confine.NEW_PROCESSES)  # the children's goes back to this process's own
                confine.call("unshare", confine.NEW_PROCESSES)
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=files[1]) as channel:
                send(channel, ["fault", f"{error.strerror}"])
            os.close(files[0])
            continue
        if not pid:
            try:
                control.close()
                _keep(socket.socket(fileno=files[0]), socket.socket(fileno=files[1]), setting)
            finally:
                os._exit(1)
        for file in files:
            os.close(file)


def _reap(options: int) -> None:
    """Waits for keepers: what they have taken of the processors is then this process's children's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def _keep(control: socket.socket, channel: socket.socket, setting: Setting) -> None:
    """Has a program's process made, and ends it at a limit or when the runner hangs up; reports how it went."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    confine.follow_parent()
    try:
        scratch = "" if setting.isolated else tempfile.mkdtemp(dir=Path.cwd())
        told, tell = os.pipe()
        pid = os.fork()
    except OSError as error:
        send(channel, ["fault", f"{error.strerror}"])
        return
    if not pid:
        try:
            _become_program(control, channel, tell, scratch, setting)
        finally:
            os._exit(0)
    channel.close()
    os.close(tell)
    number = os.read(told, 32).decode()
    os.close(told)
    schedule = _schedule(number)
    limit = ""
    try:
        if control.recv(1):  # else the runner has ended
            limit = _watch(pid, control, schedule, setting.limits)
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        report = {"limit": limit, "status": status, "cpu": usage.ru_utime + usage.ru_stime}
        with contextlib.suppress(OSError):
            control.sendall(json.dumps(report).encode())
        os._exit(0)


def _watch(pid: int, control: socket.socket, schedule: int, limits: dict[str, Any]) -> str:
    """Returns when the program has ended by itself, when it is over a limit (which), or when the runner hangs up."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    started, queued = time.monotonic(), _queued(schedule)
    while not poll.poll(TICK * 1000) and not _ended(pid):
        if _used(pid) >= limits["cpu_seconds"]:
            return "cpu limit"
        elapsed = time.monotonic() - started
        # Time in which it was ready to run but had no processor is the machine's, not the program's.
        waited = elapsed - (_queued(schedule) - queued)
        if waited >= limits["wall_seconds"] or elapsed >= PATIENCE * limits["wall_seconds"]:
            return "wall limit"
    return ""


def _ended(pid: int) -> bool:
    """Whether a child has ended; it stays there to be waited for."""
    if not hasattr(os, "waitid"):
        return False
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _used(pid: int) -> float:
    """Processor seconds of a child; 0 where the system does not say."""
    if not confine.LINUX:
        return 0.0
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    except OSError:
        return 0.0


def _schedule(number: str) -> int:
    """The open file of a process's scheduling statistics, or -1."""
    try:
        return os.open(f"/proc/{number}/schedstat", os.O_RDONLY)
    except OSError:
        return -1


def _queued(schedule: int) -> float:
    """Seconds that it has waited for a processor so far; 0 where the system does not say."""
    try:
        return int(os.pread(schedule, 100, 0).split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _become_program(control: socket.socket, channel: socket.socket, tell: int, scratch: str, setting: Setting) -> None:
    """Confines this process, says that it is ready or why it is not, and serves."""
    os.setsid()
    if confine.LINUX:
        os.write(tell, os.readlink(b"/proc/self"))  # noqa: PTH115
    os.close(tell)
    control.close()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    if (file := channel.detach()) != CHANNEL:
        os.dup2(file, CHANNEL, inheritable=False)
    channel = socket.socket(fileno=CHANNEL)
    os.closerange(CHANNEL + 1, 1024)
    try:
        if setting.isolated:
            confine.own_views(setting.limits["scratch_bytes"])
            confine.drop_rights()
        else:
            os.chdir(scratch)
            if os.geteuid() == 0:
                with contextlib.suppress(OSError):
                    os.chown(scratch, confine.NOBODY, confine.NOBODY)
                confine.become_nobody()
        confine.follow_parent()  # a change of user undoes it
        confine.limit(setting.limits)
        if setting.isolated and confine.can_fork():
            raise OSError(0, "the number of processes cannot be limited")
        confine.filter_calls(setting.seccomp)
    except OSError as error:
        send(channel, ["fault", f"{error.strerror}"])
        return
    send(channel, ["ready"])
    serve(channel)
