"""A recipe from the command line: written there, or in a TOML or YAML file that may name its experts too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import LayerswapError, one_line
from harness.files import expanded, read_text, shortened
from harness.recipe_text import kebab, make_recipe, parse_recipe

if TYPE_CHECKING:
    from harness.recipes import Recipe

SUFFIXES = (".toml", ".yaml", ".yml")
_KEYS = ("recipe", "experts", "dtype")
MOST_VALUES = 100_000  # of a file: a recipe of every slot of the deepest models has a tenth
DEEPEST = 50
LONGEST = 1_000_000


@dataclass(frozen=True)
class Request:
    """A recipe, where its experts lie if the file says so (relative paths start at ``folder``), and the dtype."""

    recipe: Recipe
    experts: Mapping[str, str] = field(default_factory=dict)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    folder: Path = Path()


def read_request(text: str) -> Request:
    """What ``text`` asks for: ``layer-swap(bottom=5)``, or the path of a ``.toml`` or ``.yaml`` file.

    A file has ``recipe`` (the same text, or a table with ``kind`` and the arguments), and may have ``[experts]`` and
    ``dtype``. Raises :class:`LayerswapError` naming the key that is wrong.
    """
    if not text.endswith(SUFFIXES):
        return Request(parse_recipe(text))
    path = Path(text)
    data = read_table(path)
    if "merge_method" in data:
        raise LayerswapError(f"{path} is a mergekit file: 'layerswap import {path}' makes a recipe of it")
    if unknown := [key for key in data if key not in _KEYS]:
        raise LayerswapError(f"{path}: unknown key {shortened(unknown[0])}: expected {', '.join(_KEYS)}")
    experts = data.get("experts", {})
    if not isinstance(experts, Mapping) or not all(isinstance(place, str) for place in experts.values()):
        raise LayerswapError(f"{path}: experts is {shortened(experts)}: expected a folder or hub id by name")
    dtype = data.get("dtype", "auto")
    if dtype not in ["auto", "float32", "bfloat16", "float16"]:
        raise LayerswapError(f"{path}: dtype is {shortened(dtype)}: expected auto, float32, bfloat16 or float16")
    try:
        recipe = _recipe(data.get("recipe"))
    except LayerswapError as error:
        raise LayerswapError(f"{path}: recipe: {error}") from None
    return Request(recipe, dict(experts), dtype, path.parent)


def read_table(path: Path) -> dict[str, Any]:
    """The table that a TOML or YAML file is; raises :class:`LayerswapError` if it cannot be read or is none."""
    text = read_text(path)
    if len(text) > LONGEST:
        raise LayerswapError(f"{path}: {len(text):,} characters: expected a file that a person writes, of a few pages")
    try:
        data = _toml(text) if path.suffix == ".toml" else _yaml(text)
        _bounded(data, MOST_VALUES, DEEPEST)
    except RecursionError:
        raise LayerswapError(f"{path}: nested too deep") from None
    except ValueError as error:
        raise LayerswapError(f"{path}: {one_line(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise LayerswapError(f"{path}: expected a table of keys and values")
    return data


def request_text(request: Request, folder: Path | None = None) -> str:
    """``request`` as the TOML file that ``layerswap merge`` reads; local paths from ``folder``, if it is given."""

    def place(text: str) -> str:
        local = expanded(text)
        return text if folder is None or not local.is_dir() else os.path.relpath(local, folder)

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    lines = [f"recipe = {quoted(repr(request.recipe))}"]
    lines += [f"dtype = {quoted(request.dtype)}"] if request.dtype != "auto" else []
    lines += ["", "[experts]", *(f"{quoted(name)} = {quoted(place(p))}" for name, p in request.experts.items())]
    return "\n".join(lines) + "\n"


def _recipe(value: object) -> Recipe:
    if isinstance(value, str):
        return parse_recipe(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise LayerswapError("expected a text such as 'layer-swap(bottom=5)', or a table with a kind")
    named = {str(key): _plain(item) for key, item in value.items() if key != "kind"}
    written = ", ".join(f"{key}={item!r}" for key, item in named.items())
    return make_recipe(value["kind"], [], named, f"{kebab(value['kind'])}({written})")


def _plain(value: Any) -> Any:
    """Pairs are tuples in recipes, lists in files."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _toml(text: str) -> Any:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # makes plain values only
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise yaml.constructor.ConstructorError(problem=f"{twice} is there twice", problem_mark=node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        return Loader(text).get_single_data()
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise ValueError(error) from error


def _bounded(value: Any, left: int, depth: int) -> int:
    """How many of ``left`` values remain; a few aliases of YAML can stand for billions, or for themselves."""
    if depth < 0:
        raise ValueError("nested too deep, or a loop")
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    left -= 1 + len(parts)
    for part in parts if left >= 0 else ():
        if isinstance(part, (Mapping, list)):
            left = _bounded(part, left, depth - 1)
    if left < 0:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    return left
