from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.tables import FAMILY, values

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


def test_the_workers_of_a_cluster_give_the_report_of_one_process(ablate, pytester, tiny_profile, monkeypatch):
    assert ablate("--ablation-report=alone", "--ablation-no-cache", suite=FAMILY).ret == 0
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    given = (f"--ablation-profile={tiny_profile}", "--ablation-limit=8", "--ablation-no-cache")
    result = pytester.runpytest_subprocess(
        "-p", "harness.plugin", *given, "--ablation-executor=ray", "--ablation-ray-workers=1", "--ablation-report=ray"
    )
    assert result.ret == 0
    result.stdout.re_match_lines([r"ray: \d+ tasks for 1 workers", r"ray: (\d+)/\1 tasks, [\d,]+ responses/s, done in"])
    assert values(pytester.path / "ray" / "latest") == values(pytester.path / "alone" / "latest")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ablation-executor=slurm",), "--ablation-executor is 'slurm': expected local or ray"),
        (
            ("--ablation-executor=ray", "--ablation-ray-workers=0"),
            "--ablation-ray-workers is '0': expected a whole number, 1 or more",
        ),
        (
            ("--ablation-executor=ray", "--ablation-ray-address=http://x"),
            "--ablation-ray-address is 'http://x': expected auto, HOST:PORT or ray://HOST:PORT",
        ),
        (
            ("--ablation-ray-address=auto",),
            "--ablation-ray-address and --ablation-ray-workers need --ablation-executor ray",
        ),
    ],
)
def test_a_mistake_is_said_before_any_work(ablate, computed, options, said):
    result = ablate(*options)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert not computed


def test_ray_and_xdist_are_not_used_together(pytester, tiny_profile, monkeypatch):
    pytest.importorskip("xdist")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(test_suite_of_ablations=FAMILY)
    result = pytester.runpytest_subprocess(
        "-p", "harness.plugin", "-n2", "--ablation-executor=ray", f"--ablation-profile={tiny_profile}"
    )
    assert result.ret == 4
    assert "--ablation-executor ray has workers of its own: leave -n out" in result.stdout.str() + result.stderr.str()


def test_a_cluster_that_is_not_there_ends_the_run_with_one_sentence(ablate, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", None)  # it would try for minutes, and not only there: it is not come to
    result = ablate("--ablation-executor=ray", "--ablation-ray-address=127.0.0.1:1", suite=FAMILY)
    assert result.ret == 3
    found = result.stdout.str() + result.stderr.str()
    assert "ERROR: --ablation-ray-address 127.0.0.1:1: there is no such cluster" in found
    assert "Traceback" not in found
