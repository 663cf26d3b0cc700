from __future__ import annotations

import pytest

from harness.evaluation.responses import FILE_NAME


@pytest.mark.parametrize("twin", [False, True], ids=["option", "ini"])
def test_nothing_is_read_or_kept(ablate, pytester, computed, twin):
    assert ablate("--ablation-cache=kept").ret == 0
    path = pytester.path / "kept" / FILE_NAME
    before = path.read_bytes()
    if twin:
        pytester.makeini("[pytest]\nablation_no_cache = true\n")
    options = ["--ablation-cache=kept", *([] if twin else ["--ablation-no-cache"])]
    for _ in range(2):
        assert ablate(*options).ret == 0
    assert computed == [2, 2, 2]
    assert path.read_bytes() == before


def test_within_the_run_a_benchmark_is_computed_once(ablate, computed):
    from tests.plugin.tables import FAMILY

    assert ablate("--ablation-no-cache", suite=FAMILY).ret == 0
    assert computed == [4]


@pytest.mark.parametrize(
    ("options", "ini"),
    [
        (("--ablation-no-cache", "--ablation-refresh"), ""),
        (("--ablation-no-cache",), "ablation_refresh = true"),
        (("--ablation-refresh",), "ablation_no_cache = true"),
        ((), "ablation_no_cache = true\nablation_refresh = true"),
    ],
)
def test_keeping_nothing_and_replacing_it_are_not_both_done(ablate, pytester, options, ini):
    pytester.makeini(f"[pytest]\n{ini}\n")
    result = ablate(*options)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-no-cache keeps nothing and --ablation-refresh replaces it*"])


def test_a_switch_takes_no_value(ablate):
    assert ablate("--ablation-no-cache=yes").ret == 4
