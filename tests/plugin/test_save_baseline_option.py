from __future__ import annotations

from harness.gating.baselines import load_baselines

FAILING = """
from harness.gating.floors import at_least
from harness.recipes import LayerSwap

def test_transition(ablation):
    ablation(LayerSwap(transition=0)).check("mmlu", at_least(0.99))
"""


def test_accepted_results_hold_every_document_and_the_next_run_passes_on_them(ablate, latest, pytester):
    result = ablate("--ablation-save-baseline=accepted", limit=None)
    path = pytester.path / "ablations" / "baselines" / "accepted.json"
    result.stdout.fnmatch_lines([f"accepted: 1 cases in {path}"])
    accepted = load_baselines(path)
    assert accepted.get("transition/removed", "mmlu").n == 340
    assert accepted.provenance["transition/removed"]["mmlu"]["device"] == "cpu"
    assert str(latest().case("transition/removed").columns["mmlu"].verdict) == "NEW"

    text = path.read_text(encoding="utf-8")
    result = ablate("--ablation-baseline=accepted", limit=None)
    assert result.ret == 0
    column = latest().case("transition/removed").columns["mmlu"]
    assert str(column.verdict) == "PASS"
    assert column.versus_accepted.identical
    assert path.read_text(encoding="utf-8") == text


def test_a_path_and_the_ini_twin_say_where_and_recording_holds_to_no_floor(ablate, pytester):
    pytester.makeini("[pytest]\nablation_save_baseline = here/mine.json\n")
    assert ablate(suite=FAILING, limit=None).ret == 0
    assert load_baselines(pytester.path / "here" / "mine.json").scores
    assert not (pytester.path / "ablations").exists()


def test_results_on_a_part_of_the_documents_are_not_accepted(ablate, pytester):
    result = ablate("--ablation-save-baseline=accepted")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-save-baseline with --ablation-limit *"])
    assert not (pytester.path / "ablations").exists()
