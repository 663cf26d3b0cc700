"""How large batches are: on a CPU as its caches and cores like it, on a GPU as its memory was divided."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.evaluation.engine import Sizes
from harness.evaluation.room import LOGITS, bytes_of_a_token
from harness.evaluation.trials import cost_of

if TYPE_CHECKING:
    from harness.evaluation.room import Room

SMALL = 1e6  # multiply-adds a token and layer, below which cores do better with a batch each than all with one
CACHED = 4 * 1024**2  # bytes of a layer's widest activations: fewer stay nearer to a core, and cost more calls
DECODING = 16384  # tokens whose keys and values a batch holds while it decodes
TOGETHER = 256  # answers that a GPU decodes at a time: a step reads all weights, for however few rows


def sizes_of(model: Any, rows: int, memory: int, device: str, room: Room | None = None) -> Sizes:
    """For batches of so many rows at most, where hidden states may take ``memory`` bytes; on a GPU as ``room`` says."""
    import torch

    config = model.config.get_text_config()
    sizes = Sizes(rows, held_bytes=memory)
    if device == "cpu":
        width = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        sizes = replace(sizes, tokens=max(512, min(16384, CACHED // (4 * width))))
        if cost_of(model).linear < SMALL:
            sizes = replace(sizes, threads=min(8, torch.get_num_threads()), within=1)
        # A step of decoding costs much the same for few rows and for many.
        held = sizes.threads * bytes_of_a_token(config, model.dtype.itemsize)
        sizes = replace(sizes, decoding=max(2 * sizes.tokens, min(DECODING, memory // held)))
    elif room:
        sizes = Sizes(rows, room.tokens, room.decoding, room.held, together=max(rows, TOGETHER), logits=LOGITS)
    return sizes
