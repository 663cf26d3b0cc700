"""The whole way with tiny random models of every family: merge, evaluate, write, load, and to mergekit and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from harness.evaluation.pairs import PairGrid
from harness.evaluation.variants import Settings
from harness.exchange.reading import read_mergekit
from harness.exchange.writing import mergekit_config, yaml_text
from harness.merging.checkpoint import write_checkpoint
from harness.profiles import load_profile
from harness.recipes import LayerSwap
from tests.evaluation.architectures import MODELS, SIZES
from tests.merging.models import LAYERS, NAMES

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt_neox")
COLUMNS = """
[benchmarks.mgsm]
columns = [{ name = "mgsm sw", task = "embedded_mgsm_sw", metric = "exact_match", filter = "answer" }]

[benchmarks.belebele]
columns = [{ name = "belebele sw", task = "embedded_belebele_sw", metric = "acc" }]
"""


def models(family: str, tied: bool, words: int) -> list[Any]:
    architecture, changes = MODELS[family]
    sizes = SIZES | {"vocab_size": words, "max_position_embeddings": 256, "tie_word_embeddings": tied}
    config = CONFIG_MAPPING[architecture](**(sizes | {k: v for k, v in changes.items() if k != "tie_word_embeddings"}))
    found = []
    for seed in range(len(NAMES)):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(seed * 0.05 * torch.randn(parameter.shape, generator=noise))
        found.append(model.eval())
    return found


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_the_whole_way(family: str, tied: bool, tokenizer: Any, tmp_path: Any) -> None:
    for name, model in zip(NAMES, models(family, tied, len(tokenizer)), strict=True):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    experts = "".join(f"{name} = {name!r}\n" for name in NAMES)
    swap = f"[swap]\nbottom = 1\ntop = 1\ntransition = [1, 1]\nof = {LAYERS}\n"
    text = f"name = 'family'\ntasks = 'embedded'\nbatch_size = 8\n[experts]\n{experts}{swap}{COLUMNS}"
    (tmp_path / "family.toml").write_text(text, "utf-8")
    profile = load_profile(str(tmp_path / "family.toml"))

    shared, stock = (
        PairGrid(Settings(profile, "cpu", "float32", 6, backend=backend), tmp_path / backend)
        for backend in ("shared", "hf")
    )
    plan = LayerSwap().plan(LAYERS, profile.sizes)
    for benchmark in profile.benchmarks:
        (ours,), (theirs,) = (grid.cell(plan, benchmark).scores for grid in (shared, stock))
        assert ours.values == theirs.values
        assert [s.answer for s in ours.samples] == [s.answer for s in theirs.samples]

    folders = {name: profile.expert_path(name) for name in plan.experts}
    written = AutoModelForCausalLM.from_pretrained(write_checkpoint(plan, folders, tmp_path / "merged"))
    ids = torch.arange(3, 19)[None]
    with torch.inference_mode():
        assert torch.allclose(written(ids).logits, shared.variants.model(plan)(ids).logits, rtol=0, atol=1e-5)

    exported = LayerSwap(transition=0, outer="math").plan(LAYERS, profile.sizes)
    config = mergekit_config(exported, {name: str(path) for name, path in folders.items()}, tied=tied)
    (tmp_path / "mergekit.yaml").write_text(yaml_text(config), "utf-8")
    request = read_mergekit(tmp_path / "mergekit.yaml", {str(path): name for name, path in folders.items()})
    assert request.recipe.plan(LAYERS).text == exported.text
