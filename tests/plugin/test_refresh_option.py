from __future__ import annotations

import pytest

from tests.plugin.tables import FAMILY, values


@pytest.mark.parametrize("twin", [False, True], ids=["option", "ini"])
def test_earlier_answers_are_not_used_but_replaced(ablate, pytester, computed, twin):
    assert ablate("--ablation-cache=kept", "--ablation-report=first").ret == 0
    if twin:
        pytester.makeini("[pytest]\nablation_refresh = true\n")
    options = ["--ablation-cache=kept", *([] if twin else ["--ablation-refresh"])]
    assert ablate(*options, "--ablation-report=second").ret == 0
    assert computed == [2, 2]
    if twin:
        pytester.makeini("[pytest]\n")
    assert ablate("--ablation-cache=kept", "--ablation-report=third").ret == 0
    assert computed == [2, 2]
    tables = [values(pytester.path / name / "latest") for name in ("first", "second", "third")]
    assert tables[0] == tables[1] == tables[2]


def test_what_this_run_has_computed_is_used_within_it(ablate, computed):
    for _ in range(2):
        assert ablate("--ablation-cache=kept", "--ablation-refresh", suite=FAMILY).ret == 0
    assert computed == [4, 4]


def test_a_switch_takes_no_value(ablate):
    assert ablate("--ablation-refresh=yes").ret == 4
