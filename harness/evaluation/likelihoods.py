"""Log-likelihoods of continuations, read off logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SLICE = 64 * 1024**2  # entries of logits that are taken to float32 at a time


def sums(logits: Tensor, places: list[int], tokens: list[int], owners: list[int]) -> list[tuple[float, bool]]:
    """Sum of log-probabilities, in float32, and whether each token is the likeliest, for every owner.

    ``logits`` are [positions, vocabulary]; each of ``tokens`` is read at one of ``places`` and belongs to one of
    ``owners``, which are numbered from 0.
    """
    import torch

    device = logits.device
    where, token, owner = (torch.tensor(values, device=device) for values in (places, tokens, owners))
    best = logits.argmax(-1)
    missed = (best[where] != token).float()
    chances = torch.empty_like(missed)
    step = max(1, SLICE // logits.shape[-1])
    for begin in range(0, len(logits), step):
        chosen = (where >= begin) & (where < begin + step)
        rows = torch.log_softmax(logits[begin : begin + step], -1, dtype=torch.float32)
        chances[chosen] = rows[where[chosen] - begin, token[chosen]]
    count = owners[-1] + 1
    totals = torch.zeros(count, device=device).index_add_(0, owner, chances)
    misses = torch.zeros(count, device=device).index_add_(0, owner, missed)
    return [(chance, miss == 0) for chance, miss in zip(totals.tolist(), misses.tolist(), strict=True)]
