"""How often Python looks for garbage while a run goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 100_000  # objects that are made between two looks at the youngest


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Meanwhile Python looks for garbage less often.

    Importing torch, transformers and lm-eval makes half a million objects that stay: with Python's own threshold of
    700 the looks take 6 % of a run of small models.
    """
    before = gc.get_threshold()
    if before[0]:  # 0 is never
        gc.set_threshold(max(before[0], SELDOM), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
