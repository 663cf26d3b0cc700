"""Recipes from text, for the command line: ``LayerSwap(transition=0)`` is read, never run."""

from __future__ import annotations

import ast
import difflib

from harness import recipes
from harness.errors import LayerswapError

_KINDS = {
    kind.__name__: kind
    for kind in (
        recipes.LayerSwap,
        recipes.Placement,
        recipes.OneSide,
        recipes.Expert,
        recipes.Revert,
        recipes.Soup,
        recipes.Ties,
        recipes.DareTies,
        recipes.TaskArithmetic,
        recipes.Slerp,
    )
}


def parse_recipe(text: str) -> recipes.Recipe:
    """The recipe that ``text`` writes: one call with literal arguments.

    Raises :class:`LayerswapError` for anything else, an unknown recipe or argument, or values that it refuses.
    """
    expected = f"{text!r} is no recipe: expected such as LayerSwap(transition=0), one of {', '.join(_KINDS)}"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise LayerswapError(expected) from None
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise LayerswapError(expected)
    name = node.func.id
    if name not in _KINDS:
        close = difflib.get_close_matches(name, _KINDS, n=1)
        raise LayerswapError(expected + (f" (did you mean {close[0]}?)" if close else ""))
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in node.keywords}
        return _KINDS[name](*positional, **named)
    except (TypeError, ValueError) as error:
        raise LayerswapError(f"{text!r}: {error}") from None
