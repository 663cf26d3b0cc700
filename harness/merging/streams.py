"""Averages, task arithmetic and TIES from file to file in numpy: a few pieces in memory, whatever a tensor's size.

The results are those of :mod:`harness.merging.arithmetic` to the bit (but below 1.2e-38, where floats lose digits);
torch, which takes seconds to import and 200 MB, is not needed. NaN stays NaN, of whatever bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.errors import LayerswapError
from harness.merging.headers import Range
from harness.merging.selection import kth_largest
from harness.merging.weights import total_weight
from harness.plan import Mix

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float32]]

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}
OPERATIONS = ("linear", "task_arithmetic", "ties")
_PIECE = 1 << 16  # elements: all that a piece needs stays in a core's cache


class StoredFloats:
    """A stored tensor, read as float32 a piece at a time; each piece is overwritten by the next."""

    def __init__(self, stream: BinaryIO, tensor: Range) -> None:
        import numpy as np

        self._stream, self._tensor = stream, tensor
        self.size = math.prod(tensor.shape)
        count = min(_PIECE, self.size)
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
        np.left_shift(raw, 16, out=wide, dtype=np.uint32)
        return wide.view(np.float32)


def merged(mix: Mix, tensors: Mapping[str, Range], cut: Callable[[str], float] | None = None) -> Iterator[memoryview]:
    """The bytes of one tensor filled by ``mix`` (one of :data:`OPERATIONS`), in the dtype that all are stored in.

    ``tensors`` gives each expert's stored tensor, of equal shape and dtype; ``cut(expert)`` the whole-model threshold
    of TIES (None: by tensor).
    """
    import numpy as np

    base = mix.parameter("base")
    names = [*([str(base)] if base is not None else []), *(expert for expert, _ in mix.sources)]
    with ExitStack() as stack, np.errstate(all="ignore"):
        parts = [_open(stack, tensors[name]) for name in names]
        compute = _operation(mix, parts, cut, [name for name, _ in mix.sources])
        dtype = tensors[names[0]].dtype
        for start in range(0, parts[0].size, _PIECE):
            yield _stored(compute([part.piece(start) for part in parts]), dtype)


def model_cut(pairs: Sequence[tuple[Range, Range]], density: float) -> float:
    """The magnitude that an expert's ``max(1, int(density · n))`` largest changes reach; pairs of expert and base."""
    import numpy as np

    total = sum(math.prod(base.shape) for _, base in pairs)

    def pieces(step: int) -> Iterator[Floats]:
        for expert, base in pairs:
            with ExitStack() as stack:
                yield from _magnitudes(_open(stack, expert), _open(stack, base), step)

    with np.errstate(all="ignore"):
        return kth_largest(pieces, total, max(1, int(density * total)))


def _open(stack: ExitStack, tensor: Range) -> StoredFloats:
    return StoredFloats(stack.enter_context(tensor.path.open("rb", buffering=0)), tensor)


def _magnitudes(tensor: StoredFloats, base: StoredFloats, step: int) -> Iterator[Floats]:
    import numpy as np

    for start in range(0, tensor.size, _PIECE):
        delta = tensor.piece(start, step) - base.piece(start, step)
        yield np.abs(delta, out=delta)


def _operation(
    mix: Mix, parts: list[StoredFloats], cut: Callable[[str], float] | None, names: list[str]
) -> Callable[[list[Floats]], Floats]:
    weights, parameters = [weight for _, weight in mix.sources], dict(mix.parameters)
    if mix.operation == "linear":
        return lambda pieces: _linear(pieces, weights)
    lambda_ = float(parameters["lambda"])
    if mix.operation == "task_arithmetic":
        return lambda pieces: _task_arithmetic(pieces, weights, lambda_)
    density, normalize = float(parameters["density"]), bool(parameters["normalize"])
    if cut is not None:
        cuts = [cut(name) for name in names]
    else:
        total = parts[0].size
        keep = max(1, int(density * total))
        cuts = [kth_largest(lambda step, p=p: _magnitudes(p, parts[0], step), total, keep) for p in parts[1:]]  # type: ignore[misc]
    return lambda pieces: _ties(pieces, weights, cuts, normalize, lambda_)


def _linear(pieces: list[Floats], weights: list[float]) -> Floats:
    summed = pieces[0] * weights[0]
    for piece, weight in zip(pieces[1:], weights[1:], strict=True):
        _add_product(summed, piece, weight)
    summed /= total_weight(weights)
    return summed


def _add_product(summed: Floats, piece: Floats, weight: float) -> None:
    """summed += weight · piece, rounded once, as a fused multiply-add does."""
    import numpy as np

    factor = np.float32(weight)
    if math.frexp(factor)[0] == 0.5:  # a power of two: the product is exact
        summed += piece * factor
        return
    product = piece.astype(np.float64)
    product *= np.float64(factor)  # exact
    total = product + summed
    bits = total.view(np.int64)
    # Rounded to float64 a sum may lie half way between two float32s although the true one does not.
    between = np.flatnonzero((bits & 0x1FFFFFFF) == 0x10000000)
    if between.size:
        a, b, s = product[between], summed[between].astype(np.float64), total[between]
        shadow = s - a
        lost = (a - (s - shadow)) + (b - shadow)
        bits[between] += np.where(lost == 0, 0, np.where((lost > 0) == (s > 0), 1, -1))
    summed[:] = total


def _task_arithmetic(pieces: list[Floats], weights: list[float], lambda_: float) -> Floats:
    start = pieces[0]
    deltas = [weight * (piece - start) for piece, weight in zip(pieces[1:], weights, strict=True)]
    return start + lambda_ * sum(deltas[1:], deltas[0])


def _ties(pieces: list[Floats], weights: list[float], cuts: list[float], normalize: bool, lambda_: float) -> Floats:
    import numpy as np

    start, changes = pieces[0], []
    for piece, weight, cut in zip(pieces[1:], weights, cuts, strict=True):
        delta = piece - start
        delta *= np.abs(delta) >= np.float32(cut)
        if weight != 1.0:
            delta *= weight
        changes.append(delta)
    sign = np.where(sum(changes[1:], changes[0]) >= 0, np.float32(1), np.float32(-1))
    result, divisor = np.zeros_like(start), np.zeros_like(start)
    for delta, weight in zip(changes, weights, strict=True):
        agrees = delta * sign > 0
        delta *= agrees
        result += delta
        if normalize:
            divisor += agrees if weight == 1.0 else np.float32(weight) * agrees
    if normalize:
        divisor[divisor == 0] = 1
        result /= divisor
    result *= lambda_
    result += start
    return result


def _stored(values: Floats, dtype: str) -> memoryview:
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
