"""Answers on their way to the store: a transaction costs as much as many rows, so it waits for some."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.evaluation.responses import Store

SECONDS = 0.5  # of answers that a kill may lose, beside the batch that is being computed


@contextmanager
def gathering(store: Store | None) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Gives a function that keeps a variant's answers by request: in the store within :data:`SECONDS` or at the end.

    The end is also that of a block which an exception ends.
    """
    waiting: dict[str, dict[str, Any]] = {}
    written = time.monotonic()

    def write() -> None:
        nonlocal written
        while waiting and store is not None:
            store.add_responses(*waiting.popitem())
        written = time.monotonic()

    def add(identity: str, answers: Mapping[str, Any]) -> None:
        waiting.setdefault(identity, {}).update(answers)
        if time.monotonic() - written >= SECONDS:
            write()

    try:
        yield add
    finally:
        write()
