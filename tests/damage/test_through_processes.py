"""Damaged inputs as a user meets them: commands and items of pytest in processes of their own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.damage.case import MERGE, WEIGHTS, Change, content, cut, updated
from tests.damage.records import BELEBELE
from tests.damage.weights import _put

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest
from harness.recipes import Expert, LayerSwap
from harness.suite import benchmarks, case

@benchmarks("belebele")
@pytest.mark.parametrize("recipe", [case("math", Expert("math")), case("base", Expert("base"))])
def test_damaged(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
"""


@pytest.fixture
def here(workshop: Path, tmp_path: Path) -> Path:
    shutil.copytree(workshop, tmp_path / "here")
    return tmp_path / "here"


def run(here: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment = {name: value for name, value in environment.items() if name not in ("CI", "GITHUB_ACTIONS")}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=here, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("change", "command", "says"),
    [
        (cut(WEIGHTS, 0.5), MERGE, r"models/math/model\.safetensors"),
        (_put("nan"), MERGE, r"models/math/model\.safetensors.*NaN"),
        (cut("before.json", 0.5), "compare before.json after.json", r"before\.json: not JSON"),
        (content("mergekit.yaml", "a: [1"), "import mergekit.yaml", r"mergekit\.yaml"),
        (lambda at: None, "merge nowhere.toml --out out", r"nowhere\.toml"),
    ],
)
def test_a_command_ends_with_one_line(change: Change, command: str, says: str, here: Path):
    change(here)
    result = run(here, "harness", *shlex.split(command))
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{says}.*\n", result.stderr), result.stderr
    assert not [path for path in here.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    ("change", "options", "status", "says"),
    [
        (_put("nan"), "", 1, r"model\.layers\.2\.mlp\.up_proj\.weight holds NaN"),
        pytest.param(content(BELEBELE, "{\n"), "", 1, r"swh_Latn\.jsonl, line 1: not JSON", marks=pytest.mark.slow),
        (updated("models/base/config.json", num_hidden_layers="six"), "", 1, r"models/base'.*config|num_hidden_layers"),
        (cut("before.json", 0.5), "--ablation-baseline=before.json", 4, r"before\.json: not JSON"),
    ],
    ids=["NaN", "data", "config", "accepted results"],
)
def test_an_item_fails_with_the_sentence_and_no_traceback(
    change: Change, options: str, status: int, says: str, here: Path
):
    change(here)
    (here / "test_suite.py").write_text(SUITE, "utf-8")
    given = ["-p", "no:cacheprovider", "--ablation-profile=profile.toml", "--ablation-cache=cache", *options.split()]
    # The plugin is known by its entry point where this package is installed, and else by its name.
    known = [] if _installed() else ["-p", "harness.plugin"]
    result = run(here, "pytest", "-q", *known, *given, "-k", "math", "test_suite.py")
    said = result.stdout + result.stderr
    assert result.returncode == status, said
    assert re.search(says, said), said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    assert "harness/" not in said.replace(str(ROOT), "")


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.value == "harness.plugin" for point in entry_points(group="pytest11"))
