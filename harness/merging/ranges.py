"""Bytes from file to file: the system copies them where it can, and reads ahead of what is being written."""

from __future__ import annotations

import errno
import os
import sys
from typing import BinaryIO

from harness.errors import LayerswapError

_BLOCK = 32 << 20  # bytes a call: the next block is read ahead while this one is copied
_BUFFER = 1 << 20
_KEEP_SIZE = 1  # the file stays as long as what has been written


def copy_range(source: BinaryIO, begin: int, end: int, target: BinaryIO) -> None:
    """Appends bytes ``begin`` to ``end`` of ``source`` to ``target``; both files are unbuffered.

    Raises :class:`LayerswapError` if the source ends too early, OSError if the disk is full.
    """
    in_kernel = hasattr(os, "copy_file_range")
    _read_ahead(source, begin, min(begin + _BLOCK, end))
    while begin < end:
        size = min(_BLOCK, end - begin)
        _read_ahead(source, begin + size, min(begin + 2 * _BLOCK, end))
        copied = 0
        if in_kernel:
            try:
                copied = os.copy_file_range(source.fileno(), target.fileno(), size, begin)
            except OSError:  # another file system, or one that cannot; a full disk fails again below
                in_kernel = False
        if not copied:
            copied = _copy_buffered(source, begin, size, target)
        begin += copied


def reserve(target: BinaryIO, size: int) -> None:
    """Has the system set aside ``size`` bytes for a file, where it can: then copying takes less, and cannot run out.

    Raises :class:`OSError` if the disk has not so many. Not by :func:`os.posix_fallocate`, which writes to every block
    where the file system cannot set aside.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    allocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if allocate is None:
        return
    allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if allocate(target.fileno(), _KEEP_SIZE, 0, size) != 0 and ctypes.get_errno() in (errno.ENOSPC, errno.EDQUOT):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target.name)


def write_all(target: BinaryIO, data: memoryview) -> None:
    """Writes all of ``data``, which an unbuffered file may take in several turns."""
    while data.nbytes:
        data = data[target.write(data) :]


def _copy_buffered(source: BinaryIO, begin: int, size: int, target: BinaryIO) -> int:
    source.seek(begin)
    done = 0
    while done < size:
        block = source.read(min(_BUFFER, size - done))
        if not block:
            raise LayerswapError(f"{str(source.name)!r} is cut off or no safetensors file")
        write_all(target, memoryview(block))
        done += len(block)
    return done


def _read_ahead(source: BinaryIO, begin: int, end: int) -> None:
    if begin < end and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(source.fileno(), begin, end - begin, os.POSIX_FADV_WILLNEED)
