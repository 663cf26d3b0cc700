"""The sum of an average's weights, rounded as the tensors are."""

from __future__ import annotations

from collections.abc import Sequence


def total_weight(weights: Sequence[float]) -> float:
    """Σ w, each weight and each sum rounded to float32, in the order given: the divisor that mergekit's linear has too.

    0.3 + 0.3 + 0.3 is one float32 more than 0.9. (From five weights on, mergekit's own order depends on the processor.)
    """
    import numpy as np

    total = np.float32(0.0)
    for weight in weights:
        total = np.float32(total + np.float32(weight))
    return float(total)
