"""Pure tensor functions: what each merge operation computes for one tensor.

All of them take equally shaped tensors, accumulate in float32 and return the dtype of their first tensor. Weights are
plain numbers, masks boolean tensors of the same shape. Nothing here knows of models or files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.errors import LayerswapError
from harness.merging.weights import total_weight
from harness.plan import Mix

if TYPE_CHECKING:
    from torch import Tensor

# Elements at a time where an operation is elementwise: float32 copies of this size stay in a core's cache.
_CHUNK = 1 << 17


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted average Σ w·x / Σ w (model soups, arXiv 2203.05482), summed in the order given."""

    def compute(parts: list[Tensor]) -> Tensor:
        summed = parts[0].float() * weights[0]
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            summed.add_(part.float(), alpha=weight)
        return summed.div_(total_weight(weights))

    return _elementwise(compute, tensors)


def task_arithmetic(base: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], lambda_: float = 1.0) -> Tensor:
    """base + λ · Σ w·(x − base) (task arithmetic, arXiv 2212.04089)."""

    def compute(parts: list[Tensor]) -> Tensor:
        start = parts[0].float()
        deltas = [weight * (part.float() - start) for part, weight in zip(parts[1:], weights, strict=True)]
        return start + lambda_ * sum(deltas[1:], deltas[0])

    return _elementwise(compute, [base, *tensors])


def ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    density: float,
    normalize: bool = True,
    lambda_: float = 1.0,
    thresholds: Sequence[float] | None = None,
) -> Tensor:
    """TIES-Merging (arXiv 2306.01708): trim each task vector, elect a sign, average what agrees.

    Trimming keeps the ``max(1, int(density · n))`` entries of largest magnitude of each x − base, and whatever ties
    with the smallest of them. ``thresholds`` (one a tensor, from :func:`threshold` over a whole model) replace that
    per-tensor choice. ``normalize`` divides by the summed weights of those that agree instead of adding them up.
    """
    cuts = thresholds or [threshold(lambda t=t: task_vector(t, base), density) for t in tensors]  # type: ignore[misc]

    def compute(parts: list[Tensor]) -> Tensor:
        start = parts[0].float()
        deltas = [part.float() - start for part in parts[1:]]
        trimmed = [delta * (delta.abs() >= cut) for delta, cut in zip(deltas, cuts, strict=True)]
        return start + lambda_ * _elected(trimmed, weights, normalize)

    return _elementwise(compute, [base, *tensors])


def dare(delta: Tensor, mask: Tensor, density: float, rescale: str = "density") -> Tensor:
    """DARE (arXiv 2311.03099): drop a task vector's entries outside ``mask``, scale up the rest.

    ``rescale="density"`` divides by ``density``, as the paper does, which keeps the expected vector; ``"l1"`` restores
    the sum of magnitudes, as mergekit does.
    """
    divisor = density if rescale == "density" else _l1_ratio([delta.float()], [mask])
    return (delta.float() * mask / divisor).to(delta.dtype)


def dare_ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    masks: Sequence[Tensor],
    density: float,
    normalize: bool = True,
    lambda_: float = 1.0,
    rescale: str = "density",
) -> Tensor:
    """DARE on each task vector, then the sign election and average of TIES."""
    divisors = [density] * len(tensors)
    if rescale == "l1":
        divisors = [
            _l1_ratio(task_vector(tensor, base), (mask.reshape(-1)[part] for part in _parts(mask)))
            for tensor, mask in zip(tensors, masks, strict=True)
        ]

    def compute(parts: list[Tensor]) -> Tensor:
        start, inputs, kept = parts[0].float(), parts[1 : len(tensors) + 1], parts[len(tensors) + 1 :]
        deltas = [(x.float() - start) * mask / by for x, mask, by in zip(inputs, kept, divisors, strict=True)]
        return start + lambda_ * _elected(deltas, weights, normalize)

    return _elementwise(compute, [base, *tensors, *masks])


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985) of two tensors seen as vectors, from ``first`` (t = 0) to ``second``.

    Linear where the directions are within 1.8 degrees (cosine above 0.9995) or a tensor is zero.
    """
    norms = math.sqrt(_dot(first, first)) * math.sqrt(_dot(second, second))
    cosine = _dot(first, second) / norms if norms > 0 else 1.0
    near, far = 1 - t, t
    if abs(cosine) <= 0.9995:
        angle = math.acos(cosine)
        near, far = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return _elementwise(lambda parts: near * parts[0].float() + far * parts[1].float(), [first, second])


def task_vector(tensor: Tensor, base: Tensor) -> Iterator[Tensor]:
    """x − base in float32, a flat piece at a time."""
    ours, theirs = tensor.reshape(-1), base.reshape(-1)
    return (ours[part].float() - theirs[part].float() for part in _parts(tensor))


def threshold(deltas: Callable[[], Iterable[Tensor]], density: float) -> float:
    """The magnitude that the ``max(1, int(density · n))`` largest of all n entries reach, exactly.

    ``deltas`` is called once or twice and may yield its float32 tensors one by one, so a whole model's task vector
    needs no more memory than one tensor: the bits of a non-negative float order like integers, so two histograms (of
    the upper and then of the lower 16 bits) find the value. 0.0 if everything is kept.
    """
    import torch

    keep, chosen = 0, 0
    for shift in (16, 0):
        counts = torch.zeros(1 << 16, dtype=torch.int64)
        for delta in deltas():
            bits = delta.detach().reshape(-1).float().abs().view(torch.int32)
            if shift == 0:
                bits = bits[(bits >> 16) == chosen]
            counts += torch.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16).cpu()
        if shift == 16:
            total = int(counts.sum())
            keep = max(1, int(density * total))
            if keep >= total:
                return 0.0
        reached = counts.flip(0).cumsum(0)
        offset = int((reached >= keep).nonzero()[0])
        keep -= int(reached[offset - 1]) if offset else 0
        chosen = (chosen << 16) | (0xFFFF - offset)
    return float(torch.tensor(chosen, dtype=torch.int32).view(torch.float32))


def dare_mask(shape: Sequence[int], density: float, seed: int, expert: str, tensor_name: str) -> Tensor:
    """The entries that DARE keeps: a boolean tensor drawn from (``seed``, expert, tensor name), always on the CPU."""
    import torch

    digest = hashlib.sha256(f"{seed}\0{expert}\0{tensor_name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(tuple(shape), generator=generator) < density


def merge_tensor(
    mix: Mix, tensor_name: str, read: Callable[[str], Tensor], cut: Callable[[str], float] | None = None
) -> Tensor:
    """One tensor of a slot filled by ``mix``: ``read(expert)`` gives each expert's tensor of that name.

    ``cut(expert)`` gives the whole-model threshold that ``trim="model"`` needs. Tensors of integers or booleans are
    never mixed: the first expert's is taken.
    """
    sources = [(read(expert), weight) for expert, weight in mix.sources]
    tensors, weights = [tensor for tensor, _ in sources], [weight for _, weight in sources]
    parameters = dict(mix.parameters)
    if mix.is_copy or not tensors[0].is_floating_point():
        return tensors[0]
    if mix.operation == "linear":
        return linear(tensors, weights)
    if mix.operation == "slerp":
        return slerp(tensors[0], tensors[1], float(parameters["t"]))
    base, lambda_ = read(str(parameters["base"])), float(parameters["lambda"])
    if mix.operation == "task_arithmetic":
        return task_arithmetic(base, tensors, weights, lambda_)
    density, normalize = float(parameters["density"]), bool(parameters["normalize"])
    if mix.operation == "dare_ties":
        seed = int(parameters["seed"])
        masks = [dare_mask(base.shape, density, seed, expert, tensor_name).to(base.device) for expert, _ in mix.sources]
        return dare_ties(
            base, tensors, weights, masks, density, normalize, lambda_, str(parameters.get("rescale", "density"))
        )
    cuts = None
    if parameters.get("trim") == "model":
        if cut is None:
            raise LayerswapError("trimming over the whole model needs every slot: use an assembler or write_checkpoint")
        cuts = [cut(expert) for expert, _ in mix.sources]
    return ties(base, tensors, weights, density, normalize, lambda_, cuts)


def _elementwise(compute: Callable[[list[Tensor]], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """``compute`` over flat pieces of ``tensors``: a large tensor needs no float32 copy of itself."""
    import torch

    result = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
    target, flat = result.view(-1), [tensor.reshape(-1) for tensor in tensors]
    for part in _parts(result):
        target[part] = compute([tensor[part] for tensor in flat])
    return result


def _parts(tensor: Tensor) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, tensor.numel(), _CHUNK)]


def _dot(a: Tensor, b: Tensor) -> float:
    """Inner product in float64, piece by piece.

    A float32 sum differs in its last digits with where the tensors lie in memory, and a mapped file lies elsewhere than
    a loaded model: the same merge must give the same bits from both.
    """
    import torch

    a, b = a.reshape(-1), b.reshape(-1)
    return math.fsum(float(torch.dot(a[part].double(), b[part].double())) for part in _parts(a))


def _l1_ratio(deltas: Iterable[Tensor], masks: Iterable[Tensor]) -> float:
    """The share of a task vector's magnitude that is kept; 1.0 if nothing is. Summed in float64, as in :func:`_dot`."""
    sums = [
        (float(d.abs().double().sum()), float((d * m).abs().double().sum())) for d, m in zip(deltas, masks, strict=True)
    ]
    whole, kept = (math.fsum(pair[i] for pair in sums) for i in (0, 1))
    return kept / whole if kept > 0 else 1.0


def _elected(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Sum or average of the weighted deltas that share the sign of their sum; + where the sum is zero."""
    import torch

    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    sign = torch.where(sum(weighted[1:], weighted[0]) >= 0, 1.0, -1.0)
    result, divisor = torch.zeros_like(weighted[0]), torch.zeros_like(weighted[0])
    for value, weight in zip(weighted, weights, strict=True):
        agrees = value * sign > 0
        result += value * agrees
        divisor += weight * agrees
    return result / divisor.masked_fill_(divisor == 0, 1.0) if normalize else result
