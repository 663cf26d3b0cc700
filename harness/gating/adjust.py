"""p-values of several comparisons at once: what they are worth as a family. Pure, standard library only."""

from __future__ import annotations

from collections.abc import Sequence


def holm(pvalues: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for being a family (S. Holm, Scand. J. Statist. 6 (1979), 65-70), in the order given.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection in the family at
    alpha, whatever the dependence between the tests.
    """
    adjusted = [0.0] * len(pvalues)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=pvalues.__getitem__)):
        largest = max(largest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def benjamini_hochberg(pvalues: Sequence[float]) -> tuple[float, ...]:
    """q-values: p-values adjusted for the share of false discoveries, in the order given.

    Rejecting where the q-value is at most alpha keeps the expected share of false rejections among all rejections at
    alpha, for independent tests and for positively dependent ones, such as cases held against one reference. It finds
    more than :func:`holm` and promises less. Source: Y. Benjamini and Y. Hochberg, Journal of the Royal Statistical
    Society B 57 (1995), 289-300; dependence: Benjamini and Yekutieli, Annals of Statistics 29 (2001), 1165-1188.
    """
    adjusted = [0.0] * len(pvalues)
    smallest = 1.0
    ranked = sorted(range(len(pvalues)), key=pvalues.__getitem__)
    for rank, index in reversed(list(enumerate(ranked, start=1))):
        smallest = min(smallest, pvalues[index] * len(pvalues) / rank)
        adjusted[index] = smallest
    return tuple(adjusted)
