from __future__ import annotations

import json
from dataclasses import replace

from harness.reporting.results import RunResult
from harness.reporting.sections import averages_section
from tests.reporting.test_findings import three


def averaged() -> RunResult:
    cases = [three("one", 0.4, 0.6, 0.2), three("two", 0.3, 0.1, 0.9)]
    return RunResult("r", "p", ("mgsm sw", "belebele sw", "mgsm en"), "count/one", tuple(cases))


def test_every_case_has_its_mean_and_its_best_column():
    run = replace(averaged(), averages={"mgsm en": ("mgsm sw", "belebele sw")})
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in averages_section(run).splitlines() if "/" in line
    ]
    assert rows == [[run.cases[0].case_id, "20.0", "60.0 (sw)"], [run.cases[1].case_id, "90.0", "30.0 (sw)"]]


def test_a_run_without_averages_has_no_such_section():
    assert averages_section(averaged()) == ""
    assert averages_section(replace(averaged(), averages={"mgsm average": ("mgsm sw",)})) == ""


def test_averages_survive_json():
    run = replace(averaged(), averages={"mgsm en": ("mgsm sw", "belebele sw")})
    assert RunResult.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    older = {key: value for key, value in run.to_dict().items() if key != "averages"}
    assert RunResult.from_dict(json.loads(json.dumps(older))).averages == {}
