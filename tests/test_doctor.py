from __future__ import annotations

import shutil

import pytest

from harness.cli import main
from harness.costs import Work, duration, estimate
from harness.doctor import diagnose
from harness.errors import LayerswapError
from harness.evaluation import sandbox
from harness.profiles import load_profile, parse_experts
from tests.evaluation.published import write_all


def test_a_sound_profile_has_its_cost_told(tiny_profile, capsys):
    assert main(["doctor", str(tiny_profile), "--limit", "5", "--variants", "7"]) == 0
    text = capsys.readouterr().out
    assert "WRONG" not in text
    assert "ok     base, math, language: same architecture, depth, shapes, dtype and tokenizer" in text
    assert "ok     benchmark belebele: 10 documents" in text
    assert "cost   7 variants × 40 documents × 4 layers" in text
    assert text.endswith("nothing is wrong\n")


def test_placeholders_are_named_with_the_file_the_key_and_the_option(capsys, monkeypatch):
    monkeypatch.setattr("harness.doctor._on_hub", lambda place: f"{place}@0123")
    monkeypatch.setattr("harness.doctor._reachable", lambda *_: None)
    assert main(["doctor", "llama-3.1-8b-te"]) == 1
    text = capsys.readouterr().out
    assert "llama-3.1-8b-te.toml: experts.math is still a placeholder (<an expert tuned on English math>)" in text
    assert "or give --ablation-expert language=PLACE" in text
    assert text.endswith("this profile cannot be run as it is\n")


def test_everything_that_is_wrong_is_said_at_once(tiny_profile, tmp_path):
    profile = load_profile(str(tiny_profile))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    shutil.copytree(profile.expert_path("language"), tmp_path / "language")
    tokenizer = tmp_path / "language" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text("utf-8").replace("asha", "ashu"), encoding="utf-8")
    column = profile.benchmarks["mmlu"].columns[0].model_copy(update={"task": "no_such_task"})
    mmlu = profile.benchmarks["mmlu"].model_copy(update={"columns": (column,)})
    changed = profile.changed({"math": "pickled", "language": "language"}, at=tmp_path)
    found = diagnose(changed.model_copy(update={"benchmarks": {"mmlu": mmlu}}), "no-such-device", 5)
    assert not found.sound
    wrong = [line for line in found.lines if line.startswith("WRONG")]
    assert len(wrong) == 4, wrong
    assert "expert math: " in wrong[0]
    assert "pytorch_model.bin is a pickle" in wrong[0]
    assert "language differs from base in tokenizer" in wrong[1]
    assert "device 'no-such-device' cannot be used" in wrong[2]
    assert "no task named no_such_task" in wrong[3]


def test_published_files_are_read(tmp_path):
    profile = load_profile("template").changed({n: f"embedded:{n}" for n in ("base", "math", "language")})
    found = diagnose(profile.changed(data=str(write_all(tmp_path / "data"))), "cpu", 1)
    assert found.sound, found.text
    assert "ok     benchmark mgsm: 2 documents" in found.lines
    (tmp_path / "data" / "mbpp" / "mbpp.jsonl").unlink()
    found = diagnose(profile.changed(data=str(tmp_path / "data")), "cpu", 1)
    assert [line for line in found.lines if "WRONG" in line and "has no mbpp data" in line]


def test_what_confines_generated_programs_is_said(tiny_profile, monkeypatch):
    profile = load_profile(str(tiny_profile))
    mbpp = profile.model_copy(update={"benchmarks": {"mbpp": profile.benchmarks["mbpp"]}})
    monkeypatch.setattr(sandbox, "no_sandbox", lambda: "there is no bubblewrap")
    found = diagnose(mbpp, "cpu", 1)
    assert found.sound
    said = "skip   benchmark mbpp: there is no bubblewrap; --ablation-unsafe-code runs its programs unconfined"
    assert said in found.lines
    monkeypatch.undo()
    if not sandbox.no_sandbox():
        assert "ok     generated programs: bubblewrap " in diagnose(mbpp, "cpu", 1).text
    mmlu = profile.model_copy(update={"benchmarks": {"mmlu": profile.benchmarks["mmlu"]}})
    assert "generated programs" not in diagnose(mmlu, "cpu", 1).text


def test_a_run_is_priced_by_parameters_and_tokens():
    text = estimate(Work(10, 1000), 4, 10**6, 5, 1e9)
    assert text == (
        "5 variants × 10 documents × 4 layers, 1,000 tokens a variant: about 10 seconds if nothing were shared "
        "between variants"
    )
    assert "about" not in estimate(Work(10, 1000), 4, 10**6, 5, 0.0)
    assert [duration(s) for s in (89, 120, 7200)] == ["89 seconds", "2 minutes", "2 hours"]


def test_an_expert_option_has_a_name_and_a_place():
    with pytest.raises(LayerswapError, match="--ablation-expert is 'math': expected NAME=PLACE"):
        parse_experts(["math"])


def test_a_swap_that_does_not_fit_the_depth_is_said_before_the_run(tiny_profile):
    profile = load_profile(str(tiny_profile))
    mmlu = {"benchmarks": {"mmlu": profile.benchmarks["mmlu"]}}
    assert "ok     the default swap: T|LTML|TT" in diagnose(profile.model_copy(update=mmlu), "cpu", 1).text
    wide = profile.model_copy(update={**mmlu, "swap": profile.swap.model_copy(update={"bottom": 9})})
    found = diagnose(wide, "cpu", 1)
    assert not found.sound
    assert "WRONG  [swap]: the default sizes (9, 1, 1, 0) do not fit into a model of 4 layers" in found.text


def test_a_limit_that_keeps_nothing_is_said(tiny_profile):
    profile = load_profile(str(tiny_profile))
    found = diagnose(profile.model_copy(update={"benchmarks": {"mmlu": profile.benchmarks["mmlu"]}}), "cpu", 0)
    assert "WRONG  benchmark mmlu: the limit is 0: expected a whole number of documents, 1 or more" in found.text
