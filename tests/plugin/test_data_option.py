from __future__ import annotations

from harness.profiles import load_profile
from tests.evaluation.published import write_all

REAL = """
name = "published"
tasks = "real"
[experts]
base = "{0}/base"
math = "{0}/math"
language = "{0}/language"
[swap]
bottom = 1
top = 1
transition = [1, 0]
of = 4
[benchmarks.mmlu]
columns = [{{ name = "mmlu", task = "real_mmlu", metric = "acc" }}]
"""


def test_benchmarks_are_read_from_published_files(ablate, latest, pytester, tiny_profile):
    folder = load_profile(str(tiny_profile)).folder
    path = pytester.path / "published.toml"
    path.write_text(REAL.format(folder.as_posix()), encoding="utf-8")
    write_all(pytester.path / "files")
    assert ablate("--ablation-data=files", profile=path).ret == 0
    assert latest().cases[0].columns["mmlu"].n == 2
    result = ablate("--ablation-data=elsewhere", profile=path)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*elsewhere' has no mmlu data: expected mmlu/test*"])


def test_files_that_the_profiles_own_tasks_would_not_read_are_refused(ablate):
    result = ablate("--ablation-data=mine")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-data: the tasks of profile tiny bring their own files*"])
