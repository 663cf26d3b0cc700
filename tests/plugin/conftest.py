"""Runs small suites of ablations in a session of their own, mostly inside this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.reporting.report import read_results
from harness.reporting.results import RunResult

SUITE = """
import pytest
from harness.recipes import LayerSwap
from harness.suite import benchmarks, case

@benchmarks("mmlu")
@pytest.mark.parametrize("recipe", [case("removed", LayerSwap(transition=0))])
def test_transition(ablation, recipe, benchmark_name):
    ablation(recipe).check(benchmark_name)
"""
OPTIONS = ("-p", "harness.plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
Ablate = Callable[..., pytest.RunResult]


@pytest.fixture(scope="session")
def everything_imported(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs inside this process forget what they imported, and neither torch nor matplotlib can be imported twice."""
    from harness import runlog, suite  # noqa: F401
    from harness.evaluation.grid import Grid, Settings
    from harness.profiles import load_profile
    from harness.recipes import LayerSwap
    from harness.reporting.figures.canvas import svg

    svg(10, lambda figure: None)
    profile = load_profile(str(tiny_profile))
    grid = Grid(Settings(profile, "cpu", "float32", limit=1, unsafe_code=True), tmp_path_factory.mktemp("grid"))
    for benchmark in profile.benchmarks:
        grid.cell(LayerSwap().plan(4, profile.sizes), benchmark)


@pytest.fixture
def ablate(
    pytester: pytest.Pytester, tiny_profile: Path, everything_imported: None, monkeypatch: pytest.MonkeyPatch
) -> Ablate:
    """``ablate(*options, suite=SUITE)``: runs the suite on the tiny profile, eight documents a task."""
    # These tests say themselves where they run.
    for name in ("PYTEST_XDIST_WORKER_COUNT", "CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def run(
        *options: str, suite: str = SUITE, profile: Path | None = tiny_profile, limit: str | None = "8"
    ) -> pytest.RunResult:
        pytester.makepyfile(test_suite_of_ablations=suite)
        given = [f"--ablation-profile={profile}"] if profile else []
        given += [f"--ablation-limit={limit}"] if limit else []
        return pytester.runpytest_inprocess(*OPTIONS, *given, *options, no_reraise_ctrlc=True)

    return run


@pytest.fixture
def latest(pytester: pytest.Pytester) -> Callable[[], RunResult]:
    """The results of the newest report below the session's folder."""
    return lambda: read_results(pytester.path / "reports" / "latest")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many variants every sweep has computed."""
    from harness.evaluation.sweep import Sweeper

    found: list[int] = []
    scores = Sweeper.scores

    def noting(self: Any, columns: Any, variants: Any, *rest: Any) -> None:
        found.append(len(variants))
        scores(self, columns, variants, *rest)

    monkeypatch.setattr(Sweeper, "scores", noting)
    return found
