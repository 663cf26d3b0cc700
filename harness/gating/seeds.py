"""Several training runs of one recipe: how much would another run change? Pure and seeded, like the statistics."""

from __future__ import annotations

from collections.abc import Sequence

RESAMPLES = 4_999
SEED = 20_241_004


def hierarchical(
    differences: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean difference, over runs drawn anew and, in each, documents drawn anew.

    ``differences`` holds a sequence of per-document differences for every run. Runs weigh the same. Source: A. C.
    Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), section 3.8. With few runs it is too
    narrow rather than too wide: two or three runs say little about a fourth.

    Raises :class:`ValueError` if there is no run, or one without documents.
    """
    import numpy as np

    if not differences or not all(len(run) for run in differences):
        raise ValueError("a hierarchical bootstrap needs at least one run, and documents in every run")
    rng = np.random.default_rng(SEED)
    runs = [np.asarray(run, dtype=np.float64) for run in differences]
    # Means of resampled documents, as many for each run as that run could be drawn in all resamples.
    drawn = rng.integers(0, len(runs), size=(resamples, len(runs)))
    means = np.empty(drawn.shape)
    for number, run in enumerate(runs):
        places = drawn == number
        counts = rng.multinomial(len(run), np.full(len(run), 1 / len(run)), size=int(places.sum()))
        means[places] = counts @ run / len(run)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means.mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
