from __future__ import annotations

import pytest


def test_the_limit_is_documents_a_task(ablate, latest):
    assert ablate(limit="5").ret == 0
    run = latest()
    assert {result.n for case in run.cases for result in case.columns.values()} == {5}
    assert run.header["limit"] == "5"


def test_the_ini_twin_limits_too_and_the_option_wins(ablate, latest, pytester):
    pytester.makeini("[pytest]\nablation_limit = 3\n")
    ablate(limit=None)
    assert latest().cases[0].columns["mmlu"].n == 3
    ablate("--ablation-report=other", limit="4")
    (report,) = (pytester.path / "other").glob("tiny-*/report.md")
    assert "4" in report.read_text("utf-8").partition("limit")[2].partition("\n")[0]


@pytest.mark.parametrize("limit", ["0", "-1", "2.5", "all"])
def test_a_limit_that_is_no_count_is_refused(ablate, limit):
    result = ablate(limit=limit)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: --ablation-limit is '{limit}': expected a whole number*"])
