"""The command line: ``layerswap``, or ``python -m harness``; ``--help`` lists its commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import __version__
from harness.commands.exchange import add_exchange_commands
from harness.commands.hub import add_hub_commands
from harness.commands.models import add_model_commands
from harness.commands.searching import add_search_commands
from harness.commands.training import add_training_commands
from harness.errors import LayerswapError, plain, refused
from harness.stopping import TERMINATED, Terminated, stopping_well


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake is one sentence on standard error and status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with stopping_well():
            return int(options.run(options) or 0)
    except LayerswapError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has enough of it
        sys.stdout = None
        return 1
    except OSError as error:
        print(f"error: {plain(refused(error))}", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: there is not enough memory: give fewer or smaller models, or more memory", file=sys.stderr)
        return 2
    except Terminated:
        print("terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness" if Path(sys.argv[0]).name == "__main__.py" else "layerswap",
        description="Layer-swapped language models, ablated.",
        epilog="example: layerswap plan 'layer-swap(bottom=5, top=2)' --layers 32",
    )
    parser.add_argument("--version", action="version", version=f"pytest-layerswap {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_model_commands(commands)
    add_exchange_commands(commands)

    doctor = commands.add_parser(
        "doctor",
        help="check all that a run of a profile needs, and say what it will cost",
        epilog="example: python -m harness doctor mine.toml --data benchmarks --limit 100",
    )
    doctor.add_argument("profile", help="a shipped profile's name, or a TOML file")
    doctor.add_argument("--expert", action="append", default=[], metavar="NAME=PLACE", help="as --ablation-expert")
    doctor.add_argument("--data", default="", metavar="FOLDER", help="as --ablation-data")
    doctor.add_argument("--limit", type=int, metavar="N", help="documents of each task (default: all)")
    doctor.add_argument("--device", help="(default: the profile's)")
    doctor.add_argument("--variants", type=int, default=50, help="how many the run has (default: %(default)s)")
    doctor.set_defaults(run=_doctor)

    compare = commands.add_parser("compare", help="hold one saved run against another, with the suite's statistics")
    compare.add_argument("before", help="a report's folder, a file of accepted results, or their name")
    compare.add_argument("after", help="the same")
    compare.add_argument("--margin", type=float, default=0.02, help="points a case may lose, over 100 (default: 0.02)")
    compare.add_argument("--all", action="store_true", help="show what is equal on every document too")
    compare.add_argument("--fail", action="store_true", help="exit with status 1 if a floor is broken")
    compare.set_defaults(run=_compare)

    trend = commands.add_parser("trend", help="one score over the runs under a folder of reports")
    trend.add_argument("reports", type=Path, nargs="?", default=Path("reports"), help="(default: %(default)s)")
    trend.add_argument("--case", default="method/layer-swap", help="family/case (default: %(default)s)")
    trend.add_argument("--column", default="mgsm sw", help="(default: %(default)s)")
    trend.add_argument("--out", type=Path, help="an .svg file for the figure")
    trend.set_defaults(run=_trend)

    seeds = commands.add_parser("seeds", help="join runs of the suite on several training seeds of the experts")
    seeds.add_argument("runs", nargs="+", help="a report's folder or a file of accepted results for every seed")
    seeds.add_argument("--column", default="mgsm sw", help="(default: %(default)s)")
    seeds.add_argument("--reference", default="method/layer-swap", help="family/case (default: %(default)s)")
    seeds.set_defaults(run=_seeds)

    report = commands.add_parser("report", help="write a report anew from its results.json and samples.jsonl.gz")
    report.add_argument("folder", type=Path, help="the run's folder, such as reports/latest")
    report.set_defaults(run=_report)

    cache = commands.add_parser("cache", help="the store of answers and scores that runs share: show, shrink, check")
    actions = cache.add_subparsers(required=True, metavar="ACTION")
    ls = actions.add_parser("ls", help="where it is, how large, and what it holds")
    ls.set_defaults(run=_cache_ls)
    gc = actions.add_parser(
        "gc",
        help="drop what no run has used for long, such as 'cache gc --days 30 --size 500'",
        epilog="example: python -m harness cache gc --days 30 --size 500",
    )
    gc.add_argument("--days", type=int, default=90, help="unused for more than that (default: %(default)s)")
    gc.add_argument("--size", type=float, metavar="MB", help="then the longest unused, until the file is no larger")
    gc.set_defaults(run=_cache_gc)
    verify = actions.add_parser("verify", help="check every row and remove damaged ones: status 1 if there were any")
    verify.set_defaults(run=_cache_verify)

    add_training_commands(commands)
    add_hub_commands(commands)
    add_search_commands(commands)

    study = commands.add_parser("study", help="does swapping pay? over several seeds of the embedded experts")
    study.add_argument(
        "folders", type=Path, nargs="+", help="one per seed, as 'train embedded --seed N --out' makes them"
    )
    study.add_argument("--seed", type=int, required=True, help="of the word problems: one that nothing was chosen on")
    study.add_argument("--split", choices=["validation", "test"], default="test", help="(default: %(default)s)")
    study.add_argument("--scale", type=int, default=2, help="problems: times the benchmark's 500 (default: 2)")
    study.add_argument("--out", type=Path, help="a .json file for every figure")
    study.set_defaults(run=_study)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from harness.doctor import diagnose
    from harness.profiles import load_profile, parse_experts

    profile = load_profile(options.profile).changed(parse_experts(options.expert), options.data, Path.cwd())
    found = diagnose(profile, options.device or profile.device, options.limit, options.variants)
    print(found.text)
    return int(not found.sound)


def _compare(options: argparse.Namespace) -> int:
    from harness.gating.floors import no_worse
    from harness.reporting.compare import BROKEN, compare_runs, load_saved, render_comparison

    if not 0 <= options.margin <= 1:
        raise LayerswapError(f"--margin is {options.margin}: expected a share from 0 to 1 (two points are 0.02)")
    floor = no_worse(options.margin)
    rows = compare_runs(load_saved(options.before), load_saved(options.after), floor)
    print(render_comparison(rows, floor, options.all), end="")
    return int(options.fail and any(row.verdict in BROKEN for row in rows))


def _seeds(options: argparse.Namespace) -> None:
    from harness.reporting.compare import load_saved
    from harness.reporting.over_seeds import over_seeds, seeds_table

    print(seeds_table(over_seeds([load_saved(run) for run in options.runs], options.column, options.reference)))


def _trend(options: argparse.Namespace) -> None:
    from harness.files import replace_text
    from harness.reporting.trend import trend_figure, trend_points, trend_table

    found, skipped = trend_points(options.reports, options.case, options.column)
    for line in skipped:
        print(line, file=sys.stderr)
    if options.out:
        replace_text(options.out, trend_figure(found, f"{options.case} on {options.column}"))
    print(trend_table(found))


def _report(options: argparse.Namespace) -> None:
    from harness.reporting.report import read_results, write_report
    from harness.reporting.samples import read_samples

    folder = options.folder.resolve()
    path = folder / "samples.jsonl.gz"
    samples = read_samples(path) if path.is_file() else ()
    print(write_report(read_results(folder), folder, samples))


def _cache_ls(options: argparse.Namespace) -> None:
    from harness.caretaker import show
    from harness.evaluation.responses import default_path

    print(show(default_path()))


def _cache_gc(options: argparse.Namespace) -> None:
    from harness.caretaker import collect
    from harness.evaluation.responses import default_path

    print(collect(default_path(), options.days, options.size))


def _cache_verify(options: argparse.Namespace) -> int:
    from harness.caretaker import verify
    from harness.evaluation.responses import default_path

    found = verify(default_path())
    print(found.text, file=sys.stdout if found.sound else sys.stderr)
    return int(not found.sound)


def _study(options: argparse.Namespace) -> None:
    import json

    from harness.files import replace_text
    from harness.lab.study import as_dict, study, table

    rivals = study(options.folders, options.seed, options.split, max(1, options.scale))
    if options.out:
        replace_text(options.out, json.dumps(as_dict(rivals), indent=1) + "\n")
    print(table(rivals))
