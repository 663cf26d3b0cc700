"""What is done when memory runs out in the middle of a sweep: half the batch, then each variant by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import LayerswapError, out_of_memory
from harness.evaluation.benchmarks import score_all
from harness.evaluation.engine import Engine, Sizes
from harness.evaluation.sharing import Variant
from harness.merging.residence import free_memory

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.scores import Score

T = TypeVar("T")
Ask = Callable[[Engine, Sequence[Variant]], None]


class ShortOfMemoryError(LayerswapError):
    """There is not enough memory for one variant, even with half the batch; others may have it."""

    def __init__(self, device: str, rows: int) -> None:
        super().__init__(
            f"there is not enough memory on {device} to evaluate this variant, even with {rows} rows a batch: lower "
            "the profile's batch_size or --ablation-memory, or take a smaller dtype"
        )


def score_each(
    columns: Sequence[Column],
    variants: Sequence[Variant],
    answers: Callable[[Column, Variant], Sequence[Any]],
    done: Callable[[str, tuple[Score, ...]], None],
) -> dict[str, ShortOfMemoryError]:
    """As :func:`harness.evaluation.benchmarks.score_all`; returns the variants that memory did not suffice for."""
    failed = {}
    for variant in variants:
        try:
            score_all(columns, [variant], answers, done)
        except ShortOfMemoryError as error:
            failed[variant.identity] = error
    return failed


def sparing(ask: Ask, engine: Engine, variants: Sequence[Variant]) -> set[str]:
    """Asks all ``variants`` together; if memory runs out, with half the batch; if it does again, one after the other.

    After the first time no graphs are made, which have memory of their own. Returns the identities of those that there
    was no memory for. ``ask`` goes on where it was.
    """
    if _asked(ask, engine, variants):
        return set()
    smaller = replace(engine, sizes=halved(engine), graphs=None)
    if _asked(ask, smaller, variants):
        return set()
    return {variant.identity for variant in variants if not _asked(ask, smaller, [variant])}


def halved(engine: Engine) -> Sizes:
    """Half of all that takes memory, one batch at a time: of what batches were, where they might have been larger."""
    sizes, largest = engine.sizes, engine.counts
    return replace(
        sizes,
        rows=max(1, min(sizes.rows, largest.rows or sizes.rows) // 2),
        tokens=max(1, min(sizes.tokens, largest.tokens or sizes.tokens) // 2),
        decoding=(sizes.decoding or 4 * sizes.tokens) // 2,
        held_bytes=sizes.held_bytes // 2,
        together=sizes.together // 2,
        logits=sizes.logits // 2,
        threads=1,
    )


def _asked(ask: Ask, engine: Engine, variants: Sequence[Variant]) -> bool:
    try:
        ask(engine, variants)
        return True
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory(engine.device)  # here, since the exception held what was computed so far
    return False


def stock_answers(ask: Callable[[int], T], device: str, rows: int) -> T:
    """What ``ask(rows)`` returns, or ``ask`` of half as many; raises :class:`ShortOfMemoryError` if that fails too."""
    for some in (rows, max(1, rows // 2)):
        try:
            return ask(some)
        except Exception as error:
            if not out_of_memory(error):
                raise
        free_memory(device)
    raise ShortOfMemoryError(device, some)
