"""The same arithmetic by faster kernels: on a CPU, mostly in float32 with AVX-512, and steps of decoding on a GPU."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Parts = Sequence[tuple[int, int, Tensor | None]]  # see harness.evaluation.sharing.Tensors.masks

LEAST_ROWS = 128  # below, choosing a kernel takes longer than the better one saves, and so does a call for each head
OTHER = ("position_bias", "softcap", "cache", "s_aux")  # what some models ask of attention beside the usual
PARTS, PRODUCTS = "sdpa_by_parts", "sdpa_or_products"  # what transformers know this package's attention by
SHORT = 96  # tokens a row, above which attention by blocks is faster than by plain products


def quicken(model: Any) -> None:
    """Gives a model on a CPU faster attention, and a float32 model on an AVX-512 processor linear layers too, in place.

    Torch calls MKL for linear layers, which on processors of other makers than its own keeps to 256-bit kernels: half
    the rate of oneDNN, which comes with torch too. On Intel's it is the faster one, and stays. And torch's fused
    attention computes what remains of a row beyond a multiple of 16 tokens one by one, which costs short rows most of
    their time. Sums are taken in another order: nothing else changes. What lies between the products is done in fewer
    passes over memory where a layer is Llama's: see :mod:`layers`. Other dtypes and processors keep torch's attention,
    but of long rows that branch each branch by itself.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    from harness.evaluation.layers import quick_classes

    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch._C._has_mkldnn
    if wide and not _is_intel():
        for module in model.modules():
            if type(module) is torch.nn.Linear and _is_plain(module.weight):
                module.__class__ = _linear()
    config = getattr(model, "config", None)
    if config is None or config._attn_implementation != "sdpa":
        return
    if not (wide and all(map(_is_plain, model.parameters()))):
        AttentionInterface.register(PARTS, _attention_by_parts)
        AttentionMaskInterface.register(PARTS, sdpa_mask)
        model.set_attn_implementation(PARTS)
        return
    AttentionInterface.register(PRODUCTS, _attention)
    AttentionMaskInterface.register(PRODUCTS, _mask)
    model.set_attn_implementation(PRODUCTS)
    if getattr(config, "hidden_act", None) == "silu":
        quick = quick_classes(_attention)
        for module in model.modules():
            module.__class__ = quick.get(type(module), type(module))


def reads_parts(config: Any) -> bool:
    """Whether a model's attention is this package's, which reads the ``parts`` of a mask."""
    return config._attn_implementation in (PARTS, PRODUCTS)


@cache
def _is_intel() -> bool:
    """Whether the processor is of MKL's own maker."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return "Intel" in platform.processor()


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and str(tensor.dtype) == "torch.float32"


@cache
def _linear() -> Any:
    import torch

    product = torch.ops.mkldnn._linear_pointwise

    class Linear(torch.nn.Linear):  # here, since the base class is torch's
        """A linear layer whose product is oneDNN's when it has many rows and no gradient is wanted."""

        def forward(self, hidden: Tensor) -> Tensor:
            if hidden.numel() < LEAST_ROWS * self.in_features or torch.is_grad_enabled():
                return super().forward(hidden)
            result: Tensor = product(hidden, self.weight, self.bias, "none", [], "")
            return result

    return Linear


def _mask(**given: Any) -> Any:
    """A mask that is added, for products, or what ``sdpa`` gets: for a plain text none, which takes half the time."""
    from transformers.masking_utils import eager_mask, sdpa_mask

    return (eager_mask if given["kv_length"] <= SHORT else sdpa_mask)(**given)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of [rows, heads, tokens, width], as transformers' ``sdpa`` gives it."""
    import torch
    from transformers.integrations.sdpa_attention import repeat_kv

    if attention_mask is None or not attention_mask.is_floating_point() or key.shape[2] > SHORT or _is_unusual(options):
        return _attention_by_parts(module, query, key, value, attention_mask, **options)
    scaling = options["scaling"]
    groups = query.shape[1] // key.shape[1]
    alike = attention_mask.shape[1] == 1  # all heads' masks
    if alike and query.shape[2] > 1 and query.shape[0] * query.shape[2] >= LEAST_ROWS:
        mask = attention_mask[:, 0]
        found = [
            _one_head(query[:, i], key[:, i // groups], value[:, i // groups], mask, scaling)
            for i in range(query.shape[1])
        ]
        return torch.stack(found, 2), None
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    seen = torch.matmul(query * scaling, key.transpose(2, 3)).add_(attention_mask)
    return torch.matmul(torch.softmax(seen, -1), value).transpose(1, 2), None


def _is_unusual(options: dict[str, Any]) -> bool:
    """Whether a model asks for more than attention with a scale and a mask."""
    asked = options.get("dropout") or any(options.get(name) is not None for name in OTHER)
    return bool(asked) or options.get("scaling") is None


def _attention_by_parts(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """As transformers' ``sdpa``, but of a long row that branches part by part."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    parts = getattr(attention_mask, "parts", None)
    if parts and key.shape[2] > SHORT and not _is_unusual(options):
        return _by_parts(query, key, value, parts, options["scaling"]), None
    result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return result


def _one_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """[rows, tokens, width] from views, of which no copy is made as products of all heads at once would need."""
    import torch

    return torch.bmm(torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling), -1), value)


def _by_parts(query: Tensor, key: Tensor, value: Tensor, parts: Parts, scaling: float) -> Tensor:
    """[1, tokens, heads, width], part by part: each reads its own keys after those of the first, which is plain text.

    38 questions of 96 tokens after 500 of exemplars have a seventh of the pairs that their row would have as a whole.
    """
    import torch
    from transformers.integrations.sdpa_attention import repeat_kv

    attend = torch.nn.functional.scaled_dot_product_attention
    key, value = (repeat_kv(tensor, query.shape[1] // key.shape[1]) for tensor in (key, value))
    stem = parts[0][1]
    found = [attend(query[:, :, :stem], key[:, :, :stem], value[:, :, :stem], is_causal=True, scale=scaling)]
    room = stem + max(end - start for start, end, _ in parts[1:])
    keys, values = key[:, :, :room].clone(), value[:, :, :room].clone()  # what one part sees after the other
    for start, end, mask in parts[1:]:
        last = stem + end - start
        keys[:, :, stem:last], values[:, :, stem:last] = key[:, :, start:end], value[:, :, start:end]
        mine = query[:, :, start:end], keys[:, :, :last], values[:, :, :last]
        found.append(attend(*mine, attn_mask=mask, scale=scaling))
    return torch.cat(found, 2).transpose(1, 2)


@contextmanager
def grouped() -> Iterator[None]:
    """Has ``sdpa`` read keys that heads share where they lie, for one token a row. Not thread-safe.

    transformers 5.17 repeats them first, which writes and reads them once a head; a step is bound by what it reads.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _grouped_attention
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before


def _grouped_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Heads that share keys stand where the tokens of a query would: [rows, heads that keys have, sharing, width]."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, tokens, width = query.shape
    unusual = any(options.get(name) is not None for name in OTHER) or options.get("dropout")
    if attention_mask is None or attention_mask.shape[1] > 1 or tokens > 1 or heads == key.shape[1] or unusual:
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return result
    packed = query.reshape(rows, key.shape[1], -1, width)
    found = torch.nn.functional.scaled_dot_product_attention(
        packed, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return found.reshape(rows, 1, heads, -1), None
