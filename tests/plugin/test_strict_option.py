from __future__ import annotations

SUITE = """
from harness.gating.floors import at_least
from harness.recipes import LayerSwap

def test_transition(ablation):
    ablation(LayerSwap(transition=0)).check("mmlu", at_least(FLOOR))
"""


def test_an_undecided_floor_fails_only_when_strict(ablate, latest, pytester):
    ablate(suite=SUITE.replace("FLOOR", "0.0"))
    value = latest().case("transition/test_transition").columns["mmlu"].value
    # The interval around a value reaches below it and above it.
    undecided = SUITE.replace("FLOOR", str(max(value, 0.01)))

    assert ablate(suite=undecided).ret == 0
    assert str(latest().case("transition/test_transition").columns["mmlu"].verdict) == "INCONCLUSIVE"
    result = ablate("--ablation-strict", suite=undecided)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["INCONCLUSIVE: transition/test_transition on mmlu (acc)"])
    pytester.makeini("[pytest]\nablation_strict = true\n")
    assert ablate(suite=undecided).ret == 1
