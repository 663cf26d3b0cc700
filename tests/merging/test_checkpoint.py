from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import LayerswapError
from harness.experts import as_expert, load_expert
from harness.merging.assemble import Assembler
from harness.merging.checkpoint import write_checkpoint
from harness.plan import Plan, copy
from harness.recipes import DareTies, Expert, LayerSwap, Slerp, Soup, TaskArithmetic, Ties
from tests.merging.models import ARCHITECTURES, LAYERS, save_experts, tiny_experts

RECIPES = [
    LayerSwap(),
    LayerSwap(outer="language"),
    Expert("math"),
    Soup({"math": 1, "language": 2, "base": 1}),
    Ties(0.3),
    Ties(0.3, trim="model"),
    DareTies(0.6),
    TaskArithmetic((0.4, 0.3)),
    Slerp(0.3),
]


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    same = [torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left]
    return left.keys() == right.keys() and all(same)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_disk_equals_memory_for_every_recipe_and_architecture(architecture, tied, experts_of, tmp_path):
    experts = experts_of(architecture, tied)
    paths = save_experts(experts, tmp_path)
    assembler = Assembler(experts)
    ids = torch.arange(1, 17).reshape(2, 8)
    for number, recipe in enumerate(RECIPES):
        plan = recipe.plan(LAYERS)
        out = write_checkpoint(plan, paths, tmp_path / f"out{number}", recipe.title)
        loaded = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
        built = assembler.build(plan)
        assert same_weights(loaded, built), recipe.title
        assert torch.equal(loaded(ids).logits, built(ids).logits), recipe.title


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_disk_equals_memory_in_half_precision(dtype, tmp_path):
    experts = tiny_experts(dtype=dtype)
    paths = save_experts(experts, tmp_path)
    for number, recipe in enumerate(RECIPES):
        out = write_checkpoint(recipe.plan(LAYERS), paths, tmp_path / f"out{number}")
        loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
        assert loaded.dtype == getattr(torch, dtype)
        assert same_weights(loaded, Assembler(experts).build(recipe.plan(LAYERS)))


def test_a_requested_dtype_is_applied_before_merging_as_loading_does(tmp_path):
    paths = save_experts(tiny_experts(), tmp_path)
    experts = {name: load_expert(name, path, "bfloat16") for name, path in paths.items()}
    plan = LayerSwap().plan(LAYERS)
    out = write_checkpoint(plan, paths, tmp_path / "out", dtype="bfloat16")
    assert same_weights(AutoModelForCausalLM.from_pretrained(out, dtype="auto"), Assembler(experts).build(plan))


def split_outer(embed: str, head: str) -> Plan:
    mixes = dict(Expert("math").plan(LAYERS).mixes) | {"embed": copy(embed), "head": copy(head)}
    return Plan.of(LAYERS, mixes)


@pytest.mark.parametrize("architecture", ["llama", "gemma", "gpt_neox"])
def test_a_tied_model_whose_head_is_filled_otherwise_gets_a_head_of_its_own(architecture, experts_of, tmp_path):
    experts = experts_of(architecture, True)
    plan = split_outer("language", "math")
    out = write_checkpoint(plan, save_experts(experts, tmp_path), tmp_path / "out")
    loaded, built = AutoModelForCausalLM.from_pretrained(out), Assembler(experts).build(plan)
    loaded.tie_weights()
    assert loaded.config.tie_word_embeddings is False
    assert same_weights(loaded, built)
    assert not torch.equal(loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight)


def test_shards_follow_the_source(tmp_path):
    paths = save_experts(tiny_experts(tied=False), tmp_path, max_shard_size="40KB")
    out = write_checkpoint(LayerSwap().plan(LAYERS), paths, tmp_path / "out")
    theirs, ours = (
        json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        for folder in (paths["math"], out)
    )
    assert len(set(ours.values())) > 2
    assert ours == theirs
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert same_weights(loaded, Assembler(tiny_experts(tied=False)).build(LayerSwap().plan(LAYERS)))


def test_a_loaded_expert_can_stand_for_a_folder(experts_of, tmp_path):
    experts = experts_of("llama", True)
    plan = LayerSwap().plan(LAYERS)
    paths = save_experts(experts, tmp_path)
    mixed = {"math": experts["math"], "language": paths["language"]}
    out = write_checkpoint(plan, mixed, tmp_path / "out")
    assert same_weights(AutoModelForCausalLM.from_pretrained(out), Assembler(experts).build(plan))


def test_the_folder_is_complete(experts_of, tmp_path):
    paths = save_experts(experts_of("llama", True), tmp_path)
    plan = LayerSwap().plan(LAYERS)
    out = write_checkpoint(plan, paths, tmp_path / "deep" / "out", "LayerSwap()")
    assert {file.name for file in out.iterdir()} == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors", "recipe.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    record = json.loads((out / "recipe.json").read_text())
    assert record["plan"] == {slot: mix.text for slot, mix in plan.mixes}
    assert record["recipe"] == "LayerSwap()"
    assert sorted(record["experts"]) == ["language", "math"]
    card = (out / "README.md").read_text()
    assert plan.drawing in card
    assert str(tmp_path) not in card + json.dumps(record)
    assert AutoTokenizer.from_pretrained(out)("w1 w2")["input_ids"] == [1, 2]


def test_a_written_swap_of_nothing_has_the_identity_of_the_math_expert(experts_of, tmp_path):
    experts = experts_of("llama", True)
    paths = save_experts(experts, tmp_path)
    out = write_checkpoint(LayerSwap(0, 0, outer="math").plan(LAYERS), paths, tmp_path / "out")
    again = load_expert("again", out)
    assert again.slot_digests == experts["math"].slot_digests
    assert again.config_digest == experts["math"].config_digest


def test_an_existing_output_is_refused_and_left_alone(experts_of, tmp_path):
    paths = save_experts(experts_of("llama", True), tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(LayerswapError, match=r"exists: choose another output folder"):
        write_checkpoint(LayerSwap().plan(LAYERS), paths, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "message"),
    [(LayerSwap().plan(LAYERS + 4), "for 10 layers, the experts have 6"), (Expert("nobody").plan(LAYERS), "'nobody'")],
)
def test_an_unfitting_plan_leaves_nothing(plan, message, experts_of, tmp_path):
    paths = save_experts(experts_of("llama", True), tmp_path / "experts")
    with pytest.raises(LayerswapError, match=message):
        write_checkpoint(plan, paths, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["experts"]


def test_a_failure_while_writing_leaves_nothing(experts_of, tmp_path, monkeypatch):
    paths = save_experts(experts_of("llama", True), tmp_path / "experts")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.merging.checkpoint.write_tensors", full)
    with pytest.raises(LayerswapError, match="No space left on device"):
        write_checkpoint(LayerSwap().plan(LAYERS), paths, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["experts"]


def test_a_killed_merge_leaves_nothing_that_looks_finished(experts_of, tmp_path):
    paths = save_experts(experts_of("llama", True), tmp_path / "experts")
    script = textwrap.dedent("""
        import sys, time
        from harness.merging import checkpoint, writing
        from harness.recipes import LayerSwap
        copy, made = writing.copy_range, []

        def slow(*arguments):
            made.append(1)
            if len(made) == 2:
                print("half way", flush=True)
                time.sleep(60)
            return copy(*arguments)

        writing.copy_range = slow
        folder = sys.argv[1]
        experts = {name: f"{folder}/experts/{name}" for name in ("math", "language")}
        checkpoint.write_checkpoint(LayerSwap().plan(6), experts, f"{folder}/out")
    """)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out").exists()
    (partial,) = (path for path in tmp_path.iterdir() if path.name != "experts")
    assert partial.name.startswith(".out.partial-")
    assert not (partial / "config.json").exists()
    out = write_checkpoint(LayerSwap().plan(LAYERS), paths, tmp_path / "out")
    assert as_expert("merged", AutoModelForCausalLM.from_pretrained(out)).layers == LAYERS


@pytest.mark.parametrize("file", ["model.safetensors"])
def test_a_cut_off_source_is_named(file, experts_of, tmp_path):
    paths = save_experts(experts_of("llama", True), tmp_path)
    (paths["language"] / file).write_bytes(b"\xff" * 64)
    with pytest.raises(LayerswapError, match="cut off or no safetensors"):
        write_checkpoint(LayerSwap().plan(LAYERS), paths, tmp_path / "out")
