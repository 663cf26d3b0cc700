"""The checkpoints that a command was given: by a profile, by ``--expert name=path``, or by a recipe's file."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import LayerswapError
from harness.files import expanded
from harness.recipes import PAPER, SwapSizes, check_experts

if TYPE_CHECKING:
    from harness.merging.storage import Source
    from harness.plan import Plan
    from harness.profiles import Profile
    from harness.recipe_files import Request

DEFAULT = "embedded"


@dataclass(frozen=True)
class Given:
    """Where each expert lies, and the sizes of what a recipe leaves out: a profile's, else the paper's."""

    places: Profile
    sizes: SwapSizes = field(default=PAPER)

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, as they were given."""
        return tuple(self.places.experts)

    @cached_property
    def layers(self) -> int:
        """The depth, from the config of the base or, if there is none, of the first expert."""
        from harness.merging.storage import read_depth

        return read_depth(self.path("base" if "base" in self.names else self.names[0]))

    def path(self, name: str) -> Path:
        """The local folder of an expert; a hub id is downloaded."""
        return self.places.expert_path(name)

    def plan(self, request: Request) -> Plan:
        """The plan for these experts; raises :class:`LayerswapError` if it needs one that was not given."""
        plan = request.recipe.plan(self.layers, self.sizes)
        check_experts(plan, self.names)
        return plan

    def sources(self, names: Iterable[str]) -> dict[str, Source]:
        """What to read experts from: their folders, but an adapter is loaded into its base first."""
        found: dict[str, Source] = {}
        for name in names:
            path = self.path(name)
            found[name] = path
            if (path / "adapter_config.json").is_file():
                from harness.experts import load_expert

                found[name] = load_expert(name, path, base_path=self.path("base") if "base" in self.names else None)
        return found


def add_given(parser: argparse.ArgumentParser) -> None:
    """``--profile``, ``--expert`` and ``--base``."""
    parser.add_argument("--profile", help=f"a shipped profile's name, or a TOML file (default: {DEFAULT})")
    parser.add_argument(
        "--expert", action="append", default=[], metavar="NAME=PATH", help="a checkpoint, instead of a profile's"
    )
    parser.add_argument("--base", metavar="PATH", help="short for --expert base=PATH")


def read_given(options: argparse.Namespace, request: Request | None = None) -> Given:
    """The checkpoints of the options or, where those name none, of the recipe's file; else of the default profile."""
    from harness.profiles import Profile, load_profile

    pairs = dict(_pair(text) for text in options.expert)
    if options.base:
        pairs["base"] = options.base
    if options.profile is None and (pairs or (request and request.experts)):
        listed = {**_from_file(request), **{name: str(Path(place)) for name, place in pairs.items()}}
        for name, place in pairs.items():
            if not expanded(place).is_dir() and not _is_hub_id(place):
                raise LayerswapError(f"--expert {name}={place}: there is no such folder")
        # Not all roles need to be there, and there are no benchmarks: what a profile checks does not apply.
        return Given(Profile.model_construct(name="of the command line", experts=listed, folder=Path()))
    profile = load_profile(options.profile or DEFAULT)
    if pairs:
        listed = {**profile.experts, **{name: str(expanded(place).resolve()) for name, place in pairs.items()}}
        profile = profile.model_copy(update={"experts": listed})
    return Given(profile, profile.sizes)


def _from_file(request: Request | None) -> Mapping[str, str]:
    """Relative folders start where the file lies; what is no folder there is a hub id."""
    found = request.experts if request else {}
    folder = request.folder if request else Path()
    local = {name: folder / expanded(place) for name, place in found.items()}
    return {name: str(local[name]) if local[name].is_dir() else place for name, place in found.items()}


def _pair(text: str) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not name or not place:
        raise LayerswapError(f"--expert {text}: expected a name and a folder, such as math=checkpoints/math")
    return name, place


def _is_hub_id(place: str) -> bool:
    return place.count("/") == 1 and not place.startswith((".", "/", "~"))
