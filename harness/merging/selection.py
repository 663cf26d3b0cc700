"""The k-th largest of very many magnitudes, exactly, without sorting and without holding all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Pieces = Callable[[int], Iterator[Floats]]

# So many values are held and selected from at once (16 MB); of more, a sample says which ones need to be.
HELD = 1 << 22
_SAMPLE = 1 << 18
_FEW = 1 << 12  # values of a sample; of hardly more than these it says too little
_MARGIN = 0.008  # of the sample, on both sides: about eight standard errors of a quantile


def kth_largest(pieces: Pieces, total: int, keep: int) -> float:
    """The ``keep``-th largest of ``total`` non-negative float32 values; 0.0 if all are kept.

    ``pieces(step)`` yields the values as flat arrays, all of them for step 1 and else every ``step``-th of each array.
    They are gone through once if they are few, up to four times otherwise.
    """
    import numpy as np

    if keep >= total:
        return 0.0
    if total > HELD:
        found = _by_sample(pieces, total, keep)
        return found if found is not None else _by_bits(pieces, keep)
    values = np.empty(total, np.float32)
    end = 0
    for piece in pieces(1):
        values[end : end + piece.size] = piece
        end += piece.size
    return select(values, keep)


def select(values: Floats, keep: int) -> float:
    """The same of values in memory, which it may put into another order.

    Counting is faster than moving: a sample's values say by bisection between which two neighbours the wanted one lies,
    and only what lies there is sorted. numpy's partition took 7 times as long (AVX-512 on an AMD Zen 5).
    """
    import numpy as np

    place = values.size - keep
    if place <= 0:
        return 0.0
    if values.size <= 8 * _FEW or np.count_nonzero(values >= 0) < values.size:  # few, or some are not numbers
        values.partition(place)
        return float(values[place])
    sample = np.unique(values[:: values.size // _FEW | 1])
    low, high = -1, sample.size  # the wanted value is in sample[low] <= value < sample[high]
    above = 0  # how many are >= sample[high]
    while high - low > 1:
        middle = (low + high) // 2
        reach = int(np.count_nonzero(values >= sample[middle]))
        low, high, above = (middle, high, above) if reach >= keep else (low, middle, reach)
    inside = values < sample[high] if high < sample.size else np.ones(values.shape, bool)
    if low >= 0:
        over = values > sample[low]
        if np.count_nonzero(over) < keep:
            return float(sample[low])
        inside &= over
    return float(np.sort(values[inside])[above - keep])


def _by_sample(pieces: Pieces, total: int, keep: int) -> float | None:
    """Selects among the values near the one that a sample suggests; None if it suggests wrongly, or too many."""
    import numpy as np

    sample = np.sort(np.concatenate([piece.copy() for piece in pieces(max(1, total // _SAMPLE))]))
    place = (1 - keep / total) * sample.size
    low = sample[max(0, int(place - _MARGIN * sample.size))]
    high = sample[min(sample.size - 1, int(place + _MARGIN * sample.size))]
    above = reach_high = reach_low = 0  # how many are > high, >= high, >= low: very many may be equal to either
    inside: list[Floats] = []
    held = 0
    for piece in pieces(1):
        over_low = piece > low
        at_high = piece >= high
        above += int(np.count_nonzero(piece > high))
        reach_high += int(np.count_nonzero(at_high))
        reach_low += int(np.count_nonzero(piece >= low))
        near = piece[over_low > at_high]
        inside.append(near)
        held += near.size
        if held > max(HELD, total // 16):
            return None
    if not above < keep <= reach_low:
        return None
    if keep <= reach_high:
        return float(high)
    if keep > reach_high + held:
        return float(low)
    return select(np.concatenate(inside), keep - reach_high)


def _by_bits(pieces: Pieces, keep: int) -> float:
    """Two histograms: the bits of a non-negative float order like integers, so the upper 16 and then the lower do."""
    import numpy as np

    chosen = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for piece in pieces(1):
            bits = piece.view(np.uint32)
            if shift == 0:
                bits = bits[(bits >> 16) == chosen]
            counts += np.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16)
        reached = np.cumsum(counts[::-1])
        offset = int(np.argmax(reached >= keep))
        keep -= int(reached[offset - 1]) if offset else 0
        chosen = (chosen << 16) | (0xFFFF - offset)
    return float(np.array(chosen, np.uint32).view(np.float32))
