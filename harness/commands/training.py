"""``train``: fine-tunes an expert from its base, or builds the embedded experts from scratch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError

# Options that stand in for keys of a profile's [training.NAME], with what they are; pydantic reads their values.
RECIPE = {
    "data": "a file of JSON lines, or a data set on the hub: ORG/NAME or ORG/NAME@REVISION",
    "config": "of a data set on the hub",
    "split": "of a data set on the hub",
    "prompt-format": "what stands around every prompt, such as $'Question: {prompt}\\nAnswer: ' in bash",
    "samples": "records to take, a seeded sample",
    "held-out": "share of the records that only the evaluation reads",
    "method": "full or lora",
    "rank": "of LoRA",
    "learning-rate": "its peak",
    "warmup": "share of the steps in which the rate rises",
    "weight-decay": "as AdamW has it",
    "epochs": "how often the data is read",
    "steps": "instead of epochs",
    "batch-size": "sequences a step",
    "micro-batch": "sequences in memory at once",
    "max-length": "of a sequence, in tokens",
    "packing": "true: several records share a sequence, and none sees another; false: one each",
    "precision": "float32, mixed (bfloat16 operations on float32 weights) or bfloat16",
    "optimizer": "adamw or adafactor",
    "gradient-checkpointing": "true: less memory, more time",
    "evaluations": "how often the run is evaluated and its state saved",
}
_BUILDING = {"only": [], "share": 1.0, "threads": 1, "benchmarks": None}


def add_training_commands(commands: Any) -> None:
    """Adds the command to the parsers of subcommands."""
    train = commands.add_parser(
        "train",
        help="fine-tune an expert from a profile's base; or build the embedded experts from scratch",
        description="With EXPERT, tunes that expert of the profile: its recipe is the profile's [training.EXPERT], "
        "with these options in place of single keys. A run that was interrupted goes on when it is started again. "
        "Without EXPERT, 'train embedded' builds all embedded experts from random weights.",
        epilog="example: layerswap train mine.toml math --data problems.jsonl --method lora --out models/math",
    )
    train.add_argument("profile", help="a shipped profile's name, or a TOML file")
    train.add_argument("expert", nargs="?", help="which of its experts")
    train.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (embedded experts: weights)")
    train.add_argument("--base", metavar="PLACE", help="the model to start from (default: the profile's base)")
    train.add_argument("--device", help="cpu, cuda or mps (default: the profile's)")
    train.add_argument("--seed", type=int, help="of the sample, the order and the adapter; or of the embedded experts")
    recipe = train.add_argument_group("the recipe")
    for name, meaning in RECIPE.items():
        recipe.add_argument(f"--{name}", metavar="VALUE", help=meaning)
    recipe.add_argument(
        "--field", action="append", default=[], metavar="NAME=FIELD", help="what the data calls it: prompt=question"
    )
    build = train.add_argument_group("the embedded experts")
    build.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="some stages (default: all, in order)")
    build.add_argument("--share", type=float, default=1.0, help="of each stage's tokens, to try things out")
    build.add_argument("--threads", type=int, default=1, help="of torch; shipped weights used 1 (default: %(default)s)")
    build.add_argument(
        "--benchmarks", type=Path, metavar="FOLDER", help="write the benchmarks' data there, train nothing"
    )
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    recipe = {name.replace("-", "_"): getattr(options, name.replace("-", "_")) for name in RECIPE}
    given = {name: value for name, value in recipe.items() if value is not None}
    if options.expert is not None:
        if mixed := [name for name, default in _BUILDING.items() if getattr(options, name) != default]:
            raise LayerswapError(f"--{mixed[0]} is for building the embedded experts: leave it out to tune one")
        _tune(options, given)
    elif options.profile != "embedded":
        raise LayerswapError(f"which expert of {options.profile}? for example: train {options.profile} math --out DIR")
    elif given or options.field or options.base or options.device:
        name = next(iter([*given, "field", "base", "device"])).replace("_", "-")
        raise LayerswapError(f"--{name} is for tuning one expert: name it, as in: train embedded math --out DIR")
    else:
        _build(options)


def _tune(options: argparse.Namespace, given: dict[str, Any]) -> None:
    from harness.places import is_hub_id, locate
    from harness.profiles import load_profile
    from harness.tuning.run import Job, check, tune
    from harness.tuning.spec import TrainingSpec, fields_of

    profile = load_profile(options.profile)
    if options.expert == "base" or options.expert not in profile.experts:
        known = ", ".join(name for name in profile.experts if name != "base")
        raise LayerswapError(f"profile {profile.name} has no expert {options.expert!r} to tune: it has {known}")
    if options.out is None:
        raise LayerswapError("--out is missing: name the folder to make")
    if data := given.get("data"):
        given["data"] = data if is_hub_id(data, Path.cwd()) else str(Path(data).expanduser().absolute())
    if options.field:
        given["fields"] = fields_of(options.field)
    if options.seed is not None:
        given["seed"] = options.seed
    spec = profile.training.get(options.expert, TrainingSpec()).changed(given)
    device = options.device or profile.device
    check(spec, options.out, profile.folder, device)  # before a base is downloaded
    place = options.base or profile.experts["base"]
    base = locate(place, Path.cwd(), profile.dtype) if options.base else profile.expert_path("base")
    job = Job(options.expert, spec, base, _called(place, base), options.out, profile.folder, device)
    record = tune(job, _say)
    print(
        f"{options.out}: {options.expert}, {record['steps']:,} steps; use it with --ablation-expert "
        f"{options.expert}={options.out}"
    )


def _called(place: str, base: Path) -> str:
    """What records call a base: a hub id with its commit, a model that ships, or a folder's or file's name."""
    from harness.places import origin

    return origin(place, base) or (place if ":" in place else Path(place).name)


def _say(line: str) -> None:
    print(line, flush=True)


def _build(options: argparse.Namespace) -> None:
    from harness.lab import benchmarks, build

    if options.benchmarks:
        benchmarks.write(options.benchmarks, build.BENCHMARK_SEED)
        print(f"{options.benchmarks}: data of the embedded benchmarks")
        return
    if not 0 < options.share <= 1:
        raise LayerswapError(f"--share is {options.share}: expected a share above 0 and up to 1")
    import torch

    torch.set_num_threads(max(1, options.threads))
    out = options.out or Path("weights")
    out.mkdir(parents=True, exist_ok=True)
    build.build(out, options.only, options.share, seed=options.seed or 0)
    (out / "README.md").write_text(build.describe(out), encoding="utf-8")
    print(f"{out}: {', '.join(stage.name for stage in build.select(options.only))}")
