"""Merging to disk, whole process against whole process: this package, ``cp`` of as many bytes, and mergekit.

    pytest benchmarks/test_checkpoints.py --benchmark-only -s

Contestants run in turns, one process at a time, on files in the system's cache; the peak memory is what the system
counted for the process (at least the 40 MB of the pytest that starts it). A merge waits until its result is on the
disk, so it is held against ``cp`` with ``sync`` of the copy; with ``--no-flush``, against ``cp`` alone. Checkpoints are
built once and lie in LAYERSWAP_CACHE or the user's folder for caches (6 GB, and 32 for 8B); what cannot be had is
skipped with the reason.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.models import checkpoints, missing

ROUNDS, MERGEKIT_ROUNDS = 7, 3
SWAP, TIES, TIES_MODEL = "LayerSwap(transition=0, outer='math')", "Ties(0.5)", "Ties(0.5, trim='model')"
DEPTH = {"135M": 30, "1B": 16}
PROFILE = """
name = "{size}"
title = "{size}"
[experts]
base = "{base}"
math = "{math}"
language = "{language}"
[benchmarks.mmlu]
columns = [{{ name = "mmlu", task = "embedded_mmlu", metric = "acc" }}]
"""


@dataclass
class Measured:
    """Seconds of the processes that ran in turns, a list for each contestant, and their peak megabytes."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    def run(self, label: str, command: list[str], out: Path) -> None:
        """Runs ``command``, which makes ``out``, once; an earlier result is removed, and the disk let come to rest."""
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
        os.sync()
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds.setdefault(label, []).append(time.perf_counter() - started)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        assert process.returncode == 0, errors.decode()[-2000:]
        peak = usage.ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)
        self.megabytes[label] = max(peak, self.megabytes.get(label, 0.0))

    def ratio(self, mine: str, theirs: str, without: str | None = None) -> float:
        """Median over the turns of the seconds of ``mine`` (less those of ``without``) over those of ``theirs``."""
        less = self.seconds[without] if without else [0.0] * len(self.seconds[mine])
        pairs = zip(self.seconds[mine], less, self.seconds[theirs], strict=True)
        return statistics.median((a - start) / b for a, start, b in pairs)

    def report(self, benchmark: Any) -> None:
        for label, values in self.seconds.items():
            line = f"{statistics.median(values):.2f} s [{min(values):.2f}, {max(values):.2f}], n={len(values)}"
            benchmark.extra_info[label] = f"{line}, {self.megabytes[label]:.0f} MB"
            print(f"\n{label:<28} {benchmark.extra_info[label]}", end="")
        print()


@pytest.fixture(params=["135M", "1B"])
def size(request: pytest.FixtureRequest) -> str:
    if reason := missing(request.param):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder on the disk of the checkpoints that takes a result, emptied after each test."""
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


def in_turns(benchmark: Any, contestants: dict[str, list[str]], out: Path, rounds: int) -> Measured:
    """Each contestant once a round: a busy minute is one for all. pytest-benchmark times the first of them."""
    measured = Measured()
    mine, *others = contestants

    def setup() -> None:
        for label in others:
            measured.run(label, contestants[label], out)

    benchmark.pedantic(lambda: measured.run(mine, contestants[mine], out), setup=setup, rounds=rounds)
    measured.report(benchmark)
    return measured


def merge_command(size: str, recipe: str, out: Path) -> list[str]:
    folders = checkpoints(size)
    profile = out.parent / f"{size}.toml"
    profile.write_text(PROFILE.format(size=size, **({"base": folders["math"]} | folders)), "utf-8")
    return [sys.executable, "-m", "harness", "merge", recipe, "--profile", str(profile), "--out", str(out)]


def mergekit_command(config: dict[str, Any], out: Path) -> list[str]:
    yaml = pytest.importorskip("yaml")
    program = Path(sys.executable).with_name("mergekit-yaml")
    if not program.is_file():
        pytest.skip("mergekit is not installed")
    path = out.parent / "mergekit.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return [str(program), str(path), str(out), "--no-copy-tokenizer", "--quiet"]


def swap_config(size: str) -> dict[str, Any]:
    """The same swap in mergekit's words: one source a slice, and the outer slots' owner first and last."""
    from harness.recipes import LayerSwap

    folders, layers = checkpoints(size), DEPTH[size]
    plan = LayerSwap(transition=0, outer="math").plan(layers)
    owners = [plan[f"layers.{index}"].sources[0][0] for index in range(layers)]
    cuts = [0, *(i for i in range(1, layers) if owners[i] != owners[i - 1]), layers]
    blocks = [("math", 0, 0), *((owners[a], a, b) for a, b in pairwise(cuts))]
    blocks.append(("math", layers, layers))
    return {
        "merge_method": "passthrough",
        "base_model": str(folders["math"]),
        "slices": [{"sources": [{"model": str(folders[e]), "layer_range": [a, b]}]} for e, a, b in blocks],
        "dtype": "bfloat16",
    }


def ties_config() -> dict[str, Any]:
    folders = checkpoints("135M")
    models = [{"model": str(folders[name]), "parameters": {"weight": 1.0}} for name in ("math", "language")]
    return {
        "merge_method": "ties",
        "base_model": str(folders["base"]),
        "models": models,
        "parameters": {"density": 0.5, "normalize": True},
        "dtype": "bfloat16",
    }


def start_up(out: Path) -> list[str]:
    """What a merge costs whatever a model's size: the same command on the embedded experts, of 3.4 MB each."""
    return [sys.executable, "-m", "harness", "merge", SWAP, "--profile", "embedded", "--out", str(out), "--no-flush"]


def imports() -> list[str]:
    """The part of it that is the interpreter and this package's modules."""
    modules = "harness.cli, harness.digests, harness.profiles, harness.recipe_text, harness.merging.checkpoint"
    return [sys.executable, "-c", f"import {modules}"]


def cp(size: str, out: Path, sync: bool) -> list[str]:
    file = checkpoints(size)["math"] / "model.safetensors"
    return ["sh", "-c", f"cp '{file}' '{out}' && sync '{out}'"] if sync else ["cp", str(file), str(out)]


@pytest.mark.parametrize("flush", [True, False], ids=["flushed", "not-flushed"])
def test_a_swap_takes_at_most_1_3_times_cp(benchmark: Any, size: str, flush: bool, out: Path) -> None:
    """Besides the start-up, with known digests (as from a file's second merge on), and under 200 MB."""
    benchmark.group = f"swap {size}"
    command = merge_command(size, SWAP, out)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    contestants = {
        "swap": command if flush else [*command, "--no-flush"],
        "cp": cp(size, out, sync=flush),
        "start-up": start_up(out),
        "imports": imports(),
    }
    measured = in_turns(benchmark, contestants, out, ROUNDS)
    ratios = {less: measured.ratio("swap", "cp", less) for less in ("start-up", "imports")}
    benchmark.extra_info["ratio to cp besides"] = ratios
    print(f"(swap - start-up) / cp: {ratios['start-up']:.2f}; (swap - imports) / cp: {ratios['imports']:.2f}")
    assert measured.megabytes["swap"] < 200
    assert ratios["start-up"] <= 1.3


def test_other_swaps(benchmark: Any, size: str, out: Path) -> None:
    """The first merge of a file, which reads all of it for its digest; and one that averages some slots."""
    benchmark.group = f"swap {size}"
    script = "import os, sys, tempfile; os.environ['LAYERSWAP_CACHE'] = tempfile.mkdtemp(); "
    script += "from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    command = merge_command(size, SWAP, out)
    first = [command[0], "-c", script, *command[3:]]
    in_turns(benchmark, {"averages": merge_command(size, "LayerSwap()", out), "first": first}, out, 3)


@pytest.mark.parametrize("flush", [True, False], ids=["flushed", "not-flushed"])
def test_a_swap_is_5_times_faster_than_mergekits(benchmark: Any, size: str, flush: bool, out: Path) -> None:
    """Like for like: both wait for the disk (mergekit with ``sync`` after it), or neither does."""
    benchmark.group = f"swap {size}"
    mine, theirs = merge_command(size, SWAP, out), mergekit_command(swap_config(size), out)
    if flush:
        theirs = ["sh", "-c", f"{shlex.join(theirs)} && sync '{out}'/*"]
    contestants = {"swap": mine if flush else [*mine, "--no-flush"], "mergekit": theirs}
    measured = in_turns(benchmark, contestants, out, MERGEKIT_ROUNDS)
    ratio = benchmark.extra_info["times faster"] = measured.ratio("mergekit", "swap")
    print(f"mergekit / swap: {ratio:.1f}")
    assert ratio >= 5


@pytest.mark.parametrize("flush", [True, False], ids=["flushed", "not-flushed"])
def test_ties_is_8_times_faster_than_mergekits(benchmark: Any, flush: bool, out: Path) -> None:
    """And takes at most half its memory; like for like, as above."""
    benchmark.group = "TIES 135M"
    if reason := missing("135M"):
        pytest.skip(reason)
    theirs, options = mergekit_command(ties_config(), out), [] if flush else ["--no-flush"]
    if flush:
        theirs = ["sh", "-c", f"{shlex.join(theirs)} && sync '{out}'/*"]
    contestants = {
        "TIES": [*merge_command("135M", TIES, out), *options],
        "TIES over the model": [*merge_command("135M", TIES_MODEL, out), *options],
        "mergekit": theirs,
    }
    measured = in_turns(benchmark, contestants, out, MERGEKIT_ROUNDS)
    ratio = benchmark.extra_info["times faster"] = measured.ratio("mergekit", "TIES")
    print(f"mergekit / TIES: {ratio:.1f}")
    assert ratio >= 8
    assert measured.megabytes["TIES"] <= measured.megabytes["mergekit"] / 2


@pytest.mark.parametrize("recipe", [SWAP, "LayerSwap()"], ids=["copied", "averaged"])
def test_eight_billion_parameters_stream_below_300_mb(benchmark: Any, recipe: str, out: Path) -> None:
    """Plan, preflight, digests and the merge of 16 GB, in one process; 52 GB of disk are needed."""
    if reason := missing("8B"):
        pytest.skip(reason)
    benchmark.group = "swap 8B"
    measured = in_turns(benchmark, {"swap": [*merge_command("8B", recipe, out), "--no-flush"]}, out, 1)
    assert measured.megabytes["swap"] < 300
