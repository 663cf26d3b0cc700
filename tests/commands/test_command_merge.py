from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from harness.cli import main
from harness.experts import load_expert
from harness.merging.assemble import Assembler
from harness.recipes import LayerSwap, Ties


def test_two_folders_without_a_profile_or_a_base(folders, tmp_path, capsys):
    pairs = [option for name in ("math", "language") for option in ("--expert", f"{name}={folders[name]}")]
    out = tmp_path / "swapped"
    assert main(["merge", "layer-swap(bottom=2, top=1)", *pairs, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: layer swap, bottom 2, top 1, T|LLTMTL|TT\n"
    experts = {name: load_expert(name, folders[name]) for name in ("math", "language")}
    expected = Assembler(experts).build(LayerSwap(2, 1).plan(6)).state_dict()
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(written[name], expected[name]) for name in written)
    assert "LayerSwap(bottom=2, top=1" in json.loads((out / "recipe.json").read_text("utf-8"))["recipe"]


def test_a_base_may_be_given_by_its_own_option(folders, tmp_path):
    arguments = ["--base", str(folders["base"])]
    arguments += [option for name in ("math", "language") for option in ("--expert", f"{name}={folders[name]}")]
    assert main(["merge", "ties(0.2)", *arguments, "--out", str(tmp_path / "ties")]) == 0
    experts = {name: load_expert(name, path) for name, path in folders.items()}
    expected = Assembler(experts).build(Ties(0.2).plan(6)).state_dict()
    written = load_file(tmp_path / "ties" / "model.safetensors")
    assert all(torch.equal(written[name], expected[name]) for name in written)


def test_a_profile_fills_what_a_recipe_leaves_out(tmp_path, capsys):
    assert main(["merge", "layer-swap", "--profile", "embedded", "--out", str(tmp_path / "swap")]) == 0
    assert "L|TMMMMMMMML|LL" in capsys.readouterr().out


def test_a_profile_may_have_an_expert_replaced(tiny_profile, tmp_path):
    other = tiny_profile.parent / "language"
    arguments = ["--profile", str(tiny_profile), "--expert", f"math={other}", "--out", str(tmp_path / "same")]
    assert main(["merge", "layer-swap", *arguments]) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "same", other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_file_names_recipe_experts_and_dtype(folders, tmp_path):
    text = f"recipe = 'soup'\ndtype = 'bfloat16'\n[experts]\nmath = '{folders['math']}'\nlanguage = 'lang'\n"
    (tmp_path / "recipe.toml").write_text(text, "utf-8")
    (tmp_path / "lang").symlink_to(folders["language"])
    assert main(["merge", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")]) == 0
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    arguments = ["--dtype", "float32", "--out", str(tmp_path / "wide")]
    assert main(["merge", str(tmp_path / "recipe.toml"), *arguments]) == 0
    assert {t.dtype for t in load_file(tmp_path / "wide" / "model.safetensors").values()} == {torch.float32}


def test_an_adapter_is_merged_into_its_base_first(folders, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(load_expert("base", folders["base"]).model, config).save_pretrained(tmp_path / "lora")
    given = ["--base", str(folders["base"]), "--expert", f"math={tmp_path / 'lora'}"]
    given += ["--expert", f"language={folders['language']}"]
    assert main(["merge", "layer-swap(bottom=1, top=1)", *given, "--out", str(tmp_path / "out")]) == 0
    experts = {
        "math": load_expert("math", tmp_path / "lora", base_path=folders["base"]),
        "language": load_expert("language", folders["language"]),
    }
    expected = Assembler(experts).build(LayerSwap(1, 1).plan(6)).state_dict()
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(written[name], expected[name]) for name in written)
    assert not torch.equal(
        written["model.layers.2.mlp.up_proj.weight"], _base(folders)["model.layers.2.mlp.up_proj.weight"]
    )


def _base(folders):
    return load_file(folders["base"] / "model.safetensors")


def test_a_folder_that_exists_is_left_alone(folders, tmp_path, capsys):
    pairs = [option for name in ("math", "language") for option in ("--expert", f"{name}={folders[name]}")]
    assert main(["merge", "layer-swap(bottom=1)", *pairs, "--out", str(tmp_path)]) == 2
    assert "choose another output folder" in capsys.readouterr().err
