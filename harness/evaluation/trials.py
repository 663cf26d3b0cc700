"""What may be done with a model whose code nobody here knows: found out on a few tokens, before it is relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.evaluation.decoding import sees_all
from harness.evaluation.kernels import reads_parts
from harness.evaluation.rows import Cost, pack
from harness.evaluation.sharing import Held, Step, Tensors, Variant, forward, has_other_windows
from harness.evaluation.steps import Steps, is_plain
from harness.evaluation.trees import Batch

# Multiply-adds that a weight of attention counts as beside its products: the best of four values tried on a CPU.
SOFTMAX = 150.0
BRANCH = 1e7  # multiply-adds that computing a branch's attention apart takes as long as, beside its pairs


def can_branch(model: Any, prefix: str, device: str) -> bool:
    """Whether ``model`` scores each path of a branching row as if it stood alone: tried on a few tokens."""
    stem = list(range(1, 9))
    sequences = [[*stem, 10, 11, 12], [*stem, 13, 14], [*stem, 10, 15]]
    try:
        if has_other_windows(model.config):
            return False
        branched = _trial(model, prefix, device, pack(sequences, Cost(1.0)), len(sequences))
        apart = _trial(model, prefix, device, pack(sequences), len(sequences))
    except Exception:  # whatever a model's own code raises: it was not written for such rows
        return False
    return all(_close(a, b) for a, b in zip(branched, apart, strict=True))


def can_score(model: Any, prefix: str, device: str) -> bool:
    """Whether ``model`` gives its own logits when its layers and its head are wrapped: tried on a few tokens."""
    import torch

    sequence = [1, 2, 3, 4, 5, 6]
    try:
        (found,) = _trial(model, prefix, device, pack([sequence]), 1)
        with torch.inference_mode():
            plain = model(input_ids=torch.tensor([sequence], device=device), use_cache=False).logits[0]
        return _close(found, plain)
    except Exception:  # as above
        return False


def can_share(model: Any, prefix: str, device: str) -> bool:
    """Whether ``model`` gives the same logits when its lower layers' result is held: tried on a few tokens."""
    layers = len(model.get_submodule(prefix.rstrip(".")))
    depths = sorted({1, layers // 2, layers - 1} - {0})
    variant = Variant("", (), lambda: model)
    batch = Batch(tuple(sorted(pack([[1, 2, 3, 4, 5, 6], [7, 8, 9]]), key=len, reverse=True)))
    tensors = Tensors(batch, [(0, 5), (1, 2)], 0, device)
    held = Held()
    try:
        first = forward(model, prefix, tensors, held, Step(variant, 0, tuple(depths)))
        others = [forward(model, prefix, tensors, held, Step(variant, depth, tuple(depths))) for depth in depths]
    except Exception:  # as above
        return False
    return all(bool((first == other).all()) for other in others)


def can_step(model: Any) -> bool:
    """Whether ``model`` gives its own logits with keys and values in buffers, as graphs need: tried on a few tokens."""
    import copy
    import inspect

    import torch

    if not sees_all(model) or "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    ids = torch.tensor([[0, 0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10]], device=model.device)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
            past = output.past_key_values
            if not is_plain(past):
                return False
            ids, positions = output.logits[:, -1:].argmax(-1), positions[:, -1:] + 1
            steps = Steps(model, copy.deepcopy(past), ids, mask, positions, 16)
            for _ in range(4):
                mask = torch.cat([mask, mask.new_ones((2, 1))], dim=1)
                plain = model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True
                ).logits[:, -1]
                stepped = steps.forward()
                if not _close(stepped, plain):
                    return False
                ids, positions = stepped.argmax(-1, keepdim=True), positions + 1
    except Exception:  # as above
        return False
    return True


def _trial(model: Any, prefix: str, device: str, rows: Sequence[Any], count: int) -> list[Any]:
    """Logits along every path."""
    found: dict[int, Any] = {}
    step = Step(Variant("", (), lambda: model), 0, ())
    for row in rows:
        picked = [(0, node) for node in range(len(row))]
        logits = forward(model, prefix, Tensors(Batch((row,)), picked, 0, device), Held(), step)
        found.update({number: logits[list(path)] for number, path in row.paths.items()})
    return [found[number] for number in range(count)]


def _close(a: Any, b: Any) -> bool:
    import torch

    within = 1e-4 if a.dtype == torch.float32 else 5e-2
    return bool((a - b).abs().max() <= within * b.abs().max())


def cost_of(model: Any) -> Cost:
    """Multiply-adds of a row, by the shapes of ``model``: a layer's projections a token, attention a pair of tokens.

    What a pair's weight goes through beside the two products counts as :data:`SOFTMAX`. Branches can be computed apart
    by this package's attention, if it is every layer's and no layer sees a window.
    """
    config = model.config.get_text_config()
    embeddings = model.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in model.parameters()) - embeddings
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pair = config.num_attention_heads * (2.0 * width + SOFTMAX)
    apart = reads_parts(config) and sees_all(model)
    return Cost(weights / config.num_hidden_layers, pair, BRANCH if apart else None)
