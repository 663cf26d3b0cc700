"""What lies between the matrix products of a Llama layer, in fewer passes over memory: bit for bit what it was.

Small models spend half of their time there. Only where no gradient is wanted.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# What attention is given, as it is known here: another version of transformers keeps its own.
_TAKES = ("self", "hidden_states", "position_embeddings", "attention_mask", "past_key_values", "kwargs")


@cache
def quick_classes() -> Mapping[type, type]:
    """A quicker class for each of transformers' classes that have one; an instance may change into it."""
    import torch
    from torch import nn
    from transformers import AttentionInterface
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

    if tuple(inspect.signature(LlamaAttention.forward).parameters) != _TAKES:
        return {}

    class Attention(LlamaAttention):
        """Turns queries and keys where they lie, not head by head."""

        def forward(
            self,
            hidden_states: Tensor,
            position_embeddings: tuple[Tensor, Tensor] | None = None,
            attention_mask: Tensor | None = None,
            past_key_values: Any = None,
            **kwargs: Any,
        ) -> tuple[Tensor, Tensor | None]:
            if torch.is_grad_enabled() or position_embeddings is None:
                found: tuple[Tensor, Tensor | None] = super().forward(
                    hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
                )
                return found
            shape = (*hidden_states.shape[:-1], -1, self.head_dim)
            query = turned(self.q_proj(hidden_states), *position_embeddings).view(shape).transpose(1, 2)
            key = turned(self.k_proj(hidden_states), *position_embeddings).view(shape).transpose(1, 2)
            value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)
            attend = AttentionInterface()[self.config._attn_implementation]
            output, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
            return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights

    class MLP(LlamaMLP):
        """Activates and multiplies in place."""

        def forward(self, x: Tensor) -> Any:
            if torch.is_grad_enabled() or self.config.hidden_act != "silu":
                return super().forward(x)
            return self.down_proj(nn.functional.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))

    class RMSNorm(LlamaRMSNorm):
        """Scales in place."""

        def forward(self, hidden_states: Tensor) -> Tensor:
            if torch.is_grad_enabled() or hidden_states.dtype != torch.float32:
                given: Tensor = super().forward(hidden_states)
                return given
            scale = hidden_states.pow(2).mean(-1, keepdim=True).add_(self.variance_epsilon).rsqrt_()
            return (hidden_states * scale).mul_(self.weight)

    return {LlamaAttention: Attention, LlamaMLP: MLP, LlamaRMSNorm: RMSNorm}


def turned(flat: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions of all heads [rows, tokens, heads * width], by angles [rows or 1, tokens, width]."""
    import torch

    width = cosine.shape[-1]
    heads = flat.shape[-1] // width
    wide: dict[int, tuple[Tensor, Tensor]] | None = getattr(cosine, "wide", None)
    if wide is None:
        wide = cosine.wide = {}  # type: ignore[attr-defined]  # of one pass: all its layers have the same angles
    if heads not in wide:
        signed = torch.cat((-sine[..., : width // 2], sine[..., width // 2 :]), -1)
        wide[heads] = cosine.repeat(1, 1, heads), signed.repeat(1, 1, heads)
    across, along = wide[heads]
    half = torch.roll(flat.view(-1, width), width // 2, 1).view(flat.shape)
    return (flat * across).add_(half.mul_(along))
