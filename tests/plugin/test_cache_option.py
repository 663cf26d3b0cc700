from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from harness.evaluation.responses import FILE_NAME
from tests.plugin.tables import FAMILY, values

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
import pytest
code = pytest.main(sys.argv[1:])
print("imported:", [name for name in ("torch", "transformers", "lm_eval", "datasets") if name in sys.modules])
sys.exit(code)
"""


@pytest.fixture
def cached(ablate, pytester):
    """Runs with a cache folder of the test's own."""
    return lambda *options, **more: ablate("--ablation-cache=kept", *options, **more)


@pytest.fixture
def own_profile(pytester, tiny_profile):
    """A copy of the tiny profile whose experts and tasks may be changed."""
    from harness.evaluation.embedded import TASKS

    folder = pytester.path / "own"
    shutil.copytree(tiny_profile.parent, folder)
    shutil.copytree(TASKS, folder / "tasks")
    path = folder / tiny_profile.name
    path.write_text(path.read_text("utf-8").replace('tasks = "embedded"', 'tasks = "tasks"'), "utf-8")
    return path


def test_a_second_run_computes_nothing_and_reports_the_same(cached, computed, pytester):
    assert cached("--ablation-report=first").ret == 0
    assert computed == [2]  # the case and the method, in one sweep
    assert cached("--ablation-report=second").ret == 0
    assert computed == [2]
    assert values(pytester.path / "first" / "latest") == values(pytester.path / "second" / "latest")
    assert [p.name for p in (pytester.path / "kept").iterdir() if p.suffix == ".sqlite"] == [FILE_NAME]


def test_a_second_run_imports_nothing_heavy(cached, pytester, tiny_profile, monkeypatch):
    assert cached().ret == 0
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = pytester.path / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    options = ["-p", "harness.plugin", "-p", "no:cacheprovider", f"--ablation-profile={tiny_profile}"]
    options += ["--ablation-limit=8", "--ablation-cache=kept", "--ablation-report=second"]
    result = pytester.run(sys.executable, script, *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["imported: []"])
    assert values(pytester.path / "second" / "latest") == values(pytester.path / "reports" / "latest")


def test_the_ini_twin_and_a_path_name_the_folder_and_the_option_wins(ablate, pytester, computed):
    pytester.makeini("[pytest]\nablation_cache = one\n")
    ablate()
    assert (pytester.path / "one" / FILE_NAME).is_file()
    ablate(f"--ablation-cache={pytester.path / 'one'}")
    assert computed == [2]
    ablate("--ablation-cache=two")
    assert computed == [2, 2]
    assert (pytester.path / "two" / FILE_NAME).is_file()


def test_without_the_option_the_users_folder_is_used(ablate, pytester, monkeypatch):
    monkeypatch.setenv("LAYERSWAP_CACHE", str(pytester.path / "users"))
    ablate()
    assert (pytester.path / "users" / FILE_NAME).is_file()


def test_a_folder_that_cannot_be_written_is_said_and_the_run_goes_on(cached, pytester, computed):
    (pytester.path / "kept").write_text("a file", encoding="utf-8")
    for _ in range(2):
        result = cached()
        assert result.ret == 0
        (line,) = [line for line in result.outlines if "kept" in line and "response store" in line]
        assert FILE_NAME in line
    assert computed == [2, 2]
    assert (pytester.path / "kept").read_text("utf-8") == "a file"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights bind no one here")
def test_a_folder_without_the_right_to_write_is_said(cached, pytester):
    (pytester.path / "kept").mkdir(mode=0o500)
    result = cached()
    assert result.ret == 0
    assert [line for line in result.outlines if "response store" in line]


def test_only_selected_cases_are_computed(cached, computed):
    cached("-k", "top", suite=FAMILY)
    assert computed == [2]  # with the method, which it is compared to
    cached("-k", "not math", suite=FAMILY)
    assert computed == [2, 1]
    cached(suite=FAMILY)
    assert computed == [2, 1, 1]
    cached(suite=FAMILY)
    assert computed == [2, 1, 1]


def test_a_run_that_stops_at_a_failure_computes_no_further_benchmark(cached, computed):
    broken = FAMILY.replace('"mmlu"', '"mmlu", "belebele"').replace(
        "    ablation(recipe).check(benchmark_name)",
        "    ablation(recipe).check(benchmark_name)\n    assert benchmark_name == 'belebele'",
    )
    assert cached("-x", suite=broken).ret == 1
    assert computed == [4]
    assert cached("-x", "-k", "belebele", suite=broken).ret == 0
    assert computed == [4, 4]


def test_failed_cases_alone_are_computed_when_they_run_again(pytester, ablate, computed):
    failing = FAMILY.replace(
        "    ablation(recipe).check(benchmark_name)",
        "    ablation(recipe).check(benchmark_name)\n    assert recipe != Expert('math')",
    )
    options = ("-p", "cacheprovider", "--ablation-no-cache")
    pytester.makeini("[pytest]\ncache_dir = failed\n")
    assert ablate(*options, suite=failing).ret == 1
    assert ablate(*options, "--lf", suite=failing).ret == 1
    assert computed == [4, 2]


@pytest.mark.parametrize("change", ["weights", "task", "limit"])
def test_what_has_changed_is_computed_anew(cached, computed, own_profile, change):
    cached(profile=own_profile)
    cached(profile=own_profile)
    assert computed == [2]
    if change == "weights":
        import torch
        from safetensors.torch import load_file, save_file

        path = own_profile.parent / "math" / "model.safetensors"
        state = load_file(path)
        with torch.no_grad():
            state["model.layers.2.mlp.up_proj.weight"][0, 0] += 0.5
        save_file(state, path, {"format": "pt"})
    elif change == "task":
        path = own_profile.parent / "tasks" / "data" / "mmlu.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        path.write_text("".join(json.dumps({**line, "more": 1}) + "\n" for line in lines), "utf-8")
    cached(profile=own_profile, limit="9" if change == "limit" else "8")
    assert computed == [2, 2]


def test_answers_are_kept_under_a_larger_limit(cached, computed, pytester):
    cached(limit="8")
    path = pytester.path / "kept" / FILE_NAME
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM responses").fetchone()[0]
    assert rows == 2 * 8 * 4
    cached(limit="400")
    assert sqlite3.connect(path).execute("SELECT count(*) FROM responses").fetchone()[0] == 2 * 340 * 4


@pytest.mark.slow
def test_two_workers_with_the_store_give_the_tables_of_one(cached, pytester, tiny_profile, monkeypatch):
    pytest.importorskip("xdist")
    cached("--ablation-report=alone", suite=FAMILY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = ["-p", "harness.plugin", "-n2", f"--ablation-profile={tiny_profile}", "--ablation-limit=8"]
    for cache, report in (("other", "cold"), ("kept", "warm")):
        result = pytester.runpytest_subprocess(*options, f"--ablation-cache={cache}", f"--ablation-report={report}")
        assert result.ret == 0
        assert values(pytester.path / report / "latest") == values(pytester.path / "alone" / "latest")
