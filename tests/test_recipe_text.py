from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import recipes
from harness.errors import LayerswapError
from harness.recipe_text import parse_recipe
from harness.recipes import DareTies, Expert, LayerSwap, OneSide, Placement, Recipe, Revert, Slots, Soup, Ties

RECIPES: dict[str, Recipe] = {
    "layer-swap": LayerSwap(),
    "layer-swap(bottom=5,top=2)": LayerSwap(5, 2),
    " Layer-Swap ( bottom = 0.25 )": LayerSwap(0.25),
    "LayerSwap(transition=(1, 0), outer='language')": LayerSwap(transition=(1, 0), outer="language"),
    "placement('random', seed=2)": Placement("random", 2),
    "one_side('top')": OneSide("top"),
    "expert('base')": Expert("base"),
    "revert": Revert(),
    "soup({'math': 1, 'language': 3})": Soup({"math": 1, "language": 3}),
    "ties(0.2)": Ties(0.2),
    "dare-ties(density=0.3)": DareTies(0.3),
    "slots({'embed, norm, head': 'base', 'layers.0-3': 'math'})": Slots(
        {"embed, norm, head": "base", "layers.0-3": "math"}
    ),
}


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_is_read_as_it_is_written(text):
    assert parse_recipe(text) == RECIPES[text]
    assert parse_recipe(repr(RECIPES[text])) == RECIPES[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer-swop", "is no recipe: expected such as layer-swap.*did you mean layer-swap"),
        ("layer-swap(bottm=5)", r"unknown argument bottm: expected bottom, top.*did you mean bottom"),
        ("ties(0.2, density=0.3)", "multiple values for argument 'density'"),
        ("layer-swap(bottom=-1)", "bottom is -1"),
        ("layer-swap(bottom=", "is no recipe"),
        ("layer-swap(bottom=open('x'))", "arguments must be plain values"),
        ("layer-swap() or ties()", "is no recipe"),
        ("__import__('os')", "is no recipe"),
        ("slots(3)", "slots"),
        ("", "is no recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_sentence(text, message):
    with pytest.raises(LayerswapError, match=message) as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


NAMES = st.from_regex(r"[A-Za-z0-9_.@+/-]{1,12}", fullmatch=True)
WEIGHTS = st.dictionaries(NAMES, st.floats(1e-6, 1e6), min_size=1, max_size=4)
SIZES = st.one_of(st.none(), st.integers(0, 40), st.floats(0, 1))
WRITTEN = st.one_of(
    st.builds(
        recipes.LayerSwap,
        SIZES,
        SIZES,
        st.one_of(st.none(), st.integers(0, 9), st.tuples(st.integers(0, 9), st.integers(0, 9)), st.just("math")),
        st.one_of(st.none(), st.tuples(st.floats(0, 9), st.floats(0.1, 9))),
        st.sampled_from([None, "average", "language", "math", "base"]),
        NAMES,
        NAMES,
    ),
    st.builds(recipes.Expert, NAMES),
    st.builds(recipes.Soup, WEIGHTS),
    st.builds(recipes.Ties, st.floats(1e-6, 1), WEIGHTS, st.booleans(), st.floats(-9, 9)),
    st.builds(recipes.DareTies, st.floats(1e-6, 1), WEIGHTS, st.integers(0, 1 << 40), st.booleans()),
    st.builds(recipes.TaskArithmetic, WEIGHTS, st.floats(-9, 9)),
    st.builds(recipes.Slerp, st.floats(0, 1), NAMES, NAMES),
    st.builds(recipes.Slots, st.fixed_dictionaries({"embed, norm, head": NAMES, "layers.0-3": WEIGHTS})),
)


@given(WRITTEN)
def test_a_recipe_that_is_written_down_is_read_back(recipe):
    assert parse_recipe(repr(recipe)) == recipe


@given(st.one_of(st.text(), st.from_regex(r"(layer-swap|ties|slots|soup)\(.{0,40}\)", fullmatch=True)))
def test_any_text_is_a_recipe_or_refused_in_one_sentence(text):
    try:
        recipe = parse_recipe(text)
    except LayerswapError as error:
        said, recipe = str(error), None
    else:
        said = ""
    assert len(said) < 2000
    assert recipe is None or parse_recipe(repr(recipe)) == recipe


def test_a_single_expert_keeps_its_weight():
    """Half of a task vector is half of it, also where there is no other."""
    mix = recipes.TaskArithmetic({"math": 0.5}).plan(2)["embed"]
    assert mix.sources == (("math", 0.5),)
