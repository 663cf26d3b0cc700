"""The shortest recipe that gives a plan: a swap or a soup where it is one, else the plan slot by slot."""

from __future__ import annotations

from collections.abc import Iterator

from harness.errors import LayerswapError
from harness.plan import Mix, Plan, layer_slot
from harness.recipes import Expert, LayerSwap, Recipe, Slots, Soup
from harness.recipes.common import Outer


def recipe_of(plan: Plan) -> Recipe:
    """A recipe whose plan at this depth is ``plan``, whatever sizes a profile has."""
    candidates = [*_soups(plan), *_swaps(plan)]
    return next((recipe for recipe in candidates if _gives(recipe, plan)), Slots(dict(plan.mixes)))


def _gives(recipe: Recipe, plan: Plan) -> bool:
    try:
        return recipe.plan(plan.layers) == plan
    except LayerswapError:
        return False


def _soups(plan: Plan) -> Iterator[Recipe]:
    mix = plan["embed"]
    if mix.is_copy:
        yield Expert(mix.sources[0][0])
    elif mix.operation == "linear":
        yield Soup(mix.sources)


def _swaps(plan: Plan) -> Iterator[Recipe]:
    """Swaps by the shape of the stack: copies at both ends, zones of one average, copies of another between."""
    layers = [plan[layer_slot(i)] for i in range(plan.layers)]
    language = next((mix for mix in (layers[0], layers[-1]) if mix.is_copy), None)
    math = next((mix for mix in layers if mix.is_copy and mix != language), None)
    if language is None or math is None:
        return
    bottom, top = _run(layers, language), _run(layers[::-1], language)
    inner = layers[bottom : plan.layers - top]
    below, above = _run(inner, inner[0]), _run(inner[::-1], inner[-1])
    below, above = (0 if inner[0] == math else below), (0 if inner[-1] == math else above)
    roles = {math.text: "math", language.text: "language"}
    averages = [mix for mix in (*inner, plan["embed"]) if not mix.is_copy]
    weights = _weights(averages[0], math.text, language.text) if averages else (0.5, 0.5)
    outer: tuple[Outer, ...] = ("math", "language", "base", "average")
    for owner in outer:
        if roles.get(plan["embed"].text, "average") in (owner, "average"):
            yield LayerSwap(bottom, top, (below, above), weights, owner, math.text, language.text)


def _run(layers: list[Mix], mix: Mix) -> int:
    """How many of the first layers are ``mix``."""
    return next((i for i, other in enumerate(layers) if other != mix), len(layers))


def _weights(mix: Mix, math: str, language: str) -> tuple[float, float]:
    found = dict(mix.sources)
    return found.get(math, 0.0), found.get(language, 0.0)
