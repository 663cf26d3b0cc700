"""``prefetch``: downloads what a profile needs, for runs without a network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_hub_commands(commands: Any) -> None:
    """Adds the command to the parsers of subcommands."""
    prefetch = commands.add_parser(
        "prefetch",
        help="download a profile's experts and benchmarks from the hub, for runs without a network",
        epilog="example: layerswap prefetch mine.toml --data benchmarks; "
        "HF_HUB_OFFLINE=1 pytest ablations/ --ablation-profile mine.toml --ablation-data benchmarks",
    )
    prefetch.add_argument("profile", help="a shipped profile's name, or a TOML file")
    prefetch.add_argument("--expert", action="append", default=[], metavar="NAME=PLACE", help="as --ablation-expert")
    prefetch.add_argument(
        "--data", default="", metavar="FOLDER", help="where the benchmarks' files go (default: the profile's data)"
    )
    prefetch.set_defaults(run=_prefetch)


def _prefetch(options: argparse.Namespace) -> int:
    from harness.prefetch import prefetch
    from harness.profiles import load_profile, parse_experts

    profile = load_profile(options.profile).changed(parse_experts(options.expert), options.data, Path.cwd())
    failed = prefetch(profile, lambda line: print(line, flush=True))
    for problem in failed:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(failed))
