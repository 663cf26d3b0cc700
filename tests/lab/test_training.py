from __future__ import annotations

from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from harness.errors import LayerswapError
from harness.lab import training
from harness.lab.batching import batches, training_batches
from harness.lab.build import STAGES, build, select
from harness.lab.corpus import Document, documents
from harness.lab.training import Architecture, Stage, loss_of, new_model, rate, train

TINY = Architecture(hidden=16, intermediate=32, layers=2, heads=2)


@pytest.fixture(autouse=True)
def few_validation_documents(monkeypatch):
    """Validation on all its documents would take most of these tests' time."""
    whole = training.documents
    monkeypatch.setattr(
        training,
        "documents",
        lambda name, seed, split="train": islice(whole(name, seed, split), 200),
    )


@pytest.mark.parametrize("stage", [s for s in STAGES if not s.lora_rank], ids=lambda stage: stage.name)
def test_a_few_steps_of_each_stage_lower_the_loss(stage, tokenizer):
    short = Stage(stage.name, None, stage.recipe, 25_000, 5e-3, stage.seed, batch_tokens=1000, warmup_steps=3)
    model, figures = train(new_model(TINY, tokenizer, 0), tokenizer, short, progress=lambda line: None)
    assert figures["validation_loss_after"] < figures["validation_loss_before"] - 0.5
    assert 20 <= figures["steps"] <= 35
    assert figures["tokens"] >= 25_000
    assert not model.training


@pytest.mark.parametrize("stage", [s for s in STAGES if s.lora_rank], ids=lambda stage: stage.name)
def test_adapters_are_merged_into_a_model_of_the_same_shape(stage, tokenizer):
    pytest.importorskip("peft")
    model = new_model(TINY, tokenizer, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    short = Stage(stage.name, None, stage.recipe, 15_000, 5e-3, stage.seed, 1000, 3, lora_rank=2)
    merged, figures = train(model, tokenizer, short, progress=lambda line: None)
    after = merged.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert not after["model.layers.0.self_attn.q_proj.weight"].equal(before["model.layers.0.self_attn.q_proj.weight"])
    assert after["model.norm.weight"].equal(before["model.norm.weight"])
    assert figures["validation_loss_after"] < figures["validation_loss_before"] - 0.2


def test_a_stage_gives_the_same_weights_again(tokenizer):
    stage = Stage("again", None, "math", 4000, 5e-3, batch_tokens=1000, warmup_steps=3)
    first, second = (
        train(new_model(TINY, tokenizer, 0), tokenizer, stage, lambda line: None)[0].state_dict() for _ in range(2)
    )
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


def test_only_completions_are_learnt(tokenizer):
    (batch,) = batches(tokenizer, iter([Document("[math] jibu :", "5 #### 5", "key")]), Random(0), 1000)
    words = tokenizer.convert_ids_to_tokens(batch.ids[0])
    assert words == ["[math]", "jibu", ":", "5", "####", "5", "</s>"]
    assert batch.learnt[0].tolist() == [False, False, True, True, True, True, False]


def test_batches_hold_every_document_once_and_keep_to_their_size(tokenizer):
    some = list(islice(documents("base", 0), 500))
    made = batches(tokenizer, some, Random(0), 600)
    assert sum(len(batch.ids) for batch in made) == 500
    assert all(batch.ids.numel() <= 600 for batch in made)


def test_padding_does_not_change_the_loss(tokenizer):
    model = new_model(TINY, tokenizer, 0)
    short, long = Document("[text]", "asha ana vitabu 3 .", "a"), Document("[text]", "asha is at home . " * 3, "b")
    (both,) = batches(tokenizer, iter([short, long]), Random(0), 1000)
    alone = [batches(tokenizer, [d], Random(0), 1000)[0] for d in (short, long)]
    counts = [int(batch.learnt.sum()) for batch in alone]
    mean = sum(loss_of(model, b).item() * n for b, n in zip(alone, counts, strict=True)) / sum(counts)
    assert loss_of(model, both).item() == pytest.approx(mean, abs=1e-5)


def test_the_rate_rises_to_its_peak_and_falls_to_a_twentieth():
    stage = Stage("s", None, "base", 1000, 1.0, warmup_steps=10)
    rates = [rate(step, step / 1000, stage) for step in range(1001)]
    assert max(rates) == rates[9] == pytest.approx(1.0, abs=1e-3)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05)


def test_stages_are_built_in_order_from_one_another(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("harness.lab.tokenizer.build_tokenizer", lambda: tokenizer)
    lines: list[str] = []
    build(tmp_path, ["base", "math"], share=0.0001, architecture=TINY, progress=lines.append)
    from transformers import AutoModelForCausalLM

    base, math = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("base", "math"))
    assert math.config.num_hidden_layers == 2
    assert not math.lm_head.weight.equal(base.lm_head.weight)
    assert lines
    with pytest.raises(LayerswapError, match="exists: move it away"):
        build(tmp_path, ["base"], architecture=TINY)
    with pytest.raises(LayerswapError, match="stage language starts from base, which is not in"):
        build(tmp_path / "empty", ["language"], architecture=TINY)


def test_stages_are_selected_by_name():
    assert [stage.name for stage in select(["math", "base"])] == ["base", "math"]
    assert select([]) == STAGES
    with pytest.raises(LayerswapError, match="no stage named maths: the stages are base, math"):
        select(["maths"])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_goes_on_to_the_same_weights(optimizer, tokenizer, tmp_path):
    stage = Stage("s", None, "math", 40_000, 5e-3, batch_tokens=600, warmup_steps=3, optimizer=optimizer)
    undisturbed, figures = train(new_model(TINY, tokenizer, 0), tokenizer, stage, lambda line: None)

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    saved, lines = tmp_path / "run.pt", []
    with pytest.raises(KeyboardInterrupt):
        train(new_model(TINY, tokenizer, 0), tokenizer, stage, interrupt, saved)
    resumed, again = train(new_model(TINY, tokenizer, 1), tokenizer, stage, lines.append, saved)
    assert lines[0].startswith("s: goes on from step 1 (")
    assert (again["tokens"], again["steps"]) == (figures["tokens"], figures["steps"])
    assert all(tensor.equal(resumed.state_dict()[name]) for name, tensor in undisturbed.state_dict().items())


def test_a_saved_run_of_another_stage_is_not_gone_on_with(tokenizer, tmp_path):
    saved = tmp_path / "run.pt"
    stage = Stage("s", None, "math", 2000, 5e-3, batch_tokens=600, warmup_steps=3)
    training.Run(new_model(TINY, tokenizer, 0), stage).save(saved)
    assert training.Run(new_model(TINY, tokenizer, 0), stage).load(saved)
    assert not training.Run(new_model(TINY, tokenizer, 0), replace(stage, seed=1)).load(saved)


def test_batches_go_on_from_any_position(tokenizer):
    whole = list(islice(training_batches(tokenizer, "base", 3, 40_000), 8))
    position = whole[2][0]
    rest = list(islice(training_batches(tokenizer, "base", 3, 40_000, position), 5))
    assert [p for p, _ in rest] == [p for p, _ in whole[3:]]
    assert all(a.ids.equal(b.ids) for (_, a), (_, b) in zip(rest, whole[3:], strict=True))
    assert whole[-1][0][0] > 0  # the last batches are of another chunk


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 20, 6), (2, 6, 20)])
def test_muon_makes_updates_near_orthogonal(shape):
    import torch

    from harness.lab.muon import orthogonalised

    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert singular.min() > 0.3  # the iteration leaves singular values between about 0.7 and 1.2, small ones rising
    assert singular.max() < 1.4


def test_an_interrupt_in_the_middle_of_a_step_saves_no_half_stepped_weights(tokenizer, tmp_path, monkeypatch):
    import torch

    def interrupted(self, closure=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    saved = tmp_path / "run.pt"
    stage = Stage("s", None, "math", 2000, 5e-3, batch_tokens=600, warmup_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(new_model(TINY, tokenizer, 0), tokenizer, stage, lambda line: None, saved)
    assert not saved.exists()
