"""Files that are read with one clear error, files that are replaced in one step, and folders that appear in one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from harness.errors import LayerswapError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Taken(LayerswapError):
    """Something of that name has appeared where a folder was about to get it."""


def cache_folder() -> Path:
    """Where this user's runs keep things: the folder that LAYERSWAP_CACHE names, else one in the system's caches."""
    if folder := os.environ.get("LAYERSWAP_CACHE"):
        return expanded(folder)
    import platformdirs

    return platformdirs.user_cache_path("pytest-layerswap")


def expanded(place: str | Path) -> Path:
    """``place`` with ``~`` as the home folder; a user that the system does not know stays as it is written."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        return Path(place)


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, where the file that it is lies in ``folder``; the hub's cache may keep it among its blobs.

    Raises :class:`LayerswapError` for absolute names, for ``..``, and for links that lead elsewhere: what a stranger's
    checkpoint names must not be read from another place, let alone be copied from there into a merged model.
    """
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    wrong = not name or not name.isprintable() or len(name) > 255 or ".." in parts or PureWindowsPath(name).anchor
    if wrong or PurePosixPath(name).is_absolute():
        raise LayerswapError(f"{str(folder)!r}: {shortened(name)} is no name of a file in that folder")
    path, root = folder / name, folder.resolve()
    homes = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise LayerswapError(f"{str(path)!r} is a link that cannot be followed: {error}") from error
    if not any(real.is_relative_to(home) for home in homes):
        raise LayerswapError(f"{str(path)!r} leads out of its folder, to {str(real)!r}: put a copy of the file there")
    return path


def shortened(value: object, most: int = 60) -> str:
    """``repr`` of a value that may be anything, for a message."""
    import reprlib

    short = reprlib.Repr()
    short.maxstring = short.maxother = most
    return short.repr(value)


def read_text(path: Path, newline: str | None = None) -> str:
    """The text of a UTF-8 file; ``newline`` as of :func:`open`. Raises :class:`LayerswapError` naming the file."""
    try:
        with path.open(encoding="utf-8", newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise LayerswapError(f"{path}: not in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise LayerswapError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises :class:`LayerswapError` naming the file and, where there is one, the line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise LayerswapError(f"{path}: not JSON that can be read: nested too deep") from None
    except ValueError as error:  # also a number of more digits than Python reads
        raise LayerswapError(f"{path}: not JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """As :func:`read_json`, of a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise LayerswapError(f"{path}: expected a JSON object, found {shortened(value)}")
    return value


def file_state(path: Path) -> list[str | int]:
    """What changes when a file does: place, name, device, inode, bytes and time of change; :class:`OSError` if none."""
    seen = path.stat()
    return [str(path.resolve()), path.name, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns]


def replace_text(path: Path, text: str) -> None:
    """As :func:`replace_bytes`, in UTF-8, with the line ends that ``text`` has."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step, making its folder: a killed process leaves the old file or the new.

    Raises :class:`OSError` with the name of ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # which names the temporary file or, where the disk is full, none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def atomic_folder(target: Path, flush: bool = True, hidden: str = "") -> Iterator[Path]:
    """A hidden folder beside ``target`` that takes its name when the block ends well, and is removed otherwise.

    ``flush`` waits for the disk first, so that not even a power cut leaves a damaged folder under the name. What a
    killed process has left is removed by the next one that writes to a ``target`` of that name or, if it is given, with
    the same ``hidden`` name. Raises :class:`LayerswapError` where the system refuses, :class:`Taken` if ``target`` is
    there when the block ends.
    """
    prefix = f".{hidden or target.name}.partial-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        held = _hold(folder)
    except OSError as error:
        raise LayerswapError(f"cannot write to {str(target.parent)!r}: {error.strerror}") from error
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
        for path in (*folder.iterdir(), folder) if flush else ():
            _flush(path)
        _named(folder, target)
        if flush:
            _flush(target.parent)
    except OSError as error:
        raise LayerswapError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _named(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise Taken(f"cannot write {str(target)!r}: {error.strerror}") from error


def _hold(folder: Path) -> int | None:
    """A lock on a folder that the system gives up with the process; None if another process has it."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes what killed processes have left: they hold no lock any more.

    A folder gets a minute, so that its maker has the time to lock it.
    """
    for folder in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
        with suppress(OSError):
            if fcntl is not None and time.time() - folder.stat().st_mtime > 60 and (held := _hold(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk: a rename must not get there first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
