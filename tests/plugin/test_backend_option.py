from __future__ import annotations

import pytest

from tests.plugin.tables import FAMILY, values


def test_hflm_and_the_shared_engine_give_one_report_and_share_no_result(ablate, pytester, computed):
    assert ablate("--ablation-cache=kept", "--ablation-report=shared", suite=FAMILY).ret == 0
    assert computed
    assert ablate("--ablation-cache=kept", "--ablation-report=hf", "--ablation-backend=hf", suite=FAMILY).ret == 0
    shared, hf = (values(pytester.path / name / "latest") for name in ("shared", "hf"))
    assert shared == hf
    (folder,) = (path for path in (pytester.path / "hf").iterdir() if path.name != "latest")
    assert "layer calls" not in (folder / "report.md").read_text("utf-8")  # it shared none


def test_the_ini_twin_and_the_command_that_reproduces_a_failure(ablate, pytester):
    pytester.makeini("[pytest]\nablation_backend = other\n")
    result = ablate()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-backend is 'other': expected shared, hf, vllm"])
    suite = FAMILY.replace(".check(benchmark_name)", ".check(benchmark_name, at_least(1.0))")
    suite = suite.replace("import pytest\n", "import pytest\nfrom harness.gating.floors import at_least\n", 1)
    result = ablate("--ablation-backend=hf", "-k", "math", suite=suite)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*reproduce * --ablation-backend hf*"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ablation-backend=vllm",), "--ablation-backend vllm: vllm is not installed here; pip install vllm"),
        (
            ("--ablation-backend=hf", "--ablation-backend-args=a=1"),
            "--ablation-backend-args are for vllm, and --ablation-backend is hf",
        ),
    ],
)
def test_what_cannot_be_had_is_said_before_any_work(ablate, computed, options, said):
    result = ablate(*options)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert not computed
