"""``export`` and ``import``: recipes as mergekit's YAML files, and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.commands.given import add_given, read_given
from harness.commands.models import RECIPE
from harness.errors import LayerswapError


def add_exchange_commands(commands: Any) -> None:
    """Adds the commands to the parsers of subcommands."""
    export = commands.add_parser(
        "export",
        help="write a recipe as a mergekit file that gives the same weights",
        epilog="example: layerswap export 'ties(density=0.2)' --base models/base --expert math=models/math "
        "--expert language=models/swahili --to mergekit.yaml",
    )
    export.add_argument("recipe", help=RECIPE)
    export.add_argument("--to", type=Path, metavar="FILE", help="the YAML file to write (default: print it)")
    add_given(export)
    export.set_defaults(run=_export)

    reader = commands.add_parser(
        "import",
        help="make a recipe of a mergekit file",
        epilog="example: layerswap import mergekit.yaml --to recipe.toml; layerswap merge recipe.toml --out merged",
    )
    reader.add_argument(
        "file", type=Path, help="a mergekit YAML file: linear, passthrough, ties, task_arithmetic, slerp"
    )
    reader.add_argument(
        "--expert", action="append", default=[], metavar="NAME=PATH", help="name a model, by its path in the file"
    )
    reader.add_argument("--to", type=Path, metavar="FILE", help="the TOML file to write (default: print it)")
    reader.set_defaults(run=_import)


def _export(options: argparse.Namespace) -> None:
    from harness.exchange.writing import mergekit_config, yaml_text
    from harness.files import replace_text
    from harness.recipe_files import read_request

    request = read_request(options.recipe)
    given = read_given(options, request)
    plan = given.plan(request)
    paths = {name: given.path(name) for name in plan.experts}
    for name, path in paths.items():
        if (path / "adapter_config.json").is_file():
            merge = f'layerswap merge "expert({name!r})" --out DIR'
            raise LayerswapError(f"models: {name} is an adapter: write it merged into its base first, with '{merge}'")
    dtype, tied = _stored(paths[plan.experts[0]])
    models = {name: str(path) for name, path in paths.items()}
    text = yaml_text(mergekit_config(plan, models, dtype, tied))
    if options.to:
        replace_text(options.to, text)
        print(f"{options.to}: {request.recipe.title}, {plan.drawing}")
    else:
        print(text, end="")


def _stored(folder: Path) -> tuple[str, bool]:
    """An expert's dtype, and whether its head is its embeddings."""
    from harness.merging.storage import open_source, read_config

    stored = open_source(folder, lambda _: lambda: "")
    return stored.dtype, bool(read_config(folder).get_text_config().tie_word_embeddings)


def _import(options: argparse.Namespace) -> None:
    from harness.exchange.reading import read_mergekit
    from harness.files import replace_text
    from harness.recipe_files import request_text

    names = {}
    for text in options.expert:
        name, _, place = text.partition("=")
        if not name or not place:
            raise LayerswapError(f"--expert {text}: expected a name and a path, such as math=models/math")
        names[place] = name
    request = read_mergekit(options.file, names)
    if options.to:
        replace_text(options.to, request_text(request, options.to.parent))
        print(f"{options.to}: {request.recipe.title}")
    else:
        print(request_text(request), end="")
