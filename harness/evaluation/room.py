"""How the memory of a GPU is divided, chosen once before a run: weights, passes, written answers, hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.errors import LayerswapError

TOKENS = (16384, 8192, 4096, 2048, 1024, 512)  # of a pass, the largest that fits
USABLE = 0.92  # of what is free: the rest is fragments and libraries' own
LOGITS = 256 * 1024**2  # entries read at a time, of 10 bytes each: as they come, in float32, and as they go
# Tensors as wide as the model, and as its feed-forward layers, that a pass is taken to have at a time: estimated.
HIDDEN, INNER = 12, 4
READ_AHEAD = 4  # tokens whose keys and values are held while answers are written, to one of a pass


@dataclass(frozen=True)
class Room:
    """Bytes for experts' slots (``weights``), averaged ones (``computed``) and hidden states (``held``).

    ``tokens`` are those of a pass, ``decoding`` those whose keys and values a batch holds while it writes answers.
    """

    tokens: int
    decoding: int
    weights: int
    computed: int
    held: int

    @property
    def text(self) -> str:
        """For reports."""
        return (
            f"{self.weights / 1e9:.1f} GB for experts' weights, {self.computed / 1e9:.1f} GB for computed ones, "
            f"{self.held / 1e9:.1f} GB for hidden states; {self.tokens:,} tokens a pass, "
            f"{self.decoding:,} while decoding"
        )


def divided(free: int, model: int, experts: int, memory: int, config: Any, itemsize: int) -> Room:
    """What to do with ``free`` bytes for variants of ``model`` bytes, of ``experts`` such checkpoints.

    ``memory`` are the bytes that the user allows for computed slots and hidden states, half of it each; what all
    experts leave goes to these two. Raises :class:`LayerswapError` if not even one variant has room.
    """
    usable = int(USABLE * free)
    for tokens in TOKENS:
        work = work_bytes(config, itemsize, tokens) + memory
        if usable - work >= model:
            weights = min(usable - work, experts * model)
            half = memory // 2 + (usable - work - weights) // 2
            return Room(tokens, READ_AHEAD * tokens, weights, half, half)
    raise LayerswapError(
        f"the device has {free / 1e9:.1f} GB free; a variant takes {model / 1e9:.1f} GB, and work beside it "
        f"{work / 1e9:.1f} GB: take a smaller dtype, or allow less by --ablation-memory"
    )


def work_bytes(config: Any, itemsize: int, tokens: int) -> int:
    """What a pass of so many tokens takes beside weights, by a model's shapes: activations, logits, keys, values."""
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    activations = itemsize * tokens * (HIDDEN * text.hidden_size + INNER * inner)
    return int(activations + 10 * LOGITS + READ_AHEAD * tokens * bytes_of_a_token(config, itemsize))


def bytes_of_a_token(config: Any, itemsize: int) -> int:
    """What a token's keys and values take, in all layers."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * itemsize)


def free_bytes(device: str) -> int | None:
    """What a CUDA device has free, what torch holds without need included; None for others, which do not say."""
    if not device.startswith("cuda"):
        return None
    import torch

    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
