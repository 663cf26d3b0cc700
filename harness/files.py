"""Files that are replaced in one step, and folders that appear in one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import LayerswapError


def cache_folder() -> Path:
    """Where this user's runs keep things: the folder that LAYERSWAP_CACHE names, else one in the system's caches."""
    if folder := os.environ.get("LAYERSWAP_CACHE"):
        return Path(folder).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("pytest-layerswap")


def replace_text(path: Path, text: str) -> None:
    """As :func:`replace_bytes`, in UTF-8, with the line ends that ``text`` has."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step, making its folder: a killed process leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, flush: bool = True) -> Iterator[Path]:
    """A hidden folder beside ``target`` that takes its name when the block ends well, and is removed otherwise.

    ``flush`` waits for the disk first, so that not even a power cut leaves a damaged folder under the name. Raises
    :class:`LayerswapError` where the system refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise LayerswapError(f"cannot write to {str(target.parent)!r}: {error.strerror}") from error
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
        for path in (*folder.iterdir(), folder) if flush else ():
            _flush(path)
        folder.rename(target)
        if flush:
            _flush(target.parent)
    except OSError as error:
        raise LayerswapError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk: a rename must not get there first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
