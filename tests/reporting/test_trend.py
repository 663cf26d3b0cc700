from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.cli import main
from harness.errors import LayerswapError
from harness.gating.baselines import save_baselines
from harness.reporting.report import write_report
from harness.reporting.trend import trend_figure, trend_points, trend_table
from tests.reporting.conftest import make_score


@pytest.fixture
def reports(run, tmp_path):
    """Three runs in the order of time, which is not that of their names; the third on another task version."""
    folder = tmp_path / "reports"
    for name, date, skill in (("b", "2026-01-01", 0.5), ("a", "2026-01-02", 0.7), ("c", "2026-01-03", 0.7)):
        write_report(replace(run, name=name, provenance={"date": date}), folder / name)
        score = make_score("mgsm sw", skill, 1)
        score = replace(score, fingerprint={"task": "2"}) if name == "c" else score
        save_baselines(folder / name / "scores.json", {"method/base": {"mgsm sw": score}}, {})
    (folder / "empty").mkdir()
    (folder / ".report.partial-x").mkdir()  # is being written, or was when its process was killed
    return folder


def test_runs_stand_in_the_order_of_time_and_are_compared_with_the_one_before(reports):
    points, skipped = trend_points(reports, "method/base", "mgsm sw")
    assert [point.run for point in points] == ["b", "a", "c"]
    assert len(skipped) == 1
    assert "empty" in skipped[0]
    lines = trend_table(points).splitlines()
    assert len(lines) == 5
    assert "<0.001" in lines[3]
    assert "not comparable: task" in lines[4]


def test_the_figure_is_the_same_bytes_each_time_and_holds_names_as_text(reports):
    points, _ = trend_points(reports, "method/base", "mgsm sw")
    figure = trend_figure(points, "a $case_ <b> & on x")
    assert figure == trend_figure(points, "a $case_ <b> & on x")
    texts = [element.text for element in ElementTree.fromstring(figure).iter() if element.tag.endswith("text")]
    assert "a $case_ <b> & on x" in texts


def test_the_command_writes_table_and_figure(reports, tmp_path, capsys):
    out = tmp_path / "trend.svg"
    assert main(["trend", str(reports), "--case", "method/base", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "2026-01-02" in printed.out
    assert "left out" in printed.err
    assert out.read_text("utf-8").startswith("<?xml")


def test_a_score_that_no_run_has_is_named(reports):
    with pytest.raises(LayerswapError, match="no run has method/nothing on 'mgsm sw'"):
        trend_points(reports, "method/nothing", "mgsm sw")


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["trend", str(tmp_path / "nowhere")]) == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path / 'nowhere'}: there is no such folder: expected one of reports\n"
    )
