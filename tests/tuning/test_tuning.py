from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tqdm.auto import tqdm

from harness.errors import LayerswapError
from harness.experts import load_expert
from harness.lab.corpus import documents
from harness.merging.preflight import preflight
from harness.places import EMBEDDED_WEIGHTS
from harness.tuning.run import Job, tune
from harness.tuning.spec import TrainingSpec

BASE = EMBEDDED_WEIGHTS / "base"
QUICK = TrainingSpec(
    data="math.jsonl", held_out=0.1, learning_rate=2e-3, steps=6, evaluations=3, batch_size=4, max_length=96
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with math.jsonl: word problems of the small world."""
    folder = tmp_path_factory.mktemp("data")
    problems = islice((d for d in documents("math", 0) if d.prompt.startswith("[math]")), 120)
    lines = [json.dumps({"prompt": f"{d.prompt} ", "completion": d.completion}) for d in problems]
    (folder / "math.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def interrupt(line: str) -> None:
    """Ends a run of six steps before it has saved the fourth."""
    if line.startswith("step 4/6"):
        raise KeyboardInterrupt


def job(folder: Path, out: Path, base: Path = BASE, **values: object) -> Job:
    return Job("math", QUICK.model_copy(update=values), base, "org/base@0123abcd", out, folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_full_tuning_gives_an_expert_that_fits_its_base(data, tmp_path):
    lines: list[str] = []
    record = tune(job(data, tmp_path / "math"), lines.append)
    assert record["held_out_loss_after"] < record["held_out_loss_before"] - 0.3
    assert lines[0].startswith("math: 108 records, ")
    assert lines[0].endswith("12 records held out; 6 steps")
    assert [line.partition(":")[0] for line in lines[1:]] == ["step 0/6", "step 2/6", "step 4/6", "step 6/6"]
    preflight({"base": BASE, "math": tmp_path / "math"})
    base, tuned = load_expert("base", BASE), load_expert("math", tmp_path / "math")
    assert all(tuned.slot_digests[slot] != digest for slot, digest in base.slot_digests.items())
    assert json.loads((tmp_path / "math" / "config.json").read_text("utf-8"))["use_cache"] is not False
    assert json.loads((tmp_path / "math" / "training.json").read_text("utf-8")) == record
    assert sorted(tmp_path.iterdir()) == [tmp_path / "math"]  # no state is left
    text = (tmp_path / "math" / "README.md").read_text("utf-8")
    assert "base_model: org/base\n" in text
    assert "108 records" in text
    assert str(tmp_path) not in text + json.dumps(record)


def test_lora_gives_an_adapter_that_fits_its_base(data, tmp_path):
    record = tune(job(data, tmp_path / "math", method="lora", rank=4, learning_rate=1e-2), lambda line: None)
    assert record["held_out_loss_after"] < record["held_out_loss_before"] - 0.3
    config = json.loads((tmp_path / "math" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, "org/base")
    base, tuned = load_expert("base", BASE), load_expert("math", tmp_path / "math", base_path=BASE)
    changed = {slot for slot, digest in base.slot_digests.items() if tuned.slot_digests[slot] != digest}
    assert changed == {slot for slot in base.slot_digests if slot.startswith("layers.")}


def test_a_terminal_is_shown_a_bar(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    # A run of the suite in this process has turned bars off.
    monkeypatch.setattr("transformers.trainer_callback.tqdm", partial(tqdm, disable=False))
    tune(job(data, tmp_path / "math", steps=2, evaluations=1), lambda line: None)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interrupted_run_goes_on_to_the_same_weights(method, data, tmp_path):
    undisturbed = tune(job(data, tmp_path / "a", method=method), lambda line: None)

    with pytest.raises(KeyboardInterrupt):
        tune(job(data, tmp_path / "b", method=method), interrupt)
    assert not (tmp_path / "b").exists()
    (tmp_path / ".b.run" / "checkpoint-3").mkdir()  # what a kill in the middle of a save leaves
    lines: list[str] = []
    resumed = tune(job(data, tmp_path / "b", method=method), lines.append)
    assert lines[1] == "goes on from step 2"
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())
    for figure in ("digest", "held_out_loss_before", "held_out_loss_after", "steps"):
        assert resumed[figure] == undisturbed[figure]


def test_the_state_of_another_run_is_not_gone_on_from(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(job(data, tmp_path / "math"), interrupt)
    with pytest.raises(LayerswapError, match=r"\.math\.run' holds the state of another run"):
        tune(job(data, tmp_path / "math", seed=1), lambda line: None)


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "mixed"},
        {"optimizer": "adafactor", "gradient_checkpointing": True, "packing": False, "micro_batch": 2},
        {"method": "lora", "gradient_checkpointing": True, "precision": "bfloat16", "learning_rate": 1e-2},
    ],
    ids=lambda values: next(iter(values)),
)
def test_other_ways_of_training_learn_too(values, data, tmp_path):
    record = tune(job(data, tmp_path / "math", **values), lambda line: None)
    assert record["held_out_loss_after"] < record["held_out_loss_before"] - 0.1
    if values.get("method") != "lora":  # stored as the base is
        assert {tensor.dtype for tensor in weights(tmp_path / "math").values()} == {torch.float32}


def test_accumulated_batches_are_the_same_step(data, tmp_path):
    tune(job(data, tmp_path / "a", steps=2), lambda line: None)
    tune(job(data, tmp_path / "b", steps=2, micro_batch=1), lambda line: None)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(second[name], tensor, atol=2e-4) for name, tensor in first.items())


def test_a_loss_that_is_no_number_writes_nothing(data, tmp_path, monkeypatch):
    from harness.tuning import run

    broken = run.load_expert("base", BASE, "float32")
    broken.model.lm_head.weight.data[0, 0] = float("nan")
    monkeypatch.setattr(run, "load_expert", lambda *_: broken)
    with pytest.raises(LayerswapError, match="the loss is no number after 2 steps, and nothing was written"):
        tune(job(data, tmp_path / "math", steps=2, packing=False), lambda line: None)
    assert not (tmp_path / "math").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "none.jsonl"}, "there is no training data"),
        ({"max_length": 8}, "every record is longer than max_length 8"),
    ],
)
def test_what_will_not_do_is_said_before_the_base_is_read(values, message, data, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.tuning.run.load_expert", lambda *_: pytest.fail("the base was read"))
    with pytest.raises(LayerswapError, match=message):
        tune(job(data, tmp_path / "math", **values), lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_places_that_will_not_do_are_named(data, tmp_path, monkeypatch):
    from dataclasses import replace

    with pytest.raises(LayerswapError, match="exists: choose another output folder"):
        tune(job(data, tmp_path))
    with pytest.raises(LayerswapError, match=r"device 'cuda' is not available|expected cpu, cuda"):
        tune(replace(job(data, tmp_path / "math"), device="cuda" if not torch.cuda.is_available() else "tpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LayerswapError, match="WORLD_SIZE is set: tuning takes one process"):
        tune(job(data, tmp_path / "math"))


def test_a_record_longer_than_the_base_has_positions_is_refused(data, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "asha ana . " * 200}), encoding="utf-8")
    with pytest.raises(LayerswapError, match="has 300 tokens, but the base has 256 positions: give --max-length 256"):
        tune(job(tmp_path, tmp_path / "math", data="long.jsonl", max_length=300))


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_weights(data, tmp_path):
    def command(out: str) -> list[str]:
        arguments = ["train", "embedded", "math", "--data", str(data / "math.jsonl"), "--out", str(tmp_path / out)]
        recipe = ["--steps", "90", "--evaluations", "30", "--max-length", "96", "--batch-size", "2"]
        return [sys.executable, "-m", "harness", *arguments, *recipe]

    subprocess.run(command("a"), check=True, capture_output=True)
    with subprocess.Popen(command("b"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list((tmp_path / ".b.run").glob("checkpoint-*/whole")):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "b").exists()
    again = subprocess.run(command("b"), check=True, capture_output=True, text=True)
    assert "goes on from step " in again.stdout
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


@pytest.mark.slow
def test_a_real_pretrained_model_is_tuned_for_a_few_steps(data, tmp_path):
    smollm2 = pytest.importorskip("harness.smollm2")
    pytest.importorskip("gguf")
    try:
        base = smollm2.prepared("base")
    except LayerswapError as error:
        pytest.skip(str(error))
    values = {"learning_rate": 1e-4, "steps": 4, "batch_size": 2, "max_length": 64, "evaluations": 2}
    rows = [
        {"messages": [{"role": "user", "content": f"{n}+{n}"}, {"role": "assistant", "content": f"{n + n}"}]}
        for n in range(40)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    for method, rate in (("full", 1e-4), ("lora", 1e-3)):
        changed = {**values, "method": method, "learning_rate": rate, "data": "chat.jsonl"}
        record = tune(job(tmp_path, tmp_path / method, base, **changed), lambda line: None)
        assert record["held_out_loss_after"] < record["held_out_loss_before"]
        tuned = load_expert("math", tmp_path / method, base_path=base)
        assert tuned.layers == 30
    preflight({"base": base, "math": tmp_path / "full"})
