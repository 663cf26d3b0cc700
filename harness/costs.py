"""What a run will cost, roughly: from the sizes of its requests, and from a second of matrix products."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import LayerswapError
from harness.merging.headers import Range

MEASURED = 1.0  # seconds of matrix products
CHARACTERS = 3.0  # of a token, roughly: fewer outside of Latin script


@dataclass(frozen=True)
class Work:
    """What one variant is asked: documents, and tokens to read or write, roughly."""

    documents: int
    tokens: int


def asked(instances: Iterable[Any]) -> Work:
    """The work of a column's requests; of an answer, half of what it may take."""
    by_document = {i.doc_id: i for i in instances}
    read = sum(len(str(i.args[0])) for i in by_document.values()) / CHARACTERS
    written = sum(
        i.args[1].get("max_gen_toks", 256) / 2 if i.request_type == "generate_until" else 4
        for i in by_document.values()
    )
    return Work(len(by_document), round(read + written))


def joined(work: Sequence[Work]) -> Work:
    """The sum of some work."""
    return Work(sum(w.documents for w in work), sum(w.tokens for w in work))


def measure_speed(device: str, dtype: str) -> float:
    """Floating-point operations a second. Raises :class:`LayerswapError` if the device cannot be used."""
    import torch

    kind = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    try:
        a = torch.ones(512, 2048, device=device, dtype=kind)
        b = torch.ones(2048, 2048, device=device, dtype=kind)
        float((a @ b)[0, 0])
        rounds, started = 0, time.monotonic()
        while time.monotonic() - started < MEASURED or not rounds:
            float((a @ b)[0, 0])  # waits for the device
            rounds += 1
        return rounds * 2 * 512 * 2048 * 2048 / (time.monotonic() - started)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LayerswapError(f"device {device!r} cannot be used: {reason}") from error


def parameters(tensors: Mapping[str, Range]) -> int:
    """How many numbers a checkpoint holds."""
    return sum(math.prod(tensor.shape) for tensor in tensors.values())


def estimate(work: Work, layers: int, numbers: int, variants: int, speed: float) -> str:
    """A sentence about a run of so many variants with so many parameters; no time if ``speed`` is 0."""
    text = f"{variants} variants × {work.documents:,} documents × {layers} layers, {work.tokens:,} tokens a variant"
    if not speed:
        return text
    seconds = 2.0 * numbers * work.tokens * variants / speed
    return f"{text}: about {duration(seconds)} if nothing were shared between variants"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
