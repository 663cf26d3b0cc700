from __future__ import annotations

import pytest

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
