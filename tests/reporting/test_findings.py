from __future__ import annotations

from dataclasses import replace

from harness.reporting.findings import bought, exploratory_table, movers, pareto, pareto_table
from harness.reporting.results import CaseResult, ColumnResult, ParameterChange, RunResult
from tests.reporting.test_report_rendering import small_run


def test_a_family_says_what_it_costs_and_what_it_gains():
    run = small_run({"bad": (-0.1, 0.0001), "worse": (-0.2, 0.0001), "good": (0.06, 0.0001), "luck": (0.03, 0.03)})
    assert bought(run, "count") == (
        "Ablated in 4 ways, `count` costs up to 20.0 on mgsm sw (`worse`); gains up to 6.0 on mgsm sw (`good`)."
    )


def test_noise_buys_nothing():
    assert bought(small_run({"luck": (0.03, 0.04), "none": (0.0, 1.0)}), "count") == (
        "Ablated in 2 ways, `count` costs nothing that is significant; gains nothing that is significant."
    )


def test_columns_without_a_significant_difference_are_named(run):
    text = bought(run, "transition")
    assert text.startswith("Ablated in 2 ways, `transition` costs up to ")
    assert "(`math-instead`)" in text


def three(name: str, sw: float, reading: float, en: float, identity: str = "") -> CaseResult:
    values = {"mgsm sw": sw, "belebele sw": reading, "mgsm en": en}
    columns = {column: ColumnResult(value, 100, "m", None) for column, value in values.items()}
    return CaseResult("method", name, "", "", "L|M|L", "", identity or name, columns)


def run_of(*cases: CaseResult) -> RunResult:
    return RunResult("r", "tiny", ("mgsm sw", "belebele sw", "mgsm en"), "method/a", cases)


def test_the_pareto_set_is_what_nothing_beats():
    cases = (
        three("a", 0.5, 0.5, 0.5),
        three("beaten", 0.5, 0.4, 0.5),
        three("other", 0.6, 0.1, 0.1),
        three("twin", 0.6, 0.1, 0.1, identity="other"),
        three("tie", 0.5, 0.5, 0.5),
    )
    assert [case.case for case in pareto(run_of(*cases))] == ["other", "a", "tie"]
    assert pareto_table(run_of(*cases)).splitlines()[2].split("|")[1].strip() == "method/other"
    assert pareto_table(replace(run_of(*cases), columns=("mgsm sw",))) == ""


def test_q_values_are_over_the_whole_run_and_equal_weights_count_once():
    run = small_run({"a": (0.1, 0.001), "b": (0.1, 0.04), "c": (0.0, 1.0), "a-again": (0.1, 0.001)})
    table, found, total = exploratory_table(run)
    assert (found, total) == (1, 3)
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    assert [(row[1], row[-2]) for row in rows] == [("count/a", "0.003"), ("count/b", "0.060"), ("count/c", "1.000")]


def test_experts_say_which_layers_they_changed_most():
    changes = [
        ParameterChange("math", f"layers.{i}", kind, n, 0.1, relative)
        for i, relative in enumerate((0.1, 0.4, 0.2, 0.3))
        for kind, n in (("mlp.up_proj", 30), ("norm", 0))
    ]
    run = replace(small_run({}), changes=(*changes, ParameterChange("math", "embed", "embed", 9, 1.0, 9.0)))
    assert movers(run) == ["`math` changed layers 1 (40.0 %), 3 (30.0 %), 2 (20.0 %) most."]


def test_corpus_metrics_stand_under_what_swapping_pays(run):
    from harness.gating.corpus import CorpusComparison
    from harness.reporting.results import CorpusContrast
    from harness.reporting.sections import does_swapping_pay_section

    compared = CorpusComparison("corpus_bleu", 61.25, 50.0, 11.25, 9.0, 13.5, 0.001)
    text = does_swapping_pay_section(replace(run, corpus=(CorpusContrast("flores en-sw", "soup", compared),)))
    (row,) = [line for line in text.splitlines() if "corpus_bleu" in line]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["flores en-sw", "soup", "corpus_bleu", "61.2", "50.0", "+11.2 [+9.0,\u00a0+13.5]", "0.001"]
    assert "corpus_bleu" not in does_swapping_pay_section(run)
