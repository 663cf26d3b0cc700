from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.plan import Mix, Plan, copy, layer_slot, linear, slot_names

NAMES = st.sampled_from(["math", "language", "base", "math-long"])
WEIGHTS = st.floats(0, 10, allow_nan=False)
SOURCES = st.lists(st.tuples(NAMES, WEIGHTS), min_size=1, max_size=5)


def test_slots_come_in_the_order_activations_pass_them():
    assert slot_names(2) == ("embed", "layers.0", "layers.1", "norm", "head")


@given(SOURCES)
def test_linear_folds_repeats_and_zeros(sources):
    total = sum(weight for _, weight in sources)
    if total == 0:
        with pytest.raises(LayerswapError, match="sum to zero"):
            linear(sources)
        return
    mix = linear(sources)
    names = [name for name, _ in mix.sources]
    assert len(names) == len(set(names))
    assert mix.is_copy == (len(names) == 1)
    assert all(weight > 0 for _, weight in mix.sources)
    if not mix.is_copy:
        assert math.isclose(sum(weight for _, weight in mix.sources), total)


@given(SOURCES, SOURCES)
def test_equal_texts_mean_equal_mixes(one, other):
    a, b = (Mix("linear", tuple((n, w + 1) for n, w in sources)) for sources in (one, other))
    assert (a.text == b.text) == (a == b)


def test_a_copy_is_the_same_whatever_its_weight():
    assert linear([("math", 0.3), ("math", 0.4)]) == linear([("math", 5), ("language", 0)]) == copy("math")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "at least one expert"),
        ((("math", -0.5),), "weight of 'math' is -0.5"),
        ((("math", float("nan")),), "weight of 'math' is nan"),
        ((("math", float("inf")),), "weight of 'math' is inf"),
        ((("math", 0), ("language", 0)), "math and language sum to zero"),
        ((("two words", 1),), "no name for an expert"),
    ],
)
def test_impossible_mixes_are_refused_in_one_sentence(sources, message):
    with pytest.raises(LayerswapError, match=message):
        Mix("linear", sources)


def test_an_unknown_operation_is_refused():
    with pytest.raises(LayerswapError, match="unknown merge operation 'average'"):
        Mix("average", (("math", 1),))  # type: ignore[arg-type]


def test_parameters_are_sorted_and_numbers_normalised():
    one = Mix("ties", (("math", 1),), (("lambda", 1.0), ("base", "base")))
    other = Mix("ties", (("math", 1.0),), (("base", "base"), ("lambda", 1.0)))
    assert one == other
    assert one.text == 'ties(math=1.0, base="base", lambda=1.0)'
    assert one.experts == ("math", "base")


def plan_of(layers: int, **changes: Mix) -> Plan:
    return Plan.of(layers, dict.fromkeys(slot_names(layers), copy("math")) | changes)


def test_a_plan_needs_every_slot_and_no_other():
    with pytest.raises(LayerswapError, match=r"leaves slots unfilled: norm"):
        Plan.of(1, {slot: copy("math") for slot in slot_names(1) if slot != "norm"})
    with pytest.raises(LayerswapError, match=r"1-layer model has no slot layers\.1"):
        Plan.of(1, {slot: copy("math") for slot in slot_names(2)})


def test_a_plan_draws_a_character_a_slot():
    average = linear([("math", 1), ("language", 1)])
    plan = plan_of(
        4, embed=average, **{layer_slot(0): copy("language"), layer_slot(1): average, layer_slot(3): copy("math-long")}
    )
    assert plan.drawing == "T|LTMm|MM"
    assert plan.layers == 4
    assert plan.experts == ("math", "language", "math-long")
    assert plan["layers.0"] == copy("language")


def test_the_digest_follows_the_text():
    assert plan_of(3).digest == plan_of(3).digest
    assert plan_of(3).digest != plan_of(4).digest
    assert plan_of(3).digest != plan_of(3, norm=copy("base")).digest
    assert plan_of(1).text == "embed: math\nlayers.0: math\nnorm: math\nhead: math"


def test_runs_join_neighbours_of_one_mix():
    plan = plan_of(4, **{layer_slot(0): copy("language"), layer_slot(3): copy("language")})
    assert [(span, mix.text) for span, mix in plan.runs] == [
        ("embed", "math"),
        ("layers.0", "language"),
        ("layers.1-2", "math"),
        ("layers.3", "language"),
        ("norm, head", "math"),
    ]
    assert [span for span, _ in plan_of(2, head=copy("base")).runs] == ["embed", "layers.0-1", "norm", "head"]
