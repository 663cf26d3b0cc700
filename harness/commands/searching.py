"""``search``: tries many layer swaps on tuning documents, and shows the best on held-out ones."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.profiles import Profile


def add_search_commands(commands: Any) -> None:
    """Adds the command to the parsers of subcommands."""
    search = commands.add_parser(
        "search",
        help="look for good sizes, weights and outer slots, on documents that the floors never see",
        epilog="example: layerswap search --profile mine.toml --budget 64 --columns 'mgsm sw' 'mgsm en'",
    )
    search.add_argument("--profile", default="embedded", help="a shipped profile's name, or a TOML file")
    search.add_argument("--budget", type=int, default=32, metavar="N", help="swaps to try (default: %(default)s)")
    search.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="what to maximise (default: the first benchmark, in the target language and in English)",
    )
    search.add_argument("--limit", type=int, metavar="N", help="documents of each task (default: all)")
    search.add_argument("--seed", type=int, default=0, help="of the proposals (default: %(default)s)")
    search.add_argument("--expert", action="append", default=[], metavar="NAME=PLACE", help="as --ablation-expert")
    search.add_argument("--data", default="", metavar="FOLDER", help="as --ablation-data")
    search.add_argument("--device", help="(default: the profile's)")
    search.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="(default: the profile's)")
    search.add_argument("--out", type=Path, metavar="FILE", help="a .json file for every trial")
    search.set_defaults(run=_search)


def _search(options: argparse.Namespace) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    from harness.evaluation.responses import Store, default_path
    from harness.files import replace_text
    from harness.profiles import load_profile, parse_experts
    from harness.search.run import search, table
    from harness.search.split import split

    profile = load_profile(options.profile).changed(parse_experts(options.expert), options.data, Path.cwd())
    parts = split(profile, options.columns or default_columns(profile))
    print(parts.sentence, file=sys.stderr)
    store = Store(default_path())
    try:
        found = search(
            parts,
            options.budget,
            seed=options.seed,
            limit=options.limit,
            device=options.device,
            dtype=options.dtype,
            store=store,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    finally:
        store.close()
    print(table(found))
    if not found.pareto:
        print("nothing that was tried is better anywhere than the profile's swap without losing elsewhere")
    if options.out:  # last: where it cannot be written, the table has been shown
        replace_text(options.out, found.as_json())


def default_columns(profile: Profile) -> list[str]:
    """The first benchmark's first column, and its first one in English."""
    names = [column.name for column in next(iter(profile.benchmarks.values())).columns]
    return list(dict.fromkeys([names[0], *[name for name in names if name.split()[1:] == ["en"]][:1]]))
