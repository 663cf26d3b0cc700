"""Weights that come and go. The device is main memory itself: a copy is a copy there, too."""

from __future__ import annotations

import pytest
import torch

from harness.errors import LayerswapError, out_of_memory
from harness.experts import slots_of
from harness.merging.assemble import Assembler
from harness.merging.residence import NoRoomError, Residence, _Stage, copied
from harness.recipes import Expert, LayerSwap, Soup, Ties
from tests.merging.models import ARCHITECTURES, LAYERS

IDS = torch.arange(1, 17).reshape(2, 8)
RECIPES = (
    LayerSwap(),
    Expert("math"),
    LayerSwap(outer="language"),
    Soup(),
    Expert("language"),
    Ties(),
    LayerSwap(0, 0),
)


def size_of(model):
    return sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())


def places(experts):
    return {
        (name, key): tensor.data_ptr() for name, e in experts.items() for key, tensor in e.model.state_dict().items()
    }


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_variants_are_the_same_with_room_for_one_of_them(architecture, tied, experts_of):
    experts = experts_of(architecture, tied)
    plans = [recipe.plan(LAYERS) for recipe in RECIPES]
    expected = [Assembler(experts).build(plan)(IDS).logits for plan in plans]
    before, size = places(experts), size_of(experts["base"].model)
    residence, assembler = Residence("cpu", size), Assembler(experts, device="cpu")
    for name, expert in experts.items():
        residence.add(name, expert.model)
    try:
        for plan, logits in zip([*plans, *plans], [*expected, *expected], strict=True):
            residence.hold(copied(plan))
            assert torch.equal(assembler.build(plan)(IDS).logits, logits)
            assert residence.held_bytes <= size
            moved = {key for key, place in places(experts).items() if place != before[key]}
            slots = slots_of(experts["base"].model)
            assert {(name, key) for name, slot in copied(plan) for key in slots[slot]} <= moved
        assert residence.sent_bytes > size
    finally:
        residence.hold([])
        for unit in list(residence._held):
            residence._drop(unit)
    assert places(experts) == before
    assert residence.held_bytes == 0


def test_without_a_budget_each_slot_goes_once(experts_of):
    experts = experts_of("llama", False)
    residence = Residence("cpu")
    for name in ("math", "language"):
        residence.add(name, experts[name].model)
    try:
        for recipe in (Expert("math"), Expert("language"), Expert("math"), LayerSwap(outer="math")):
            residence.hold(copied(recipe.plan(LAYERS)))
        both = size_of(experts["math"].model) + size_of(experts["language"].model)
        assert residence.sent_bytes == residence.held_bytes == both
    finally:
        for unit in list(residence._held):
            residence._drop(unit)


@pytest.mark.parametrize("device", ["cuda:99", "nowhere"])
def test_a_device_that_is_not_there_is_one_clear_error(device, experts_of):
    experts = experts_of("gpt_neox", False)

    def settle():
        residence = Residence(device)
        residence.add("math", experts["math"].model)
        residence.hold(copied(Expert("math").plan(LAYERS)))

    with pytest.raises(LayerswapError, match=f"device '{device}' cannot hold the experts"):
        settle()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 9), (4, 16), (64,)])
def test_what_goes_through_the_buffers_arrives(dtype, shape):
    stage = _Stage(64)  # bytes: most of these take several
    plain = torch.randn(shape).mul(9).to(dtype)
    for tensor in (plain, plain.t()):
        found = stage.copy(tensor, "cpu")
        assert torch.equal(found, tensor)
        assert found.dtype == tensor.dtype
        assert found.is_contiguous()
        assert not found.numel() or found.data_ptr() != tensor.data_ptr()


class Full(Residence):
    """Of a device that is full at ``capacity`` bytes, whatever the budget is."""

    capacity = 0

    def _copy(self, host):
        if self.held_bytes + host.numel() * host.element_size() > self.capacity:
            raise NoRoomError("full")
        return super()._copy(host)


def test_a_device_that_is_full_before_its_budget_has_what_is_not_needed_go(experts_of):
    experts = experts_of("llama", False)
    plans = [recipe.plan(LAYERS) for recipe in RECIPES]
    expected = [Assembler(experts).build(plan)(IDS).logits for plan in plans]
    before, size = places(experts), size_of(experts["base"].model)
    residence, assembler = Full("cpu"), Assembler(experts, device="cpu")
    residence.capacity = int(1.3 * size)
    for name, expert in experts.items():
        residence.add(name, expert.model)
    try:
        for plan, logits in zip([*plans, *plans], [*expected, *expected], strict=True):
            residence.hold(copied(plan))
            assert torch.equal(assembler.build(plan)(IDS).logits, logits)
        assert residence._budget <= residence.capacity, "it does not run full again"
        residence.capacity = size // 2
        residence.hold([])
        for unit in list(residence._held):
            residence._drop(unit)
        with pytest.raises(NoRoomError) as caught:
            residence.hold(copied(plans[-1]))
        assert out_of_memory(caught.value), "who evaluates tries again with less"
        assert 0 < residence.held_bytes <= residence.capacity
    finally:
        for unit in list(residence._held):
            residence._drop(unit)
    assert places(experts) == before
    assert residence.held_bytes == 0
