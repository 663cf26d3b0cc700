from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest

from harness.errors import LayerswapError
from harness.files import Taken
from harness.gating.floors import Verdict
from harness.gating.statistics import Comparison
from harness.reporting.contrasts import contrasts
from harness.reporting.report import read_results, render_report, verdict_line, write_report
from harness.reporting.results import CaseResult, ColumnResult, RunResult
from harness.reporting.tables import DOWN, UP, family_details, family_table, frame, markdown, significance

FILES = ["report.html", "report.md", "results.csv", "results.json"]


def comparison(difference: float, p: float, half: float = 0.02) -> Comparison:
    return Comparison(
        n=100,
        value=0.5 + difference,
        baseline=0.5,
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=p,
        method="",
        gained=1,
        lost=1,
    )


def small_run(cells: dict[str, tuple[float, float]], **changes) -> RunResult:
    """One family with one column: a case's name to its difference and p. The reference has 50.0."""
    reference = CaseResult("method", "swap", "", "", "L|LM|LL", "", "", {"mgsm sw": ColumnResult(0.5, 100, "m", None)})
    cases = [
        CaseResult(
            "count",
            name,
            "",
            "",
            "L|MM|LL",
            "",
            name.removesuffix("-again"),
            {"mgsm sw": ColumnResult(0.5 + d, 100, "m", Verdict.PASS, versus_method=comparison(d, p))},
        )
        for name, (d, p) in cells.items()
    ]
    return RunResult("r", "tiny", ("mgsm sw",), "method/swap", (reference, *cases), **changes)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]


# -- golden ----------------------------------------------------------------------------------------------------


def test_a_family_table_to_the_letter():
    run = small_run({"none": (0.0, 1.0), "all": (0.06, 0.0001), "bad": (-0.1, 0.0001), "luck": (0.03, 0.03)})
    table = rows(family_table(run, "count"))
    assert table[:-1] == [
        ["case", "mgsm sw<br>n=100"],
        ["-" * 33, "-" * 20],
        ["swap (reference)<br>`L\\|LM\\|LL`", "50.0"],
        ["none<br>`L\\|MM\\|LL`", "50.0<br>0.0"],
        ["all<br>`L\\|MM\\|LL`", "**56.0**\u00a0▲<br>+6.0"],
        ["bad<br>`L\\|MM\\|LL`", "40.0\u00a0▼<br>-10.0"],
        ["luck<br>`L\\|MM\\|LL`", "53.0<br>+3.0"],
    ]
    assert table[-1][0] == "*detectable drop*"
    sp = "\u00a0"
    assert rows(family_details(run, "count"))[3] == [
        *("all", "mgsm sw", "100", "56.0", f"+6.0 [+4.0,{sp}+8.0]", "1/1", "<0.001", "<0.001"),
    ]


def test_a_row_names_an_earlier_one_with_the_same_weights():
    table = rows(family_table(small_run({"one": (0.0, 1.0), "two": (0.0, 1.0), "one-again": (0.0, 1.0)}), "count"))
    assert [row[0].endswith("<br>= one") for row in table[2:-1]] == [False, False, False, True]


def test_the_report_has_its_parts_in_order(run):
    text = render_report(run)
    parts = [line for line in text.splitlines() if line.startswith("#")]
    assert parts == [
        "# Ablations of layer swapping: embedded",
        "## Floors that were not met",
        "## Families",
        "### method",
        "### transition",
        "## Does swapping pay?",
        "## What nothing beats",
        "## Where to look first",
        "## How far the experts moved",
        "## Cost",
        "## Cases",
        "## Provenance",
        "## How to read the numbers",
    ]
    first = text.splitlines()[2]
    assert re.fullmatch(r"\*\*8 passed, 8 failed, 32 new: 48 floors in 6 cases\*\*", first), first
    assert "base `000000000000`, math `111111111111`" in text
    assert "torch 2.13, lm-eval 0.4.13" in text
    assert "6 cases, 8 columns" in text
    assert "`L` language expert, `M` math expert, `T` weighted average" in text
    assert "0" * 64 in text  # in full, below the tables
    assert not re.search(r"\bnan\b", text.lower())


def test_rendering_is_pure_and_every_table_is_rectangular(run):
    text = render_report(run)
    assert text == render_report(RunResult.from_dict(json.loads(json.dumps(run.to_dict()))))
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(row) for row in rows(block)}) == 1


def test_the_reference_is_the_first_row_of_every_family(run):
    for family in run.families:
        table = rows(family_table(run, family))
        assert table[2][0].startswith("layer-swap (reference)")
        assert "<br>" not in " ".join(table[2][1:])
        assert sum("(reference)" in row[0] for row in table) == 1


def test_an_identical_case_shows_no_difference_and_no_arrow(run):
    removed = next(row for row in rows(family_table(run, "transition")) if row[0].startswith("removed"))
    assert all(cell.endswith("<br>0.0") for cell in removed[1:])
    assert not any(arrow in cell for cell in removed for arrow in (UP, DOWN))


def test_failed_floors_are_words_in_the_cell_and_listed(run):
    text = render_report(run)
    assert re.search(r"\| FAIL +\| transition/math-instead +\| mgsm sw ", text)
    assert "▼ FAIL<br>" in family_table(run, "transition")


# -- rules -----------------------------------------------------------------------------------------------------


def test_bold_is_the_best_of_the_column_unless_all_are_equal():
    assert "**" not in family_table(small_run({"a": (0.0, 1.0)}), "count")
    both = family_table(small_run({"a": (0.1, 1.0), "b": (0.1, 1.0)}), "count")
    assert both.count("**60.0**") == 2
    # Equal as printed is not equal.
    close = family_table(small_run({"a": (0.1, 1.0), "b": (0.10001, 1.0)}), "count")
    assert close.count("**60.0**") == 1


def test_arrows_are_adjusted_over_the_table():
    alone = small_run({"a": (0.1, 0.03)})
    assert significance(alone.cases) == {("count/a", "mgsm sw"): UP}
    many = small_run({"a": (0.1, 0.03), "b": (0.1, 0.5)})
    assert significance(many.cases) == {}
    assert significance(small_run({"a": (-0.1, 0.001)}).cases) == {("count/a", "mgsm sw"): DOWN}


def test_a_column_that_a_case_lacks_is_an_empty_cell(run):
    cut = dataclasses.replace(run.cases[-1], columns={"mmlu": run.cases[-1].columns["mmlu"]})
    table = rows(family_table(dataclasses.replace(run, cases=(*run.cases[:-1], cut)), "transition"))
    assert table[-2][1:-1] == [""] * 7
    assert table[-2][-1]


def test_without_the_reference_the_tables_still_stand(run):
    part = dataclasses.replace(run, cases=run.cases[-2:])
    assert "(reference)" not in render_report(part)
    assert "Does swapping pay?" not in render_report(part)


def test_an_empty_run_renders():
    assert "0 passed, 0 failed: 0 floors in 0 cases" in render_report(RunResult("r", "tiny", (), "m/s", ()))


def test_a_result_held_to_no_floor_is_not_counted():
    assert verdict_line(small_run({"a": (0.0, 1.0)})) == "1 passed, 0 failed: 1 floor in 1 case"


def test_pipes_and_newlines_in_cells_cannot_break_a_table():
    assert rows(markdown([["a|b", "c\nd"]], ["x", "y"]))[2] == ["a\\|b", "c d"]


def test_the_tidy_frame_has_a_row_per_case_and_column(run):
    table = frame(run)
    assert len(table) == 6 * 8
    assert table["difference"].isna().sum() == 8
    assert table["value"].between(0, 1).all()


# -- does swapping pay? ----------------------------------------------------------------------------------------


def test_contrasts_are_seen_from_the_swap(run):
    found = {(c.column, c.label): c for c in contrasts(run)}
    assert {column for column, _ in found} == {"mgsm sw", "mgsm en"}
    base, soup = found["mgsm sw", "base"], found["mgsm sw", "soup"]
    reference = run.case(run.reference).columns["mgsm sw"].value
    assert base.comparison.value == reference
    assert base.comparison.difference == pytest.approx(reference - run.case("method/base").columns["mgsm sw"].value)
    assert base.comparison.low <= base.comparison.difference <= base.comparison.high
    assert base.finding == "above"
    assert soup.finding == "below"
    assert found["mgsm sw", "math expert"].finding == "not told apart"
    text = render_report(run)
    assert "significantly above base; significantly below soup; not told apart from math expert." in text
    assert re.search(r"\| mgsm sw +\| base +\| 500 +\| ", text)
    assert "<0.001" in text


# -- files -----------------------------------------------------------------------------------------------------


def test_results_survive_json(run):
    data = run.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert RunResult.from_dict(data) == run


def test_write_and_read_back(run, tmp_path):
    report = write_report(run, tmp_path / "reports" / "one")
    assert report.read_text(encoding="utf-8") == render_report(run)
    assert read_results(tmp_path / "reports" / "latest") == run
    write_report(run, tmp_path / "reports" / "two")
    latest = tmp_path / "reports" / "latest"
    assert latest.is_symlink()
    assert str(latest.readlink()) == "two"
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == ["latest", "one", "two"]
    assert sorted(p.name for p in latest.iterdir()) == ["figures", *FILES]


def test_latest_is_a_file_where_links_cannot_be_made(tmp_path, monkeypatch):
    run = RunResult("r", "tiny", (), "m/s", ())  # nothing to draw
    write_report(run, tmp_path / "one")

    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    write_report(run, tmp_path / "two")
    assert (tmp_path / "latest").read_text() == "two\n"
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == FILES
    monkeypatch.undo()
    write_report(run, tmp_path / "one")  # an old one, written anew
    assert (tmp_path / "latest").read_text() == "two\n"
    write_report(run, tmp_path / "three")
    assert (tmp_path / "latest").is_symlink()


def test_a_folder_called_latest_is_not_replaced(run, tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(LayerswapError, match="move it away"):
        write_report(run, tmp_path / "one")


def test_unreadable_results_are_named(run, tmp_path):
    with pytest.raises(LayerswapError, match=r"results\.json: cannot be read"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 7}')
    with pytest.raises(LayerswapError, match=r"results\.json: results in schema 7: this version reads 2"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 2}')
    with pytest.raises(LayerswapError, match="damaged results"):
        read_results(tmp_path)


def test_a_number_that_is_not_finite_is_refused(run, tmp_path):
    bad = dataclasses.replace(run, seconds={"merge": float("nan")})
    with pytest.raises(LayerswapError, match="cannot be written"):
        write_report(bad, tmp_path / "one")


def test_of_two_reports_in_one_place_the_later_is_refused_and_the_first_whole(run, tmp_path):
    with pytest.raises(Taken, match=r"cannot write .*one"):
        write_report(run, tmp_path / "one", also=lambda _: write_report(run, tmp_path / "one") and None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one"]
    assert read_results(tmp_path / "one") == run


def test_a_killed_report_is_no_report_and_the_next_one_removes_it(run, tmp_path):
    (tmp_path / ".report.partial-killed").mkdir()
    os.utime(tmp_path / ".report.partial-killed", (0, 0))
    write_report(run, tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one"]
