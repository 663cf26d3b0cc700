from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.plan import OUTER_SLOTS, Plan, copy, layer_slot, linear
from harness.recipes import (
    PAPER,
    DareTies,
    Expert,
    LayerSwap,
    OneSide,
    Placement,
    Recipe,
    Revert,
    Slerp,
    Slots,
    Soup,
    SwapSizes,
    TaskArithmetic,
    Ties,
    check_experts,
)

AVERAGE = linear([("math", 0.5), ("language", 0.5)])
DEPTHS = st.integers(4, 100)


def layers_of(plan: Plan) -> str:
    return plan.drawing.split("|")[1]


@pytest.mark.parametrize(
    ("layers", "drawing"),
    [
        (32, "T|LLLLLT" + "M" * 23 + "TLL|TT"),
        (10, "T|LLTMMMMMTL|TT"),
        (80, "T|" + "L" * 13 + "TTT" + "M" * 56 + "TTTLLLLL|TT"),
    ],
)
def test_the_papers_default_scales_with_depth(layers, drawing):
    assert LayerSwap().plan(layers).drawing == drawing


@given(DEPTHS)
def test_scaled_blocks_keep_at_least_one_layer(layers):
    sizes = PAPER.scaled(layers)
    assert min(sizes.bottom, sizes.top, *sizes.transition) >= 1
    assert abs(sizes.bottom - 5 * layers / 32) <= 1
    assert SwapSizes(bottom=0, top=4).scaled(layers).bottom == 0


@given(DEPTHS, st.integers(0, 30), st.integers(0, 30), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_swap_is_language_transition_math_transition_language_or_refused(layers, bottom, top, transition):
    recipe = LayerSwap(bottom, top, transition)
    middle = layers - bottom - top - sum(transition)
    if middle < 0:
        with pytest.raises(LayerswapError, match=f"layers, but the model has {layers}"):
            recipe.plan(layers)
        return
    below, above = transition
    assert layers_of(recipe.plan(layers)) == "L" * bottom + "T" * below + "M" * middle + "T" * above + "L" * top


@given(DEPTHS, st.floats(0, 1), st.floats(0, 1))
def test_shares_round_half_up_to_layers(layers, bottom, top):
    assume(bottom + top < 0.9)
    drawn = layers_of(LayerSwap(bottom, top, transition=0).plan(layers))
    assert drawn.count("L") == int(bottom * layers + 0.5) + int(top * layers + 0.5)


@pytest.mark.parametrize(
    ("recipe", "drawing"),
    [
        (LayerSwap(transition=0), "LLMMMMMMML"),
        (LayerSwap(transition=2), "LLTTMMMTTL"),
        (LayerSwap(transition=(2, 0)), "LLTTMMMMML"),
        (LayerSwap(transition="math"), "LLMMMMMMML"),
        (LayerSwap(transition="language"), "LLLMMMMMLL"),
        (LayerSwap(0, 0), "MMMMMMMMMM"),
        (LayerSwap(0, 0, transition=(1, 2)), "TMMMMMMMTT"),
        (LayerSwap(bottom=0), "MMMMMMMMTL"),
        (LayerSwap(top=0, transition=2), "LLTTMMMMMM"),
        (LayerSwap(bottom=1.0), "LLLLLLLLLL"),
        (LayerSwap(bottom=10), "LLLLLLLLLL"),
        (LayerSwap(top=1.0, transition="math"), "LLLLLLLLLL"),
        (LayerSwap(0.35, 0.1), "LLLLTMMMTL"),
        (LayerSwap(weights=(1, 0)), "LLMMMMMMML"),
        (LayerSwap(math="math-long"), "LLTmmmmmTL"),
        (LayerSwap(math="math", language="math"), "MMMMMMMMMM"),
        (OneSide("bottom"), "LLTMMMMMMM"),
        (OneSide("top"), "MMMMMMMMTL"),
        (Placement("middle"), "MMMLLLMMMM"),
        (Placement("every-other"), "LMLMMMMMML"),
        (Placement("ends"), "LMLMMMMMLL"),
        (Placement("exchanged"), "MMTLLLLLTM"),
        (Revert(), "BBMMMMMMMB"),
        (Revert("language", "middle"), "LLLBBBBBLL"),
        (Revert("math", ("layers.4",)), "MMMMBMMMMM"),
        (Expert("base"), "BBBBBBBBBB"),
        (Soup(), "TTTTTTTTTT"),
        (Ties(), "**********"),
        (Slerp(1), "LLLLLLLLLL"),
        (Slerp(0.2), "**********"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.title,
)
def test_the_drawing_of_each_recipe_on_ten_layers(recipe, drawing):
    assert isinstance(recipe, Recipe)
    assert layers_of(recipe.plan(10)) == drawing


@pytest.mark.parametrize(
    ("recipe", "drawing"),
    [
        (LayerSwap(), "TMMMMMMMML"),
        (LayerSwap(transition=0), "MMMMMMMMML"),
        (LayerSwap(transition="language"), "LMMMMMMMML"),
        (LayerSwap(transition=2), "TTMMMMMTTL"),
        (LayerSwap(bottom=0), "MMMMMMMMML"),
        (LayerSwap(top=0), "TMMMMMMMMM"),
        (LayerSwap(bottom=0, top=0), "MMMMMMMMMM"),
        (LayerSwap(bottom=0.1), "LTMMMMMMML"),
        (LayerSwap(bottom=1.0), "LLLLLLLLLL"),
        (OneSide("bottom"), "TMMMMMMMMM"),
        (OneSide("top"), "MMMMMMMMML"),
        (Placement("ends"), "LMMMMMMMML"),
        (Placement("exchanged"), "TLLLLLLLLM"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value),
)
def test_a_profiles_transition_beside_no_block_stays_until_the_block_is_given_a_size(recipe, drawing):
    assert layers_of(recipe.plan(10, SwapSizes(bottom=0, top=1, transition=(1, 0), of=10))) == drawing


@pytest.mark.parametrize(
    ("outer", "mix"),
    [("average", AVERAGE), ("language", copy("language")), ("math", copy("math")), ("base", copy("base"))],
)
def test_the_outer_slots_are_an_explicit_choice(outer, mix):
    for plan in (
        LayerSwap(outer=outer).plan(10),
        LayerSwap().plan(10, SwapSizes(outer=outer)),
        Placement("ends", outer=outer).plan(10),
    ):
        assert {plan[slot] for slot in OUTER_SLOTS} == {mix}


def test_weights_are_math_then_language_and_come_from_the_profile():
    expected = linear([("math", 0.25), ("language", 0.75)])
    assert LayerSwap(weights=(0.25, 0.75)).plan(10)["layers.2"] == expected
    assert LayerSwap().plan(10, SwapSizes(weights=(0.25, 0.75)))["embed"] == expected


def test_equal_experts_fold_to_a_copy_in_every_slot():
    assert LayerSwap(math="math", language="math").plan(10) == Expert("math").plan(10)
    assert Soup({"math": 0.3, "language": 0}).plan(10) == Expert("math").plan(10)
    assert Slerp(0.3, language="math").plan(10) == Expert("math").plan(10)


def test_swapping_nothing_and_everything_are_the_experts():
    assert LayerSwap(0, 0, outer="math").plan(10) == Expert("math").plan(10)
    assert LayerSwap(bottom=1.0, outer="language").plan(10) == Expert("language").plan(10)


@given(DEPTHS, st.integers(0, 5), st.sampled_from(["middle", "random", "every-other"]))
def test_placements_keep_the_count_of_the_default(layers, seed, kind):
    assume(layers >= 6)
    sizes = PAPER.scaled(layers)
    drawn = layers_of(Placement(kind, seed).plan(layers))
    assert drawn.count("L") == sizes.bottom + sizes.top
    assert drawn.count("M") == layers - sizes.bottom - sizes.top
    if kind == "middle":
        assert "L" * (sizes.bottom + sizes.top) in drawn


def test_random_placements_follow_their_seed():
    drawn = {seed: layers_of(Placement("random", seed).plan(32)) for seed in range(4)}
    assert len(set(drawn.values())) == 4
    assert drawn[1] == "MMMMLMMLLMMLMMMMMMMMMMMMMMMLMLLM"  # the same on every machine


def test_exchanged_keeps_transitions_and_outer_slots():
    default, exchanged = LayerSwap().plan(32), Placement("exchanged").plan(32)
    assert [exchanged[slot] for slot in OUTER_SLOTS] == [default[slot] for slot in OUTER_SLOTS]
    assert layers_of(exchanged) == layers_of(default).translate(str.maketrans("LM", "ML"))


@given(st.floats(0.01, 1), st.floats(0.01, 3), st.floats(0, 3), st.floats(-2, 2), st.booleans(), DEPTHS)
def test_methods_on_task_vectors_name_their_base_and_parameters(density, one, other, lambda_, normalize, layers):
    for recipe in (
        Ties(density, (one, other), normalize, lambda_, "model"),
        DareTies(density, (one, other), 3, normalize, lambda_),
        TaskArithmetic({"math": one, "language": other}, lambda_),
    ):
        plan = recipe.plan(layers)
        assert plan.experts == ("math", "language", "base")
        assert len({mix for _, mix in plan.mixes}) == 1
        assert plan["norm"].parameter("lambda") == lambda_
        assert plan["norm"].sources == (("math", one), ("language", other))


def test_recipes_are_values():
    assert Soup({"math": 1, "language": 3}) == Soup((1, 3))
    assert hash(Ties(weights={"math": 1, "language": 1})) == hash(Ties())
    assert eval(repr(Soup({"a": 1, "b": 2, "c": 3}))) == Soup({"a": 1, "b": 2, "c": 3})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerSwap(8, 8).plan(10), r"bottom 8 \+ transition 1 \+ transition 1 \+ top 8 = 18 layers, .* has 10"),
        (lambda: LayerSwap().plan(2), "has 2: make one of them smaller"),
        (lambda: LayerSwap().plan(0), "0 layers cannot be merged"),
        (lambda: LayerSwap(bottom=-1), "bottom is -1"),
        (lambda: LayerSwap(bottom=True), "bottom is True"),
        (lambda: LayerSwap(top=1.5), "top is 1.5"),
        (lambda: LayerSwap(top=float("nan")), "top is nan"),
        (lambda: LayerSwap(transition="base"), "unknown transition 'base'"),
        (lambda: LayerSwap(transition=(1, 1, 1)), "transition has 3 widths"),
        (lambda: LayerSwap(weights=(0, 0)), "sum to zero"),
        (lambda: LayerSwap(weights=(-1, 2)), "weight of 'math' is -1"),
        (lambda: LayerSwap(weights=(1, float("nan"))), "weight of 'language' is nan"),
        (lambda: LayerSwap(weights=(1, 2, 3)), "has 3 numbers"),
        (lambda: LayerSwap(outer="both"), "unknown outer 'both'"),
        (lambda: SwapSizes(bottom=40), "do not fit into a model of 32 layers"),
        (lambda: SwapSizes(top=-1), "default top is -1"),
        (lambda: SwapSizes(outer="x"), "unknown outer 'x'"),
        (lambda: Placement("upside-down"), "unknown placement 'upside-down'"),
        (lambda: Placement("every-other").plan(10, SwapSizes(4, 3, (0, 0), of=10)), "7 language layers need 14"),
        (lambda: OneSide("left"), "unknown side 'left'"),
        (lambda: Revert("math", "ends"), "unknown part 'ends'"),
        (lambda: Revert("math", ("layers.10",)).plan(10), r"no slot 'layers\.10'"),
        (lambda: Soup((0, 0)), "sum to zero"),
        (lambda: Soup({"math": -1}), "weight of 'math' is -1"),
        (lambda: Soup((1, 2, 3)), "expected a pair"),
        (lambda: Ties(density=0), "density is 0"),
        (lambda: Ties(density=1.1), "density is 1.1"),
        (lambda: Ties(density=float("nan")), "density is nan"),
        (lambda: Ties(lambda_=float("inf")), "lambda is inf"),
        (lambda: Ties(trim="layer"), "unknown trim 'layer'"),
        (lambda: DareTies(density=-1), "density is -1"),
        (lambda: DareTies(rescale="l2"), "unknown rescale 'l2'"),
        (lambda: TaskArithmetic((1, float("nan"))), "weight of 'language' is nan"),
        (lambda: Slerp(1.01), "t is 1.01"),
        (lambda: Slerp(float("nan")), "t is nan"),
    ],
)
def test_impossible_requests_are_one_clear_error(make, message):
    with pytest.raises(LayerswapError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_unknown_expert_is_named_with_the_nearest_known_one():
    plan = LayerSwap(math="mth").plan(10)
    with pytest.raises(LayerswapError, match="unknown expert 'mth': did you mean 'math'"):
        check_experts(plan, ["base", "math", "language"])
    with pytest.raises(LayerswapError, match="known are 'a', 'b'"):
        check_experts(Expert("zzzz").plan(10), ["a", "b"])
    check_experts(LayerSwap().plan(10), ["base", "math", "language"])


def test_a_task_vector_method_needs_the_base_too():
    with pytest.raises(LayerswapError, match="unknown expert 'base'"):
        check_experts(Ties().plan(10), ["math", "language"])


def test_titles_say_what_differs():
    assert LayerSwap().title == "layer swap"
    assert LayerSwap(5, 2, 0, (0.25, 0.75), "math", math="math-long").title == (
        "layer swap, bottom 5, top 2, no transition, weights 0.25/0.75, outer slots math, math-long as math"
    )
    assert Ties(0.2, trim="model").title == "TIES, density 0.2, trimmed over the model"
    assert Soup({"a": 1, "b": 2}).title == "soup 1/2 of a/b"
    assert Revert().title == "math with outer blocks reset to base"


def test_every_layer_of_a_swap_is_one_slot():
    plan = LayerSwap().plan(12)
    assert [slot for slot, _ in plan.mixes] == ["embed", *(layer_slot(i) for i in range(12)), "norm", "head"]


def test_slots_are_named_one_by_one_or_in_ranges():
    swap = LayerSwap(2, 1, outer="math").plan(8)
    named = {"embed, norm, head": "math", "layers.0-1, layers.7": "language", "layers.3-5": "math"}
    recipe = Slots({**named, "layers.2, layers.6": {"math": 0.5, "language": 0.5}})
    assert recipe.plan(8) == swap == Slots(dict(swap.mixes)).plan(8)
    assert {recipe: 1}[Slots(dict(swap.mixes))] == 1
    assert recipe.title == "slots M|LLTMMMTL|MM"
    ties = {"operation": "ties", "sources": {"math": 1.0}, "base": "base", "density": 0.2, "lambda": 1.0}
    assert Slots({"embed, layers.0, norm, head": ties}).plan(1)["head"].parameter("density") == 0.2


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"embed, norm, head": "math", "layers.1": "math"}, r"leaves slots unfilled: layers\.0"),
        ({"embed, norm, head": "math"}, "have no layers"),
        ({"embed, embed": "math"}, "slot embed is filled twice"),
        ({"layer.1": "math"}, r"unknown slot 'layer\.1'"),
        ({"layers.3-1": "math"}, "ends before it begins"),
        ({"embed": 3}, "slot 'embed' is 3: expected an expert"),
        ({"embed": {"math": "much"}}, "the weight of 'math' is 'much'"),
        ({"embed": {"operation": "ties"}}, "ties has no sources"),
        ({"embed": {"operation": "tis", "sources": {"math": 1}}}, "unknown merge operation 'tis'"),
    ],
)
def test_slots_that_make_no_plan_are_refused(slots, message):
    with pytest.raises(LayerswapError, match=message):
        Slots(slots)


@pytest.mark.parametrize("module", ["harness.plan", "harness.recipes", "harness.experts", "harness.merging.assemble"])
def test_importing_needs_no_torch(module):
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'safetensors'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
