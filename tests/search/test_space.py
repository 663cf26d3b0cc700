from __future__ import annotations

import itertools

import pytest

from harness.errors import LayerswapError
from harness.profiles import load_profile
from harness.recipe_text import parse_recipe
from harness.recipes import LayerSwap
from harness.search.space import OUTER, space_of, text_of


@pytest.mark.parametrize("layers", [4, 5, 6, 10, 12, 16, 32, 80])
def test_every_corner_of_the_space_fits_the_depth(layers):
    space = space_of(layers)
    assert space.block >= 1
    assert space.zone >= 1
    ends = itertools.product((0, space.block), (0, space.block), (0, space.zone), (0, space.zone))
    for bottom, top, below, above in ends:
        LayerSwap(bottom, top, (below, above)).plan(layers)


def test_the_papers_swap_is_in_the_space():
    space = space_of(32)
    assert (space.block, space.zone) == (12, 4)
    with pytest.raises(LayerswapError, match="a model of 3 layers leaves nothing to search"):
        space_of(3)


def test_a_search_begins_at_the_profiles_swap():
    import optuna

    for name, layers in (("embedded", 10), ("llama-3.1-8b-sw", 32)):
        sizes, space = load_profile(name).sizes, space_of(layers)
        study = optuna.create_study()
        study.enqueue_trial(space.nearest(sizes.scaled(layers)))
        swap = space.suggest(study.ask())
        assert swap.plan(layers, sizes) == LayerSwap().plan(layers, sizes)


@pytest.mark.parametrize("outer", OUTER)
def test_a_proposal_can_be_typed_on_the_command_line(outer):
    swap = LayerSwap(3, 0, (2, 1), (0.3, 0.7), outer)
    assert parse_recipe(text_of(swap)) == swap
