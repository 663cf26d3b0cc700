from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.merging.arithmetic import (
    dare,
    dare_mask,
    dare_ties,
    linear,
    merge_tensor,
    slerp,
    task_arithmetic,
    threshold,
    ties,
)
from harness.plan import copy
from harness.recipes import DareTies, LayerSwap, Slerp, Soup, TaskArithmetic, Ties

SHAPES = [(), (1,), (7,), (5, 3), (300_001,)]


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear_is_the_weighted_mean_in_float32_rounded_once(shape, dtype):
    tensors = [draw(shape, seed, dtype) for seed in range(3)]
    weights = [0.2, 0.3, 1.1]
    exact = sum(w * t.double() for w, t in zip(weights, tensors, strict=True)) / sum(weights)
    result = linear(tensors, weights)
    assert result.dtype == dtype
    assert result.shape == shape
    tolerance = {torch.float32: 3e-7, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=tolerance)


def test_linear_takes_views_and_leaves_its_inputs_alone():
    first, second = draw((6, 4), 0).t(), draw((4, 6), 1)
    before = first.clone(), second.clone()
    assert torch.equal(linear([first, second], [0.5, 0.5]), (first + second) / 2)
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])


def test_task_arithmetic_adds_scaled_differences():
    base, one, other = (torch.tensor(v) for v in ([1.0, 2.0], [3.0, 2.0], [1.0, 0.0]))
    assert task_arithmetic(base, [one, other], [0.5, 1.0], 2.0).tolist() == [3.0, -2.0]


def test_ties_by_hand():
    base = torch.zeros(6)
    math = torch.tensor([4.0, -3.0, 0.5, 2.0, -0.1, 0.0])
    language = torch.tensor([-1.0, -5.0, 3.0, 0.2, 0.1, 2.0])
    # Kept of math: 4, -3, 2; of language: -5, 3, 2. Only entry 1 has both, and they agree.
    assert ties(base, [math, language], [1, 1], 0.5).tolist() == [4.0, -4.0, 3.0, 2.0, 0.0, 2.0]
    assert ties(base, [math, language], [1, 1], 0.5, normalize=False).tolist() == [4.0, -8.0, 3.0, 2.0, 0.0, 2.0]
    # Everything kept: entry 0 elects + (4 > 1) and drops language's, and a sum of zero elects +.
    assert ties(base, [math, language], [1, 1], 1.0).tolist() == pytest.approx([4.0, -4.0, 1.75, 1.1, 0.1, 2.0])
    assert ties(base, [math, language], [1, 1], 1.0, lambda_=2.0)[0] == 8.0


def test_ties_keeps_at_least_one_entry():
    assert ties(torch.zeros(4), [torch.tensor([1.0, -2.0, 0.5, 0.0])], [1], 0.01).tolist() == [0.0, -2.0, 0.0, 0.0]


def test_ties_takes_thresholds_of_the_whole_model():
    base, math = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    assert ties(base, [math], [1], 0.5, thresholds=[2.0]).tolist() == [0.0, -2.0, 3.0]


def test_dare_drops_and_rescales():
    delta, mask = torch.tensor([1.0, 2.0, 5.0, 4.0]), torch.tensor([True, False, False, True])
    assert dare(delta, mask, 0.5).tolist() == [2.0, 0.0, 0.0, 8.0]
    assert dare(delta, mask, 0.5, "l1").tolist() == pytest.approx([2.4, 0.0, 0.0, 9.6])
    assert dare(delta, torch.zeros(4, dtype=torch.bool), 0.5, "l1").tolist() == [0.0] * 4


def test_dare_ties_elects_signs_of_what_was_kept():
    base = torch.ones(2)
    one, other = torch.tensor([3.0, 0.0]), torch.tensor([-4.0, 3.0])
    everything, first = torch.tensor([True, True]), torch.tensor([True, False])
    result = dare_ties(base, [one, other], [1, 1], [first, everything], 0.5)
    assert result.tolist() == [1 - 10.0, 1 + 4.0]


def test_dare_masks_are_fixed_by_seed_expert_and_name():
    mask = dare_mask((10_000,), 0.3, 1, "math", "a.weight")
    assert torch.equal(mask, dare_mask((10_000,), 0.3, 1, "math", "a.weight"))
    assert abs(mask.float().mean() - 0.3) < 0.02
    others = [
        dare_mask((10_000,), 0.3, *key) for key in ((2, "math", "a.weight"), (1, "m", "a.weight"), (1, "math", "b"))
    ]
    assert not any(torch.equal(mask, other) for other in others)
    assert dare_mask((8,), 0.5, 0, "math", "w").tolist() == [True, True, True, False, False, True, True, True]


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_keeps_the_angle_and_the_norm(t):
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    result = slerp(a, b, t)
    assert float(result.norm()) == pytest.approx(1.0)
    assert float(torch.atan2(result[1], result[0])) == pytest.approx(t * torch.pi / 2, abs=1e-6)


def test_slerp_is_linear_for_nearly_parallel_or_zero_tensors():
    a = draw((50,), 0)
    b = a + 1e-3 * draw((50,), 1)
    assert torch.equal(slerp(a, b, 0.25), 0.75 * a + 0.25 * b)
    assert torch.equal(slerp(a, torch.zeros(50), 0.25), 0.75 * a)
    assert torch.equal(slerp(a, -a, 0.25), 0.75 * a - 0.25 * a)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(0.001, 1), st.integers(0, 10_000))
def test_the_threshold_is_the_kth_largest_magnitude(sizes, density, seed):
    deltas = [draw((size,), seed + i) for i, size in enumerate(sizes)]
    every = torch.cat(deltas).abs().sort(descending=True).values
    if len(every) == 0:
        return
    keep = max(1, int(density * len(every)))
    expected = 0.0 if keep >= len(every) else float(every[keep - 1])
    assert threshold(lambda: iter(deltas), density) == expected


def test_the_threshold_of_ties_and_zeros():
    assert threshold(lambda: [torch.tensor([1.0, -1.0, 1.0, 0.0])], 0.5) == 1.0
    assert threshold(lambda: [torch.zeros(4)], 0.5) == 0.0


@pytest.mark.parametrize(
    "recipe", [Soup(), Ties(), DareTies(), TaskArithmetic(), Slerp()], ids=lambda recipe: recipe.title
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merge_tensor_covers_every_operation(recipe, dtype):
    tensors = {name: draw((4, 4), seed, dtype) for seed, name in enumerate(("base", "math", "language"))}
    mix = recipe.plan(3)["norm"]
    result = merge_tensor(mix, "w", tensors.__getitem__)
    assert result.dtype == dtype
    assert torch.isfinite(result).all()
    assert not any(torch.equal(result, tensor) for tensor in tensors.values())


def test_merge_tensor_gives_copies_and_integers_unchanged():
    tensors = {"math": torch.arange(3), "language": torch.arange(3) + 1}
    assert merge_tensor(copy("language"), "w", tensors.__getitem__) is tensors["language"]
    assert merge_tensor(LayerSwap().plan(4)["norm"], "w", tensors.__getitem__) is tensors["math"]


def test_trimming_over_the_model_needs_the_model():
    with pytest.raises(LayerswapError, match="needs every slot"):
        merge_tensor(Ties(trim="model").plan(3)["norm"], "w", lambda name: torch.zeros(3))


def test_two_equal_experts_average_to_themselves():
    tensor = draw((100,), 0)
    assert torch.equal(linear([tensor, tensor], [0.5, 0.5]), tensor)
