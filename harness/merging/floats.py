"""Stored tensors of two- and four-byte floats as numpy's float32, and back; without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.errors import LayerswapError
from harness.merging.headers import Range

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float32]]

DTYPES = ("float32", "float16", "bfloat16")
PIECE = 1 << 15  # elements: what is done to a piece stays in a core's cache


class StoredFloats:
    """A stored tensor, read as float32 a piece at a time; each piece is overwritten by the next."""

    def __init__(self, stream: BinaryIO, tensor: Range) -> None:
        import numpy as np

        self._stream, self._tensor = stream, tensor
        self.size = math.prod(tensor.shape)
        count = min(PIECE, self.size)
        self._raw = np.empty(count, np.uint16 if tensor.dtype == "bfloat16" else tensor.dtype)
        self._wide = np.empty(count, np.uint32)

    def piece(self, start: int, step: int = 1) -> Floats:
        """Elements from ``start`` on, of those every ``step``-th: flat."""
        import numpy as np

        raw = self._raw[: self.size - start]
        view = raw.data.cast("B")
        self._stream.seek(self._tensor.begin + start * raw.itemsize)
        while view.nbytes:
            done = self._stream.readinto(view)  # type: ignore[attr-defined]
            if not done:
                raise LayerswapError(f"{str(self._tensor.path)!r} is cut off or no safetensors file")
            view = view[done:]
        raw = raw[::step]
        if self._tensor.dtype == "float32":
            return raw
        wide = self._wide[: raw.size]
        if self._tensor.dtype == "float16":
            floats: Floats = wide.view(np.float32)
            floats[:] = raw
            return floats
        wide[:] = raw
        wide <<= 16
        return wide.view(np.float32)


def stored_bytes(values: Floats, dtype: str) -> memoryview:
    """The bytes of float32 ``values`` in a stored dtype, rounded to the nearest, half to even."""
    import numpy as np

    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        narrow = rounded.astype(np.uint16)
        nan = np.isnan(values)
        if nan.any():
            narrow[nan] = 0x7FC0
        return narrow.data.cast("B")
    return values.data.cast("B") if dtype == "float32" else values.astype(np.float16).data.cast("B")
