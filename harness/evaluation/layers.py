"""What lies between the matrix products of a Llama layer, in fewer passes over memory: bit for bit what it was.

Small models spend half of their time there and in the calls of modules. Only in inference mode, in which this package
asks: whoever trains, or registers hooks on what a layer is made of, gets transformers' own code.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    Places = tuple[Tensor, Tensor]  # rows and columns of a batch

# What transformers' own code is given, as it is known here: another version keeps it.
_ATTENTION = ("self", "hidden_states", "position_embeddings", "attention_mask", "past_key_values", "kwargs")
_LAYER = (*_ATTENTION[:2], "attention_mask", "position_ids", "past_key_values", "use_cache", "position_embeddings")


@cache
def quick_classes(attend: Callable[..., tuple[Tensor, None]]) -> Mapping[type, type]:
    """A quicker class for each of transformers' classes that have one, with this attention of one's own.

    An instance may change into it if its activation is SiLU.
    """
    import torch
    from torch import nn
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm

    known = {LlamaAttention: _ATTENTION, LlamaDecoderLayer: (*_LAYER, "kwargs")}
    if any(tuple(inspect.signature(of.forward).parameters) != takes for of, takes in known.items()):
        return {}
    quick = torch.is_inference_mode_enabled

    class Attention(LlamaAttention):  # type: ignore[misc]
        """Turns queries and keys where they lie, not head by head."""

        def forward(
            self,
            hidden_states: Tensor,
            position_embeddings: tuple[Tensor, Tensor] | None = None,
            attention_mask: Tensor | None = None,
            past_key_values: Any = None,
            places: Places | None = None,
            **kwargs: Any,
        ) -> Any:
            if not quick() or position_embeddings is None:
                return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)
            own = self._modules
            shape = (*hidden_states.shape[:-1], -1, self.head_dim)
            query, key, value = (own[name].forward(hidden_states) for name in ("q_proj", "k_proj", "v_proj"))
            query = turned(query, *position_embeddings).view(shape).transpose(1, 2)
            key = turned(key, *position_embeddings).view(shape).transpose(1, 2)
            value = value.view(shape).transpose(1, 2)
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)
            output, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
            output = output.reshape(*hidden_states.shape[:-1], -1)
            return own["o_proj"].forward(output if places is None else output[places][None]), None

    class MLP(LlamaMLP):  # type: ignore[misc]
        """Activates and multiplies in place."""

        def forward(self, x: Tensor) -> Any:
            if not quick():
                return super().forward(x)
            own = self._modules
            gate = nn.functional.silu(own["gate_proj"].forward(x), inplace=True)
            return own["down_proj"].forward(gate.mul_(own["up_proj"].forward(x)))

    class RMSNorm(LlamaRMSNorm):  # type: ignore[misc]
        """Scales in place."""

        def forward(self, hidden_states: Tensor) -> Any:
            if not quick():
                return super().forward(hidden_states)
            scale = hidden_states.pow(2).mean(-1, keepdim=True).add_(self.variance_epsilon).rsqrt_()
            return (hidden_states * scale).mul_(self._parameters["weight"])

    class Layer(LlamaDecoderLayer):  # type: ignore[misc]
        """Calls what it is made of without the machinery of modules, and adds in place."""

        @property
        def narrows(self) -> bool:
            """Whether :meth:`forward` takes ``places``: it gives what it computes there, [1, places, hidden] wide."""
            return type(self._modules["self_attn"]) is Attention

        def forward(
            self,
            hidden_states: Tensor,
            attention_mask: Tensor | None = None,
            position_ids: Tensor | None = None,
            past_key_values: Any = None,
            use_cache: bool | None = False,
            position_embeddings: tuple[Tensor, Tensor] | None = None,
            places: Places | None = None,
            **kwargs: Any,
        ) -> Any:
            own = self._modules
            if not quick() or not self.narrows:
                return super().forward(
                    hidden_states,
                    attention_mask,
                    position_ids,
                    past_key_values,
                    use_cache,
                    position_embeddings,
                    **kwargs,
                )
            normed = own["input_layernorm"].forward(hidden_states)
            output, _ = own["self_attn"].forward(
                normed, position_embeddings, attention_mask, past_key_values, places=places, **kwargs
            )
            output = output.add_(hidden_states if places is None else hidden_states[places][None])
            return own["mlp"].forward(own["post_attention_layernorm"].forward(output)).add_(output)

    return {LlamaAttention: Attention, LlamaMLP: MLP, LlamaRMSNorm: RMSNorm, LlamaDecoderLayer: Layer}


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
