"""``plan``, ``merge`` and ``analyze``: what a recipe comes to, a merged model on disk, and how far experts moved."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.given import Given, add_given, read_given
from harness.errors import LayerswapError

if TYPE_CHECKING:
    from harness.plan import Plan

RECIPE = "such as 'layer-swap(bottom=5, top=2)', or a TOML or YAML file with one"


def add_model_commands(commands: Any) -> None:
    """Adds the commands to the parsers of subcommands."""
    plan = commands.add_parser(
        "plan",
        help="show what a recipe puts into every layer",
        epilog="example: layerswap plan 'layer-swap(transition=0)' --layers 32",
    )
    plan.add_argument("recipe", help=RECIPE)
    plan.add_argument("--layers", type=int, metavar="N", help="of a model of N layers, with the paper's default sizes")
    add_given(plan)
    plan.set_defaults(run=_plan)

    merge = commands.add_parser(
        "merge",
        help="write a merged model to disk",
        epilog="example: layerswap merge 'layer-swap(bottom=5, top=2)' --expert math=models/math "
        "--expert language=models/swahili --out swapped",
    )
    merge.add_argument("recipe", help=RECIPE)
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    add_given(merge)
    merge.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="what to compute and store in (default: auto, as the experts are stored)",
    )
    merge.add_argument(
        "--no-flush", action="store_true", help="do not wait for the disk: a power cut may then leave a damaged folder"
    )
    merge.set_defaults(run=_merge)

    analyze = commands.add_parser(
        "analyze",
        help="how far each expert moved from the base, by layer and module, as Markdown",
        epilog="example: layerswap analyze --base models/base --expert math=models/math "
        "--expert language=models/swahili --figures out",
    )
    add_given(analyze)
    analyze.add_argument("--figures", type=Path, metavar="DIR", help="write changes.svg and changes.csv there")
    analyze.add_argument("--full", action="store_true", help="every layer and module of every expert too")
    analyze.set_defaults(run=_analyze)


def _plan(options: argparse.Namespace) -> None:
    from harness.recipe_files import read_request

    request = read_request(options.recipe)
    if options.layers is not None:
        if options.profile or options.expert or options.base:
            raise LayerswapError("--layers is given beside checkpoints, which have a depth: leave out one of the two")
        plan = request.recipe.plan(options.layers)
    else:
        plan = read_given(options, request).plan(request)
    print(plan_text(request.recipe.title, plan))


def plan_text(title: str, plan: Plan) -> str:
    """The plan for people: title and depth, a drawing, a line for each run of equal slots, the digest."""
    runs = [(span, mix.text) for span, mix in plan.runs]
    width = max(len(span) for span, _ in runs)
    lines = [f"{span:<{width}}  {text}" for span, text in runs]
    return "\n".join([f"{title}: {plan.layers} layers", plan.drawing, "", *lines, "", f"digest {plan.digest}"])


def _merge(options: argparse.Namespace) -> None:
    from harness.digests import default_cache
    from harness.merging.checkpoint import write_checkpoint
    from harness.recipe_files import read_request

    request = read_request(options.recipe)
    given = read_given(options, request)
    plan = given.plan(request)
    write_checkpoint(
        plan,
        given.sources(plan.experts),
        options.out,
        recipe_text=repr(request.recipe),
        dtype=options.dtype or request.dtype,
        cache=default_cache(),
        flush=not options.no_flush,
    )
    print(f"{options.out}: {request.recipe.title}, {plan.drawing}")


def _analyze(options: argparse.Namespace) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    from harness.merging.analysis import changes
    from harness.reporting.changes import changes_text, write_figures

    given = read_given(options)
    if "base" not in given.names:
        raise LayerswapError("there is no base to measure changes from: give it as --base PATH")
    if len(given.names) < 2:
        raise LayerswapError("there is no expert to measure: give one as --expert math=PATH")
    rows = changes(_loaded(given))
    if options.figures:
        for path in write_figures(rows, options.figures):
            print(path, file=sys.stderr)
    print(changes_text(rows, options.full), end="")


def _loaded(given: Given) -> Any:
    from harness.experts import load_expert
    from harness.merging.preflight import preflight

    base = given.path("base")
    paths = {name: given.path(name) for name in given.names}
    preflight({name: path for name, path in paths.items() if not (path / "adapter_config.json").is_file()})
    return {name: load_expert(name, path, base_path=base) for name, path in paths.items()}
