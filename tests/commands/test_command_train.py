from __future__ import annotations

import json
import resource

import pytest
import torch
from safetensors.torch import load_file

from harness.cli import main
from harness.commands.training import RECIPE, _called
from harness.places import EMBEDDED_WEIGHTS
from harness.tuning.spec import TrainingSpec


@pytest.fixture
def data(tmp_path):
    """A file of a few records."""
    rows = [{"prompt": "[math] question : asha has 3 books . ", "completion": f"{n} #### {n}"} for n in range(2, 12)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return tmp_path / "data.jsonl"


def train(*arguments: object) -> int:
    return main(["train", *map(str, arguments)])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_tuned_can_be_merged_at_once(method, data, tmp_path, capsys):
    out = tmp_path / "math"
    recipe = ["--method", method, "--steps", 2, "--max-length", 64, "--batch-size", 2, "--learning-rate", "1e-2"]
    assert train("embedded", "math", "--data", data, "--out", out, *recipe) == 0
    shown = capsys.readouterr().out
    assert "math: 9 records, " in shown
    assert shown.endswith(f"{out}: math, 2 steps; use it with --ablation-expert math={out}\n")
    assert json.loads((out / "training.json").read_text("utf-8"))["base"] == "embedded:base"
    if method == "lora":
        named = json.loads((out / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
        assert named == str(EMBEDDED_WEIGHTS / "base")
    merged = tmp_path / "merged"
    arguments = ["--profile", "embedded", "--expert", f"math={out}", "--out", str(merged)]
    assert main(["merge", "layer-swap(bottom=2, top=2)", *arguments]) == 0
    name = "model.layers.5.mlp.up_proj.weight"
    written, base = (load_file(f / "model.safetensors")[name] for f in (merged, EMBEDDED_WEIGHTS / "base"))
    assert not torch.equal(written, base)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedded", "maths", "--out", "x"], "profile embedded has no expert 'maths' to tune: it has math, language"),
        (["embedded", "base", "--out", "x"], "profile embedded has no expert 'base' to tune"),
        (["embedded", "math"], "--out is missing: name the folder to make"),
        (["embedded", "math", "--out", "x"], "there is no training data: give a file of JSON lines"),
        (["embedded", "math", "--out", "x", "--data", "no.jsonl"], "there is no training data '"),
        (["embedded", "math", "--out", "x", "--epochs", "many"], "--epochs: Input should be a valid number"),
        (["embedded", "math", "--out", "x", "--only", "base"], "--only is for building the embedded experts"),
        (["embedded", "--learning-rate", "1"], "--learning-rate is for tuning one expert: name it"),
        (["smollm2-135m"], "which expert of smollm2-135m? for example: train smollm2-135m math --out DIR"),
        (
            ["llama-3.1-8b-sw", "language", "--out", "x"],
            "there is no training data but the placeholder <a file of JSON",
        ),
        (["llama-3.1-8b-sw", "math", "--out", "x", "--device", "cuda:1"], "device 'cuda:1': expected cpu, cuda or mps"),
        (["llama-3.1-8b-sw", "math", "--out", "x", "--device", "cpu", "--base", "nowhere"], "there is no folder '"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_records_name_no_folder_of_the_machine(tmp_path):
    assert _called(str(tmp_path / "models" / "base"), tmp_path) == "base"
    assert _called("models/base.gguf", tmp_path) == "base.gguf"
    assert _called("org/base@v1", tmp_path / "snapshots" / "0123") == "org/base@0123"


def test_every_key_of_a_recipe_has_an_option():
    assert {name.replace("-", "_") for name in RECIPE} | {"fields", "seed"} == set(TrainingSpec.model_fields)


def test_the_embedded_benchmarks_are_still_written(tmp_path, capsys):
    assert train("embedded", "--benchmarks", tmp_path / "data") == 0
    assert (tmp_path / "data" / "mgsm_sw.jsonl").is_file()


@pytest.mark.parametrize("size", [100_000, 4_500_000], ids=["the model", "the optimizer's state"])
def test_a_full_disk_ends_a_run_with_one_sentence_and_no_expert(size, data, tmp_path, capsys):
    """safetensors and torch.save have errors of their own for what the system refuses."""
    out = tmp_path / "math"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        assert train("embedded", "math", "--data", data, "--out", out, "--steps", 1, "--max-length", 64) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write to '{tmp_path / '.math.run'}', whose disk may be full: ")
    assert error.count("\n") == 1
    assert not out.exists()
