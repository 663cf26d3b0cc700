"""Sound inputs of every kind, small: what damaged ones are made from."""

from __future__ import annotations

import random
from pathlib import Path

PROFILE = """
name = "mine"
tasks = "real"
data = "data"

[experts]
base = "models/base"
math = "models/math"
language = "models/language"

[swap]
bottom = 1
top = 1
transition = [1, 1]
of = 6

[benchmarks.mgsm]
columns = [{ name = "mgsm sw", task = "real_mgsm_cot_sw", metric = "exact_match", filter = "answer" }]

[benchmarks.belebele]
columns = [{ name = "belebele sw", task = "real_belebele_sw", metric = "acc" }]

[benchmarks.flores]
columns = [
  { name = "flores en-sw", task = "real_flores_en-sw", metric = "sentence_chrf++", graded = true, corpus = ["chrf++"] },
]

[benchmarks.mbpp]
columns = [{ name = "mbpp", task = "real_mbpp", metric = "pass_at_1" }]

[benchmarks.mmlu]
columns = [{ name = "mmlu", task = "real_mmlu", metric = "acc" }]
"""
MERGEKIT = """
merge_method: linear
slices:
- sources:
  - {model: models/language, layer_range: [0, 2], parameters: {weight: 1.0}}
- sources:
  - {model: models/math, layer_range: [2, 6], parameters: {weight: 1.0}}
dtype: float32
"""
RECIPE = "recipe = 'layer-swap(bottom=1, top=1)'\n[experts]\nmath = 'models/math'\nlanguage = 'models/language'\n"


def build(at: Path) -> None:
    """Writes everything below ``at``."""
    from harness.gating.baselines import save_baselines
    from harness.reporting.report import write_report
    from tests.evaluation.published import write_all
    from tests.merging.models import save_experts, tiny_experts
    from tests.reporting.conftest import make_run, make_samples, make_score

    experts = tiny_experts(tied=False)
    save_experts(experts, at / "models")
    save_experts(experts, at / "sharded", max_shard_size="60KB")
    _adapter(at)
    (at / "profile.toml").write_text(PROFILE, "utf-8")
    head, *parts = PROFILE.split("[benchmarks.")
    for part in parts:
        (at / f"{part.partition(']')[0]}.toml").write_text(f"{head}[benchmarks.{part}", "utf-8")
    (at / "mergekit.yaml").write_text(MERGEKIT, "utf-8")
    (at / "recipe.toml").write_text(RECIPE, "utf-8")
    (at / "recipe.yaml").write_text("recipe: {kind: layer-swap, bottom: 1}\nexperts: {math: models/math}\n", "utf-8")
    (at / "recipe.txt").write_text("layer-swap(bottom=1, transition=(1, 0), weights=(0.5, 0.5))", "utf-8")
    write_all(at / "data")
    for name, skill in (("before", 0.6), ("after", 0.55)):
        columns = {column: make_score(column, skill, 1) for column in ("mgsm sw", "flores en-sw")}
        save_baselines(at / f"{name}.json", {"method/layer-swap": columns}, {"device": "cpu"})
    random.seed(0)
    run = make_run()
    write_report(run, at / "reports" / "one", [make_samples(run)])
    (at / "reports" / "one" / "scores.json").write_bytes((at / "before.json").read_bytes())


def _adapter(at: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(at / "models" / "base", local_files_only=True)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(at / "adapter")
