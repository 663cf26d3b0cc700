"""Recipes from text, for the command line: ``layer-swap(transition=0)`` is read, never run."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from harness import recipes
from harness.errors import LayerswapError
from harness.files import shortened

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
        recipes.Slots,
    )
}


def parse_recipe(text: str) -> recipes.Recipe:
    """The recipe that ``text`` writes: one call with literal arguments, ``LayerSwap(…)`` or ``layer-swap(…)``.

    Raises :class:`LayerswapError` for anything else, an unknown recipe or argument, or values that it refuses.
    """
    name, bracket, arguments = text.strip().partition("(")
    if re.fullmatch(r"[\w-]+", name.strip()):
        _known(name, text)
    try:
        node = ast.parse(f"{_class_name(name)}{bracket}{arguments}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep
        raise LayerswapError(_expected(text)) from None
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise LayerswapError(_expected(text))
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        raise LayerswapError(f"{shortened(text)}: {_literals(error)}") from None
    return make_recipe(node.func.id, positional, named, text)


def make_recipe(kind: str, positional: list[Any], named: Mapping[str, Any], text: str) -> recipes.Recipe:
    """The recipe of a kind (``layer-swap``, ``LayerSwap``) with these arguments; ``text`` is for messages."""
    name = _known(kind, text)
    named = {"lambda_" if key == "lambda" else key: value for key, value in named.items()}
    arguments = [field.name for field in fields(_KINDS[name])]
    if unknown := [key for key in named if key not in arguments]:
        hint = "".join(f" (did you mean {near}?)" for near in difflib.get_close_matches(unknown[0], arguments, n=1))
        raise LayerswapError(f"{shortened(text)}: unknown argument {unknown[0]}: expected {', '.join(arguments)}{hint}")
    try:
        return _KINDS[name](*positional, **named)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LayerswapError(f"{shortened(text)}: {str(error).removeprefix(f'{name}.__init__() ')}") from None


def kebab(name: str) -> str:
    """``LayerSwap`` as the command line writes it: ``layer-swap``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _class_name(kind: str) -> str:
    known = {kebab(name): name for name in _KINDS}
    return known.get(kind.strip().replace("_", "-").lower(), kind.strip())


def _known(kind: str, text: str) -> str:
    """The class name of a kind of recipe; raises :class:`LayerswapError` with the nearest one for an unknown kind."""
    name = _class_name(kind)
    if name not in _KINDS:
        near = difflib.get_close_matches(kebab(name), map(kebab, _KINDS), n=1)
        raise LayerswapError(_expected(text) + "".join(f" (did you mean {close}?)" for close in near))
    return name


def _literals(error: BaseException) -> str:
    return "arguments must be plain values" + (f": {error}" if "malformed" not in str(error) and str(error) else "")


def _expected(text: str) -> str:
    known = ", ".join(map(kebab, _KINDS))
    return f"{shortened(text)} is no recipe: expected such as layer-swap(transition=0), one of {known}"
