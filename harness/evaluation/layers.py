"""What lies between the matrix products of a Llama layer, in fewer passes over memory.

Small models spend half of their time there and in the calls of modules. Only in inference mode, in which this package
asks: whoever trains, or registers hooks on what a layer is made of, gets transformers' own code. The numbers are bit
for bit those, but in small layers, where queries, keys and values are one product and norms sum squares that they do
not write down: these differ in the last bits.
"""

from __future__ import annotations

import copy
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
# Weights of a layer's queries, keys and values, up to which a copy of them in one costs next to nothing; of a norm, the
# square of its width.
SMALL = 2**16


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
            # Not with a cache: its keys would not be in transformers' order, which may be asked to go on with it.
            if past_key_values is None and (joined := _joined(self)) is not None:
                flat = joined.forward(hidden_states)
                heads = flat.shape[-1] // self.head_dim
                keys = heads // (self.num_key_value_groups + 2)
                turn_pairs(flat, *position_embeddings, heads - keys)
                query, key, value = torch.split(flat.view(shape).transpose(1, 2), [heads - 2 * keys, keys, keys], 1)
            else:
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
            width = hidden_states.shape[-1]
            if width * width > SMALL:
                mean = hidden_states.pow(2).mean(-1, keepdim=True)
            else:
                mean = torch.linalg.vector_norm(hidden_states, dim=-1, keepdim=True).square_().div_(width)
            return (hidden_states * mean.add_(self.variance_epsilon).rsqrt_()).mul_(self._parameters["weight"])

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


def _joined(attention: Any) -> Any:
    """One linear layer for queries, keys and values of a small layer, made where it is first asked for; else None.

    The two numbers that a rotary position turns together, half a head apart, come one after the other: in queries and
    keys alike, which leaves their products as they are.
    """
    import torch

    projections = [attention._modules[name] for name in ("q_proj", "k_proj", "v_proj")]
    if any(not isinstance(p, torch.nn.Linear) or p.bias is not None for p in projections):
        return None
    weights = [p.weight for p in projections]
    if sum(w.numel() for w in weights) > SMALL:
        return None
    # A weight that is replaced, or changed in place where torch counts that, is joined anew.
    versions = [0 if w.is_inference() else w._version for w in weights]
    known = attention.__dict__.get("joined")
    if known is None or known[1] != versions or any(a is not b for a, b in zip(known[0], weights, strict=True)):
        width, hidden = attention.head_dim, weights[0].shape[1]
        turned_together = torch.arange(width).view(2, -1).t().reshape(-1)
        ordered = [w.view(-1, width, hidden)[:, turned_together].reshape(-1, hidden) for w in weights[:2]]
        joined = copy.copy(projections[0])  # of its class: whose product it is
        whole = torch.cat((*ordered, weights[2]))
        joined.__dict__.update(_parameters={"weight": whole, "bias": None}, out_features=len(whole))
        known = attention.__dict__["joined"] = (weights, versions, joined)
    return known[2]


def turn_pairs(flat: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> None:
    """Rotary positions of the first ``heads`` of [rows, tokens, heads * width], in place: pairs lie side by side."""
    import torch

    half = cosine.shape[-1] // 2
    wide = _wide(cosine)
    if ("pairs", heads) not in wide:
        wide["pairs", heads] = torch.complex(cosine[..., :half], sine[..., :half]).repeat(1, 1, heads)
    pairs = torch.view_as_complex(flat.view(*flat.shape[:2], -1, 2))
    pairs[..., : heads * half].mul_(wide["pairs", heads])


def _wide(cosine: Tensor) -> dict[Any, Any]:
    """What is made of angles for all heads, kept with them: they are of one pass, and all its layers have the same."""
    found: dict[Any, Any] | None = getattr(cosine, "wide", None)
    if found is None:
        found = cosine.wide = {}  # type: ignore[attr-defined]
    return found


def turned(flat: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions of all heads [rows, tokens, heads * width], by angles [rows or 1, tokens, width]."""
    import torch

    width = cosine.shape[-1]
    heads = flat.shape[-1] // width
    wide = _wide(cosine)
    if heads not in wide:
        signed = torch.cat((-sine[..., : width // 2], sine[..., width // 2 :]), -1)
        wide[heads] = cosine.repeat(1, 1, heads), signed.repeat(1, 1, heads)
    across, along = wide[heads]
    half = torch.roll(flat.view(-1, width), width // 2, 1).view(flat.shape)
    result: Tensor = (flat * across).add_(half.mul_(along))
    return result
