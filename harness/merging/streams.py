"""Averages, task arithmetic and TIES from file to file in numpy: a few pieces in memory, whatever a tensor's size.

The results are those of :mod:`harness.merging.arithmetic` to the bit (but below 1.2e-38, where floats lose
digits; NaN stays NaN, of whatever bits). torch, which takes seconds to import and 200 MB, is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from harness.merging.floats import PIECE, StoredFloats, stored_bytes
from harness.merging.headers import Range
from harness.merging.selection import HELD, kth_largest, select
from harness.merging.weights import total_weight
from harness.plan import Mix

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float32]]

OPERATIONS = ("linear", "task_arithmetic", "ties")


class Workspace:
    """Memory that tensor after tensor is computed in: new memory would cost more than what is done in it."""

    def __init__(self) -> None:
        self._arrays: dict[int, Floats] = {}

    def array(self, number: int, size: int) -> Floats:
        """An array of ``size`` for one purpose, of whatever content."""
        import numpy as np

        if number not in self._arrays or self._arrays[number].size < size:
            self._arrays[number] = np.empty(size, np.float32)
        return self._arrays[number][:size]


def merged(
    mix: Mix, tensors: Mapping[str, Range], workspace: Workspace, cut: Callable[[str], float] | None = None
) -> Iterator[memoryview]:
    """The bytes of one tensor filled by ``mix`` (one of :data:`OPERATIONS`), in the dtype that all are stored in.

    ``tensors`` gives each expert's stored tensor, of equal shape and dtype; ``cut(expert)`` the whole-model threshold
    of TIES (None: by tensor).
    """
    import numpy as np

    base = mix.parameter("base")
    experts, weights = zip(*mix.sources, strict=True)
    names = [*([str(base)] if base is not None else []), *experts]
    lambda_ = float(mix.parameter("lambda") or 0.0)
    with ExitStack() as stack, np.errstate(all="ignore"):
        parts = [_open(stack, tensors[name]) for name in names]
        if mix.operation == "ties":
            cuts = [cut(name) for name in experts] if cut is not None else None
            results = _ties(mix, parts, weights, cuts, workspace)
        elif mix.operation == "task_arithmetic":
            results = (_task_arithmetic(pieces, weights, lambda_) for pieces in _together(parts))
        else:
            results = (_linear(pieces, weights) for pieces in _together(parts))
        for result in results:
            yield stored_bytes(result, tensors[names[0]].dtype)


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

    for start in range(0, tensor.size, PIECE):
        delta = tensor.piece(start, step) - base.piece(start, step)
        yield np.abs(delta, out=delta)


def _together(parts: Sequence[StoredFloats]) -> Iterator[list[Floats]]:
    return ([part.piece(start) for part in parts] for start in range(0, parts[0].size, PIECE))


def _ties(
    mix: Mix,
    parts: Sequence[StoredFloats],
    weights: Sequence[float],
    cuts: Sequence[float] | None,
    workspace: Workspace,
) -> Iterator[Floats]:
    """A piece of the result at a time; a tensor that is trimmed by itself is read once if it is small."""
    import numpy as np

    base, *experts = parts
    parameters = dict(mix.parameters)
    normalize, lambda_ = bool(parameters["normalize"]), float(parameters["lambda"])
    keep = max(1, int(float(parameters["density"]) * base.size))
    if cuts is not None or base.size > HELD:
        if cuts is None:
            cuts = [kth_largest(lambda step, e=e: _magnitudes(e, base, step), base.size, keep) for e in experts]  # type: ignore[misc]
        for start, *pieces in _together(parts):
            yield _elected(start, [piece - start for piece in pieces], weights, cuts, normalize, lambda_)
        return
    scratch, *held = (workspace.array(number, base.size) for number in range(1 + len(parts)))
    for number, (start, *pieces) in enumerate(_together(parts)):
        place = slice(number * PIECE, number * PIECE + start.size)
        held[0][place] = start
        for delta, piece in zip(held[1:], pieces, strict=True):
            np.subtract(piece, start, out=delta[place])
    cuts = [select(np.abs(delta, out=scratch), keep) for delta in held[1:]]
    for begin in range(0, base.size, PIECE):
        start, *deltas = (values[begin : begin + PIECE] for values in held)
        yield _elected(start, deltas, weights, cuts, normalize, lambda_)


def _linear(pieces: Sequence[Floats], weights: Sequence[float]) -> Floats:
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


def _task_arithmetic(pieces: Sequence[Floats], weights: Sequence[float], lambda_: float) -> Floats:
    start = pieces[0]
    deltas = [weight * (piece - start) for piece, weight in zip(pieces[1:], weights, strict=True)]
    return start + lambda_ * sum(deltas[1:], deltas[0])


def _elected(
    start: Floats,
    changes: Sequence[Floats],
    weights: Sequence[float],
    cuts: Sequence[float],
    normalize: bool,
    lambda_: float,
) -> Floats:
    """Trims, elects and adds to ``start``; overwrites ``changes``."""
    import numpy as np

    for delta, weight, cut in zip(changes, weights, cuts, strict=True):
        delta *= (np.abs(delta) >= np.float32(cut)).view(np.uint8)
        if weight != 1.0:
            delta *= weight
    total = sum(changes[1:], changes[0])
    signs = (total + np.float32(0)).view(np.uint32)  # the sum is +0 where it was -0, which counts as positive
    signs &= 0x80000000
    bits = [delta.view(np.uint32) for delta in changes]
    result = np.zeros_like(start)
    ones = all(weight == 1.0 for weight in weights)
    divisor: Any = np.zeros(start.shape, np.uint16 if ones else np.float32)
    for delta, own, weight in zip(changes, bits, weights, strict=True):
        own ^= signs  # what agrees is above 0
        agrees = (delta > 0).view(np.uint8)
        delta *= agrees
        result += delta
        if normalize:
            divisor += agrees if ones else np.float32(weight) * agrees
    if normalize:  # where nothing agrees, 0 is divided by any number
        np.maximum(divisor, divisor.dtype.type(min(weight for weight in weights if weight > 0)), out=divisor)
        result /= divisor
    view = result.view(np.uint32)
    view ^= signs
    if lambda_ != 1.0:
        result *= lambda_
    result += start
    return result
