"""Writing safetensors files: stored tensors are copied as bytes, others come as bytes when their turn comes."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import LayerswapError
from harness.merging.headers import DTYPES, Range, itemsize
from harness.merging.ranges import copy_range, reserve, write_all

_FLUSH_SECONDS = 0.1
_PAGE = 4096  # bytes


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: dtype (torch's name), shape, and its bytes: a stored range, or what makes them."""

    dtype: str
    shape: tuple[int, ...]
    content: Range | Callable[[], Iterable[memoryview]]


def write_tensors(path: Path, tensors: Mapping[str, Planned], flush: bool = False) -> int:
    """Writes a safetensors file, making each tensor when its turn comes; returns the bytes of all tensors.

    What lies together in a source and in the result is copied together. ``flush`` has the disk begin before the end.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * itemsize(tensor.dtype)
        kind = next(stored for stored, known in DTYPES.items() if known == tensor.dtype)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * _padding(len(text) + 8, tensors, header)
    with ExitStack() as stack:
        open_files: dict[Path, BinaryIO] = {}

        def copy(run: list[Range]) -> None:
            if run:
                file = run[0].path
                if file not in open_files:
                    open_files[file] = stack.enter_context(file.open("rb", buffering=0))
                copy_range(open_files[file], run[0].begin, run[-1].end, target)

        target: BinaryIO = stack.enter_context(path.open("wb", buffering=0))
        reserve(target, 8 + len(text) + end)
        write_all(target, memoryview(len(text).to_bytes(8, "little") + text))
        if flush:
            stack.enter_context(_flushing(target))
        run: list[Range] = []
        for name, planned in tensors.items():
            content, expected = planned.content, math.prod(planned.shape) * itemsize(planned.dtype)
            if isinstance(content, Range):
                if content.end - content.begin != expected:
                    raise LayerswapError(
                        f"{str(content.path)!r} is damaged: {name} has another size than its shape says"
                    )
                if run and (run[-1].path, run[-1].end) != (content.path, content.begin):
                    copy(run)
                    run = []
                run.append(content)
                continue
            copy(run)
            run, written = [], 0
            for block in content():
                write_all(target, block)
                written += block.nbytes
            if written != expected:
                raise LayerswapError(f"{name}: {written} bytes were made, planned were {expected} ({planned})")
        copy(run)
    return end


def _padding(length: int, tensors: Mapping[str, Planned], header: Mapping[str, Any]) -> int:
    """Spaces after a header that would end at ``length``, for most bytes to lie within their pages as in the source.

    The system copies such bytes page by page, which takes half as long. The format wants data aligned to 8 bytes.
    """
    places: Counter[int] = Counter()
    for name, tensor in tensors.items():
        if isinstance(source := tensor.content, Range):
            places[(source.begin - header[name]["data_offsets"][0]) % _PAGE] += source.end - source.begin
    wanted = max((place for place in places if place % 8 == 0), key=places.__getitem__, default=-1)
    return -length % 8 if wanted < 0 else (wanted - length) % _PAGE


@contextmanager
def _flushing(target: BinaryIO) -> Iterator[None]:
    """Has the disk write while the block adds to ``target``: at its end, less is left to wait for."""
    done, failed = threading.Event(), []

    def flush() -> None:
        while not done.wait(_FLUSH_SECONDS):
            try:
                os.fsync(target.fileno())
            except OSError as error:  # the system reports it once
                failed.append(error)
                return

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]
