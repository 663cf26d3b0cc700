from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest

from harness.profiles import load_profile
from harness.recipes import LayerSwap
from harness.suite import BENCHMARKS, ablations, case

ROOT = Path(__file__).parents[1]
FAMILIES = {
    "adapter", "control", "count", "divergence", "method", "outer", "placement", "revert", "side", "transition"
}  # fmt: skip


@pytest.fixture(scope="module")
def collected() -> list[pytest.Item]:
    """The items of the whole suite, collected in a session of their own."""

    class Collector:
        items: list[pytest.Item]

        def pytest_collection_finish(self, session: pytest.Session) -> None:
            self.items = list(session.items)

    collector = Collector()
    options = ["--collect-only", "-qq", "--noconftest", "-p", "harness.plugin"]
    assert pytest.main([*options, f"--rootdir={ROOT}", str(ROOT / "ablations")], [collector]) == 0
    return collector.items


def test_the_suite_has_the_families_cases_and_benchmarks_that_it_promises(collected):
    families = {item.originalname.removeprefix("test_") for item in collected}
    cases = {(item.originalname, item.callspec.id.rpartition("-")[0]) for item in collected}
    assert families == FAMILIES
    assert len(cases) >= 35
    assert {item.callspec.params["benchmark_name"] for item in collected} == set(BENCHMARKS)
    assert len(collected) == len(cases) * len(BENCHMARKS)


def test_a_family_is_a_file_and_a_keyword(collected):
    for item in collected:
        assert item.path.name == f"{item.originalname}.py"
        assert item.get_closest_marker("ablation")


def test_ids_are_the_case_then_the_benchmark_and_all_different(collected):
    ids = [item.name for item in collected]
    assert "test_transition[removed-mgsm]" in ids
    assert "test_control[swap-nothing-mmlu]" in ids
    assert len(set(ids)) == len(ids)
    assert not [name for name in ids if name.split("[")[1] != name.split("[")[1].lower()]


def test_the_benchmarks_of_a_case_come_one_after_the_other(collected):
    cases = [(item.originalname, item.callspec.id.rpartition("-")[0]) for item in collected]
    changes = sum(a != b for a, b in pairwise(cases))
    assert changes == len(set(cases)) - 1


def test_the_cases_that_stand_for_the_method_and_its_rivals_have_the_names_of_the_report(collected):
    methods = {item.callspec.id.rpartition("-")[0] for item in collected if item.originalname == "test_method"}
    assert {"layer-swap", "base", "math", "language", "soup"} <= methods


@pytest.mark.parametrize("layers", [10, 16, 30, 32, 80])
def test_every_case_gives_a_plan_for_models_of_any_usual_depth(collected, layers):
    profile = load_profile("embedded")
    for item in collected:
        plan = item.callspec.params["recipe"].plan(layers, profile.sizes)
        assert plan.layers == layers
        assert set(plan.experts) <= set(profile.experts), item.name


def test_two_cases_of_a_family_are_the_same_model_only_where_that_is_meant(collected):
    sizes = load_profile("embedded").sizes
    digests: dict[str, dict[str, str]] = {}
    for item in collected:
        digest = item.callspec.params["recipe"].plan(10, sizes).digest
        digests.setdefault(item.originalname, {})[item.callspec.id.rpartition("-")[0]] = digest
    twins = {(a, b) for cases in digests.values() for a, b in combinations(cases, 2) if cases[a] == cases[b]}
    # A control; and without a transition the middle, which is math's, takes the zone.
    assert twins == {("swap-nothing", "equal-experts"), ("removed", "math-instead")}


def test_the_decorator_puts_the_case_before_the_benchmark(pytester):
    pytester.makepyfile(
        """
        from harness.recipes import LayerSwap
        from harness.suite import ablations, case

        @ablations(case("removed", LayerSwap(transition=0)), case("wide", LayerSwap(transition=2)))
        def test_transition(recipe, benchmark_name):
            assert recipe.transition in (0, 2)
        """
    )
    items, _ = pytester.inline_genitems()
    assert [item.name for item in items][:2] == ["test_transition[removed-mgsm]", "test_transition[removed-belebele]"]
    assert len(items) == 10


def test_a_case_is_data():
    parameter = case("removed", LayerSwap(transition=0))
    assert (parameter.id, parameter.values) == ("removed", (LayerSwap(transition=0),))
    assert callable(ablations(parameter))
