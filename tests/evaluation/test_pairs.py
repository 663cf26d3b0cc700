from __future__ import annotations

import pytest

from harness.errors import LayerswapError
from harness.evaluation.grid import Grid
from harness.evaluation.pairs import PairGrid, average, parts
from harness.evaluation.responses import Store
from harness.evaluation.variants import Settings
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap

EXPERTS = """
[pairs.other]
language = "math"
math = "language"
"""
SW = '  { name = "belebele sw", task = "embedded_belebele_sw", metric = "acc" },'
BOTH = SW.replace(" },", ', average = "belebele both" },')
OTHER = BOTH.replace("belebele sw", "belebele sw 2").replace("average", 'pair = "other", average')


@pytest.fixture
def paired(tiny_profile):
    """The tiny experts, and a second pair in which they have exchanged their roles."""
    text = tiny_profile.read_text("utf-8")
    assert SW in text
    path = tiny_profile.parent / "paired.toml"
    path.write_text(text.replace(SW, f"{BOTH}\n{OTHER}") + EXPERTS, "utf-8")
    return load_profile(str(path))


def grid_of(profile, folder, limit=12):
    return PairGrid(Settings(profile, "cpu", "float32", limit), folder)


def plan_of(grid, recipe):
    return recipe.plan(grid.layers, grid.settings.profile.sizes)


def test_a_column_is_evaluated_with_its_own_pair(paired, tmp_path):
    grid = grid_of(paired, tmp_path / "pairs", limit=250)
    plain = Grid(Settings(paired, "cpu", "float32", 250), tmp_path / "plain")
    swap = plan_of(grid, LayerSwap())
    exchanged = swap.renamed({"language": "math", "math": "language"})
    scores = {score.column: score for score in grid.cell(swap, "belebele").scores}
    assert list(scores) == ["belebele sw", "belebele sw 2", "belebele sw-en", "belebele both"]
    expected = [{s.column: s for s in plain.cell(plan, "belebele").scores} for plan in (swap, exchanged)]
    assert [s.answer for s in scores["belebele sw"].samples] == [s.answer for s in expected[0]["belebele sw"].samples]
    assert [s.answer for s in scores["belebele sw 2"].samples] == [s.answer for s in expected[1]["belebele sw"].samples]
    answers = [[s.answer for s in scores[name].samples] for name in ("belebele sw", "belebele sw 2")]
    assert answers[0] != answers[1]
    assert scores["belebele sw-en"].values == expected[0]["belebele sw-en"].values
    assert {score.benchmark for score in scores.values()} == {"belebele"}


def test_a_document_that_several_columns_have_counts_once_in_their_average(paired, tmp_path):
    grid = grid_of(paired, tmp_path, limit=60)
    one, two, _, both = grid.cell(plan_of(grid, LayerSwap()), "belebele").scores
    assert one.documents == two.documents == both.documents
    assert both.values == tuple((a + b) / 2 for a, b in zip(one.values, two.values, strict=True))
    assert both.graded
    assert 0.5 in both.values
    a, b = one.samples[0].answer, two.samples[0].answer
    assert both.samples[0].answer == f"belebele sw: {a} | belebele sw 2: {b}"


def test_documents_that_one_column_has_keep_their_value(paired, tmp_path):
    grid = grid_of(paired, tmp_path)
    one, _, other, _ = grid.cell(plan_of(grid, LayerSwap()), "belebele").scores
    both = average("belebele average", [one, other])
    assert both.documents == one.documents + other.documents
    assert both.values == one.values + other.values
    assert not both.graded
    assert list(both.samples) == [*one.samples, *other.samples]


def test_a_second_run_reads_what_the_first_kept(paired, tmp_path):
    first = grid_of(paired, tmp_path / "first")
    plan = plan_of(first, LayerSwap())
    cell = first.cell(plan, "belebele")
    second = PairGrid(first.settings, tmp_path / "second", Store(tmp_path / "first" / "responses.sqlite"))
    assert second.cell(plan, "belebele").scores == cell.scores
    assert second.sweeps == 0
    assert second.editions["belebele"] == first.editions["belebele"]


def test_a_case_has_one_identity_on_every_benchmark_and_another_than_with_one_pair(paired, tmp_path):
    grid = grid_of(paired, tmp_path)
    plan = plan_of(grid, LayerSwap())
    assert grid.cell(plan, "belebele").identity == grid.cell(plan, "mmlu").identity != grid.identity(plan)


def test_a_profile_without_pairs_is_a_plain_grid(tiny_profile, tmp_path):
    grid = grid_of(load_profile(str(tiny_profile)), tmp_path)
    plan = plan_of(grid, Expert("math"))
    assert grid.cell(plan, "mmlu").identity == grid.identity(plan)
    assert [part.name for part in parts(grid.settings.profile, "mmlu")] == ["mmlu"]


def test_a_control_compares_every_pair(paired, tmp_path):
    grid = grid_of(paired, tmp_path)
    nothing = plan_of(grid, LayerSwap(bottom=0, top=0, transition=0, outer="math"))
    control = grid.control(nothing, plan_of(grid, Expert("math")), "belebele")
    assert control.tensors == ()
    assert control.documents == {
        "belebele sw": (0, 12),
        "belebele sw 2": (0, 12),
        "belebele sw-en": (0, 12),
        "belebele both": (0, 12),
    }


def test_expected_plans_of_all_pairs_take_one_sweep_a_part(paired, tmp_path):
    grid = grid_of(paired, tmp_path)
    plans = [plan_of(grid, recipe) for recipe in (LayerSwap(), Expert("math"), Expert("language"))]
    grid.expect("belebele", plans)
    for plan in plans:
        grid.cell(plan, "belebele")
    assert grid.sweeps == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('pair = "other"', 'pair = "more"', "names pair 'more': [pairs] has other"),
        ('language = "math"\nmath', 'language = "maths"\nmath', "pair 'other' names 'maths': expected experts"),
        ('language = "math"\nmath', 'language = "base"\nmath', "pair 'other' names 'base'"),
        ('average = "belebele both"', 'average = "both"', "average 'both' must begin with 'belebele'"),
        (
            'average = "belebele both"',
            'average = "belebele sw-en"',
            "and be the name of no column",
        ),
        ('metric = "acc", pair', 'metric = "acc_norm", pair', "columns with different metrics"),
    ],
)
def test_what_does_not_fit_is_named(paired, old, new, said):
    text = paired.file.read_text("utf-8")
    assert old in text
    paired.file.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(LayerswapError) as error:
        load_profile(str(paired.file))
    assert said in str(error.value)
