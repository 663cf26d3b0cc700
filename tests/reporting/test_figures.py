from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.reporting.figures import figure_names, figures, forest_name, shown
from harness.reporting.figures.canvas import (
    DOWN_COLOUR,
    LINE,
    OTHER_OWNER,
    OWNERS,
    PAGES,
    SMALL,
    TEXT,
    UP_COLOUR,
    WIDTH,
    contrast,
    ink,
)
from harness.reporting.figures.changes import experts, layer_means, most_changed
from harness.reporting.figures.layers import owners
from harness.reporting.figures.pareto import axes_of, front
from harness.reporting.figures.sweep import grid, sizes
from harness.reporting.report import render_report, write_report
from harness.reporting.results import CaseResult, ParameterChange, RunResult

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = """<b>$x_1$ & "it's" --> ]]> \\frac{"""


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def with_counts(run: RunResult) -> RunResult:
    """The run with two more numbers of layers, so that it has every figure."""
    like = run.cases[-1]
    drawings = {"b0-u0": "T|MMMMMMMMMM|TT", "b3-u2": "T|LLLTMMMTLL|TT"}
    more = [replace(like, family="count", case=name, drawing=d, identity=name) for name, d in drawings.items()]
    return replace(run, cases=(*run.cases, *more))


@pytest.fixture(scope="module")
def whole(run):
    return with_counts(run)


@pytest.fixture(scope="module")
def drawn(whole):
    return figures(whole)


# -- all of them -----------------------------------------------------------------------------------------------


def test_a_run_with_everything_has_every_figure(whole, drawn):
    families = ["forest-method", "forest-transition", "forest-count"]
    assert list(drawn) == ["layers", *families, "sweep", "changes", "pareto"]
    assert figure_names(whole) == tuple(drawn)


def test_equal_runs_give_equal_bytes(whole, drawn):
    assert figures(RunResult.from_dict(whole.to_dict())) == drawn


def test_figures_are_svg_of_text_no_wider_than_a_page_and_nothing_of_the_day_or_the_machine(drawn):
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        assert float(root.get("width").removesuffix("pt")) / 0.75 == pytest.approx(WIDTH)
        assert texts(svg)
        assert "dc:date" not in svg
        assert "<image" not in svg
        assert "sans-serif" in svg
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)]
        assert min(sizes) / 0.75 >= SMALL


def test_text_lies_inside_of_the_figure(drawn):
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        _, _, width, height = (float(number) for number in root.get("viewBox").split())
        places = [(float(node.get("x", 1)), float(node.get("y", 1))) for node in root.iter(f"{SVG}text")]
        assert all(-1 <= x <= width + 1 and 0 <= y <= height for x, y in places), name


def test_the_users_matplotlib_settings_are_neither_used_nor_changed(run, drawn):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        assert figures(run)["changes"] == drawn["changes"]
        assert dict(matplotlib.rcParams) == before


def test_without_data_there_is_no_figure(run):
    assert figures(RunResult("r", "tiny", (), "m/s", ())) == {}
    assert "changes" not in figure_names(replace(run, changes=()))
    assert "sweep" not in figure_names(run)
    assert "pareto" not in figure_names(replace(run, columns=("mbpp", "mgsm en", "belebele sw")))
    alone = replace(run, cases=tuple(case for case in run.cases if case.case_id == run.reference))
    assert figure_names(alone) == ("layers", "changes", "pareto")
    bare = replace(run, cases=tuple(replace(case, drawing="") for case in run.cases))
    assert "layers" not in figure_names(bare)
    for part in (alone, bare):
        assert tuple(figures(part)) == figure_names(part)


def test_hostile_names_are_shown_as_they_are(whole):
    bad = tuple(replace(case, case=f"{HOSTILE}{i}\x07\n", family=f"f{HOSTILE}") for i, case in enumerate(whole.cases))
    made = figures(replace(whole, cases=bad))
    for name, svg in made.items():
        assert re.fullmatch(r"[\w.-]+", name)
        ElementTree.fromstring(svg)
    written = texts(made["layers"])
    assert f"f{HOSTILE}" in written
    assert all(f"{HOSTILE}{i}" in {text.strip() for text in written} for i in range(len(bad)))


def test_a_name_without_end_is_cut_and_leaves_room(run):
    long = replace(run.cases[-1], case="x" * 400)
    made = figures(replace(run, cases=(*run.cases[:-1], long), columns=("mgsm sw",), changes=()))
    for name in ("layers", "forest-transition"):
        (cut,) = {text for text in texts(made[name]) if text.startswith("xxx")}
        assert cut.endswith("…")
        assert len(cut) < 60


def test_stems_of_different_families_differ():
    names = ["a b", "a-b", "a.b", "a/b", "ä", "../x"]
    assert len({forest_name(name) for name in names}) == len(names)
    assert not any("/" in forest_name(name) for name in names)


# -- seen by everyone ------------------------------------------------------------------------------------------


def test_text_and_lines_are_read_on_light_and_dark_pages():
    for colour in (TEXT, LINE, UP_COLOUR, DOWN_COLOUR):
        assert all(contrast(colour, page) >= 3 for page in PAGES), colour


def test_letters_are_read_in_their_cells():
    for colour in (*OWNERS.values(), OTHER_OWNER):
        assert contrast(ink(colour), colour) >= 4.5


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# -- one by one ------------------------------------------------------------------------------------------------


def test_the_layer_map_names_every_family_and_case_and_every_owner_by_letter(whole, drawn):
    written = texts(drawn["layers"])
    assert {*whole.families, *(case.case for case in whole.cases)} <= set(written)
    letters = "".join(case.drawing.replace("|", "") for case in whole.cases)
    for mark in "LMTB":
        assert written.count(mark) == letters.count(mark) + 1  # and in the legend


def test_a_further_expert_is_named_from_the_plans(run):
    plan = "\n".join(f"{slot}: math-long" for slot in ("embed", "layers.0", "norm", "head"))
    case = replace(run.cases[0], drawing="m|m|mm", plan_text=plan)
    assert owners([*run.cases, case])["m"] == "math-long"
    assert owners([replace(case, plan_text="")])["m"] == "a further expert"


def test_forests_mark_what_the_tables_mark(run, drawn):
    from harness.reporting.tables import significance

    svg = drawn["forest-transition"]
    assert {"removed", "math-instead", *run.columns} <= set(texts(svg))
    marked = len(significance(case for case in run.cases if case.family == "transition"))
    hollow = 2 * len(run.columns) - marked
    assert svg.count("<use") > 2 * len(run.columns)
    legend = 1
    assert (
        len(re.findall(r"<use[^>]*fill: none", svg)) + len(re.findall(r"fill-opacity: 0\b(?!\.)", svg))
        == hollow + legend
    )


def test_sizes_are_those_of_plain_swaps_with_the_references_transitions(run):
    reference = run.case(run.reference)  # T|LLTMMMMMTL|TT

    def size(drawing: str, **changes) -> tuple[int, int] | None:
        return sizes(replace(reference, drawing=drawing, **changes), reference)

    assert sizes(reference, reference) == (2, 1)
    assert size("T|LLLLTMTLLL|TT") == (4, 3)
    assert size("T|MMMMMMMMMM|TT") == (0, 0)
    assert size("T|LTMMMMMMMM|TT") == (1, 0)
    assert size("T|MMMMMMMMTL|TT") == (0, 1)
    for other in (
        "L|LLTMMMMMTL|TT", "T|LLTMMMMMTL|TL", "T|LLTTMMMMTL|TT", "T|LLMMMMMMML|TT", "T|LLLLLLLLLL|TT",
        "T|LLTmmmmmTL|TT", "T|LTMLMMMMTL|TT", "T|TMMMMMMMTL|TT", "T|**********|TT", "",
    ):  # fmt: skip
        assert size(other) is None, other


def test_a_reference_with_a_transition_and_no_block_below_it_has_its_place_in_the_sweep(run):
    def size(drawing: str) -> tuple[int, int] | None:
        return sizes(replace(reference, drawing=drawing), reference)

    reference = replace(run.cases[0], drawing="L|TMMMMMMMML|LL", plan_text="")
    assert sizes(reference, reference) == size("L|MMMMMMMMML|LL") == (0, 1)
    assert size("L|MMMMMMMMMM|LL") == (0, 0)
    assert size("L|LLTMMMMMLL|LL") == (2, 2)
    assert size("L|TTMMMMMTTL|LL") is size("L|TMMMMMMMMM|LL") is size("L|LMMMMMMMTL|LL") is None


def test_another_mix_in_the_transitions_is_not_in_the_sweep(run):
    def plan(mix: str) -> str:
        return "\n".join(f"x: {mix if mark == 'T' else mark}" for mark in "LLTMTLLL")

    case = replace(run.cases[0], drawing="L|LTMTL|LL", plan_text=plan("half"))
    assert sizes(replace(case, plan_text=plan("half")), case) == (1, 1)
    assert sizes(replace(case, plan_text=plan("third")), case) is None


def test_the_sweep_prints_points_and_keeps_places_that_were_not_run(whole, drawn):
    found = grid(whole)
    assert set(found) == {(0, 0), (2, 1), (3, 2)}
    written = texts(drawn["sweep"])
    for case in found.values():
        assert f"{100 * case.columns['mgsm sw'].value:.1f}" in written
    assert set(whole.columns) <= set(written)
    assert sum(text.strip() == "·" for text in written) == 6 * len(whole.columns)


def test_the_change_map_begins_with_math_and_language_and_says_where_they_moved(run, drawn):
    assert experts(run) == ("math", "language", "math-lora")
    assert experts(replace(run, changes=tuple(replace(c, expert=f"e{i}") for i, c in enumerate(run.changes)))) == (
        *(f"e{i}" for i in range(6)),
    )
    written = texts(drawn["changes"])
    for expert, layers in (("math", "most in layers 5, 4, 6"), ("language", "most in layers 0, 9, 1")):
        assert expert in written
        assert layers in written
    assert {"attention q", "MLP down", "input norm"} <= set(written)
    assert "most in attention q of layer 5" in written
    dashes = [text for text in written if text == "–"]
    assert len(dashes) == 2 * 3 * 10  # the norms moved nowhere, and a ratio to zero is no number
    assert "nan" not in drawn["changes"]


def test_layers_are_ranked_over_all_their_parameters():
    rows = [
        ParameterChange("math", "layers.0", "big", 90, 0.1, 0.1),
        ParameterChange("math", "layers.0", "small", 10, 1.0, 1.0),
        ParameterChange("math", "layers.1", "big", 100, 0.2, 0.2),
        ParameterChange("math", "layers.2", "big", 100, 0.0, 0.0),
        ParameterChange("math", "embed", "embed", 100, 9.0, 9.0),
    ]
    assert layer_means(rows) == pytest.approx({0: 0.19, 1: 0.2, 2: 0.0})
    assert most_changed(rows) == (1, 0)


def test_an_expert_that_did_not_move_has_a_map(run):
    still = tuple(replace(change, mean_absolute=0.0, relative=0.0) for change in run.changes)
    assert texts(figures(replace(run, changes=still))["changes"]).count("moved in no layer") == 6


def test_the_front_is_what_no_other_case_beats():
    places = {"a": (1.0, 3.0), "b": (2.0, 2.0), "c": (3.0, 1.0), "d": (1.0, 2.0), "e": (2.0, 2.0), "f": (0.0, 3.0)}
    assert front(places) == ("a", "b", "e", "c")
    for first, second in pairwise(front(places)):
        assert places[first][1] >= places[second][1]


def test_axes_come_from_the_columns(run):
    assert axes_of(run).target == "mgsm sw"
    assert axes_of(run).english == "mgsm en"
    assert axes_of(run).reading == "belebele sw"
    parts = replace(run, columns=("mgsm en", "mgsm sw", "mgsm sw new", "flores en-sw"))
    assert (axes_of(parts).target, axes_of(parts).reading) == ("mgsm sw", "")
    assert axes_of(replace(run, columns=("mgsm sw", "mbpp"))) is None
    assert axes_of(replace(run, columns=("mgsm", "mbpp"))) is None


def test_the_scatter_plots_name_what_is_not_beaten_and_the_reference(run, drawn):
    written = " ".join(texts(drawn["pareto"]))
    assert "method/soup (" in written
    assert "method/layer-swap, un-ablated" in written
    only = figures(replace(run, columns=("mgsm sw", "belebele sw")))["pareto"]
    assert "belebele sw (points)" in texts(only)
    assert "mgsm en (points)" not in texts(only)


# -- in the report ---------------------------------------------------------------------------------------------


def test_the_report_shows_every_figure_in_its_place_and_has_the_files(whole, tmp_path):
    text = write_report(whole, tmp_path / "one").read_text("utf-8")
    linked = re.findall(r"^!\[([^\[\]]+)\]\(figures/(.+)\.svg\)$", text, flags=re.M)
    assert [name for _, name in linked] == [
        "layers", "forest-method", "forest-transition", "forest-count", "sweep", "pareto", "changes",
    ]  # fmt: skip
    assert {path.stem for path in (tmp_path / "one" / "figures").iterdir()} == {name for _, name in linked}
    sections = [re.findall(r"figures/(.+)\.svg", part) for part in text.split("\n## ")]
    assert ["changes"] in sections
    assert ["pareto"] in sections


def test_a_sweep_without_its_family_stands_below_the_last(run):
    like = replace(run.cases[-1], case="bottom-only", drawing="T|LLTMMMMMMM|TT")
    text = render_report(replace(run, cases=(*run.cases, like)))
    assert text.index("figures/forest-transition.svg") < text.index("figures/sweep.svg")
    assert shown(run, "sweep") == ""


def test_neither_importing_nor_rendering_the_report_imports_matplotlib():
    code = (
        "import sys\nfrom tests.reporting.conftest import make_run\n"
        "from harness.reporting.report import render_report\n"
        "assert 'figures/layers.svg' in render_report(make_run())\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def test_a_case_without_a_column_leaves_its_place_empty(whole):
    def cut(case: CaseResult) -> CaseResult:
        return replace(case, columns={"mgsm sw": case.columns["mgsm sw"]})

    few = replace(whole, columns=("mgsm sw", "mgsm en"), changes=())
    part = replace(few, cases=(*few.cases[:-2], *(cut(case) for case in few.cases[-2:])))
    assert tuple(figures(part)) == figure_names(few)
