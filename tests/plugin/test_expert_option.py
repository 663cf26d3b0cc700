from __future__ import annotations

import shutil

from harness.profiles import load_profile


def test_another_place_of_an_expert_is_used(ablate, latest, pytester, tiny_profile):
    language = load_profile(str(tiny_profile)).expert_path("language")
    shutil.copytree(language, pytester.path / "mine")
    assert ablate("--ablation-expert=math=mine").ret == 0
    experts = latest().experts
    assert experts["math"] == experts["language"]
    ablate()
    assert latest().experts["math"] != latest().experts["language"]


def test_the_ini_twin_has_a_line_for_each(ablate, latest, pytester, tiny_profile):
    language = load_profile(str(tiny_profile)).expert_path("language")
    pytester.makeini(f"[pytest]\nablation_expert =\n    math={language}\n    base={language}\n")
    assert ablate().ret == 0
    assert len(set(latest().experts.values())) == 1


def test_anything_else_than_a_name_and_a_place_is_refused(ablate):
    result = ablate("--ablation-expert=math")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --ablation-expert is 'math': expected NAME=PLACE*"])


def test_a_placeholder_fails_the_item_with_what_to_do(ablate):
    result = ablate("--ablation-expert=math=<mine>")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*experts.math is still a placeholder (<mine>)*--ablation-expert math=PLACE*"])


def test_what_is_wrong_with_a_place_is_said_once(ablate):
    result = ablate("--ablation-expert=math=/nowhere")
    result.assert_outcomes(failed=1)
    said = [line for line in result.outlines if "there is no folder '/nowhere'" in line]
    assert len(said) == 1, said
    assert "another exception" not in result.stdout.str()


def test_an_expert_that_the_profile_does_not_name_is_shown(ablate, tiny_profile):
    place = load_profile(str(tiny_profile)).expert_path("math")
    result = ablate(f"--ablation-expert=maths={place}")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ablations: profile tiny, beside its experts maths, cpu,*"])
