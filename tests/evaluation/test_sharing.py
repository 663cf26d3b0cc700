from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation.rows import Cost, pack
from harness.evaluation.sharing import (
    Held,
    Step,
    Tensors,
    Variant,
    forward,
    has_other_windows,
    itinerary,
    layer_calls,
)
from harness.evaluation.trees import batches
from harness.evaluation.trials import can_branch, can_share
from harness.experts import layers_prefix
from tests.evaluation.architectures import BRANCHING, MODELS, close, config_of, logits_of, model_of, variants_of

EVERY = pytest.mark.parametrize("name", MODELS)
ANY = Cost(1.0)
STEM = [3, 14, 15, 9, 26, 5, 35, 8, 9]
SEQUENCES = [[*STEM, 7, 9, 3, 2, 38], [*STEM, 7, 9, 50, 11], [*STEM, 46, 26], [*STEM, 46, 26, 43, 38, 32, 7], [4, 6]]


def variant_of(slots: tuple[str, ...]) -> Variant:
    return Variant("/".join(slots), slots, lambda: None)


LAYERS_OF = st.integers(1, 6)
PLANS = LAYERS_OF.flatmap(
    lambda n: st.lists(st.tuples(*[st.sampled_from("LM")] * (n + 3)), min_size=1, max_size=12, unique=True)
)


@given(PLANS, st.booleans())
def test_an_itinerary_visits_each_variant_once_and_computes_each_node_of_the_prefix_tree_once(plans, share):
    variants = [variant_of(plan) for plan in plans]
    steps = itinerary(variants, share)
    assert sorted(step.variant.identity for step in steps) == sorted(v.identity for v in variants)
    held: dict[int, tuple[str, ...]] = {}
    made: list[tuple[str, ...]] = []
    for step in steps:
        slots = step.variant.slots
        layers = len(slots) - 3
        if step.skip:  # what is held is what this variant's own lower layers give
            assert held[step.skip] == slots[: step.skip + 1]
        assert all(depth in range(1, layers + 1) for depth in step.keep)
        for depth in range(step.skip + 1, layers + 1):
            made.append(slots[: depth + 1])
            if depth in step.keep:
                held[depth] = slots[: depth + 1]
        held = {depth: path for depth, path in held.items() if depth in step.keep}
    assert held == {}
    if share:
        assert len(made) == len(set(made)) == layer_calls(variants)
    else:
        assert len(made) == sum(len(v.slots) - 3 for v in variants)


@EVERY
def test_rows_that_branch_give_the_logits_of_a_plain_forward_or_are_not_made(name):
    model = model_of(name)
    prefix = layers_prefix(model)
    branches = can_branch(model, prefix, "cpu")
    assert branches or name not in BRANCHING
    rows = pack(SEQUENCES, ANY if branches else None)
    assert any(not row.is_chain for row in rows) is branches
    seen = set()
    for batch in batches(rows, 3, 1000):
        picked = [(i, node) for i, row in enumerate(batch.rows) for node in range(len(row))]
        where = {place: number for number, place in enumerate(picked)}
        step = Step(variant_of(("",) * 9), 0, ())
        logits = forward(model, prefix, Tensors(batch, picked, 0, "cpu"), Held(), step)
        for i, row in enumerate(batch.rows):
            for number, path in row.paths.items():
                assert close(logits[[where[i, node] for node in path]], logits_of(model, SEQUENCES[number])), number
                seen.add(number)
    assert seen == set(range(len(SEQUENCES)))


@EVERY
def test_layers_that_variants_share_are_computed_once_and_change_no_logits(name):
    models, variants = variants_of(name)
    example = model_of(name)
    prefix = layers_prefix(example)
    cost = ANY if can_branch(example, prefix, "cpu") else None
    shares = can_share(example, prefix, "cpu")
    found = [*batches(pack(SEQUENCES, cost), 8, 40)]
    made = asked = 0
    for batch in found:
        last = [(i, path[-1], number) for i, row in enumerate(batch.rows) for number, path in row.paths.items()]
        held, tensors = Held(), Tensors(batch, [(i, node) for i, node, _ in last], 0, "cpu")
        for step in itinerary(variants, shares):
            logits = forward(step.variant.build(), prefix, tensors, held, step)
            for own, (_, _, number) in zip(logits, last, strict=True):
                theirs = logits_of(models[step.variant.identity], SEQUENCES[number])[-1]
                assert close(own, theirs), (step, number)
        assert held.states == {}
        made, asked = made + held.made, asked + held.asked
    assert asked == len(found) * len(variants) * 6
    assert made == (layer_calls(variants) * len(found) if shares else asked)
    assert shares
    assert layer_calls(variants) < len(variants) * 6


def test_a_model_is_as_before_once_it_has_been_wrapped():
    model = model_of("llama")
    before = dict(model.named_modules())
    layer = type(model.model.layers[0])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("on purpose")

    (batch,) = batches(pack([[1, 2, 3]]), 1, 9)
    tensors, step = Tensors(batch, [(0, 2)], 0, "cpu"), Step(variant_of(("",) * 9), 0, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "forward", broken)
        with pytest.raises(RuntimeError, match="on purpose"):
            forward(model, layers_prefix(model), tensors, Held(), step)
    assert dict(model.named_modules()) == before
    logits = forward(model, layers_prefix(model), tensors, Held(), step)
    assert close(logits, logits_of(model, [1, 2, 3])[-1:])


def test_windows_that_a_mask_cannot_say_are_known():
    assert {name for name in MODELS if has_other_windows(config_of(name))} == {"gpt_neo"}
    # Long enough for the window: a short trial would not show that it is cut by columns.
    assert not can_branch(model_of("gpt_neo"), layers_prefix(model_of("gpt_neo")), "cpu")


def test_a_model_whose_code_fails_on_the_trials_can_do_neither():
    model = model_of("llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", lambda *_, **__: 1 / 0)
        assert not can_branch(model, "model.layers.", "cpu")
        assert not can_share(model, "model.layers.", "cpu")


def test_only_positions_that_are_asked_for_reach_the_head():
    model = model_of("llama")
    (batch,) = batches(pack([[1, 2, 3, 4, 5], [1, 2, 6]], ANY), 2, 99)
    seen: list[torch.Size] = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    try:
        step = Step(variant_of(("",) * 9), 0, ())
        forward(model, "model.layers.", Tensors(batch, [(0, 1), (0, 4), (0, 5)], 0, "cpu"), Held(), step)
    finally:
        hook.remove()
    assert seen == [(1, 3, 32)]
