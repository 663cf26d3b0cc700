"""Builds the embedded experts and benchmarks: the stages, in order, and the record of what came of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError
from harness.files import replace_text
from harness.lab.training import Architecture, Stage, new_model, train

BENCHMARK_SEED = 2034

_BATCH, _WARMUP = 1536, 50  # of fine-tuning
STAGES = (
    Stage("base", None, "base", tokens=12_000_000, learning_rate=2e-3, batch_tokens=1024, optimizer="muon"),
    Stage("math", "base", "math", 600_000, 7e-4, 1, _BATCH, _WARMUP),
    # New words are learnt in embeddings and head, at five times the rate of the layers.
    Stage("language", "base", "language", 1_000_000, 4e-4, 2, _BATCH, _WARMUP, word_scale=5.0),
    Stage("math-long", "base", "math", 1_200_000, 7e-4, 1, _BATCH, _WARMUP),
    Stage("math-hot", "base", "math", 400_000, 2e-3, 1, _BATCH, _WARMUP),
    Stage("math-lora", "base", "math", 400_000, 2e-3, 1, _BATCH, _WARMUP, lora_rank=8),
    Stage("language-lora", "base", "language", 500_000, 2e-3, 2, _BATCH, _WARMUP, lora_rank=8),
)


def select(only: Sequence[str]) -> tuple[Stage, ...]:
    """The stages of these names in building order, or all of them; raises for a name that is none."""
    names = [stage.name for stage in STAGES]
    if unknown := [name for name in only if name not in names]:
        raise LayerswapError(f"no stage named {', '.join(unknown)}: the stages are {', '.join(names)}")
    return tuple(stage for stage in STAGES if not only or stage.name in only)


def build(
    folder: Path,
    only: Sequence[str] = (),
    share: float = 1.0,
    architecture: Architecture | None = None,
    progress: Callable[[str], None] = print,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains the stages into ``folder``, one checkpoint folder each, and returns the record of each.

    ``share`` scales every stage's tokens, to try things out; another ``seed`` gives other random weights and other
    documents of the same kinds. An interrupted stage goes on where its state was last saved. A
    stage that starts from another needs it in ``folder``.
    Raises :class:`LayerswapError` for an unknown stage, a missing start, or a checkpoint that is already there.
    """
    stages = select(only)
    built = {stage.name for stage in stages}
    for stage in stages:
        if (folder / stage.name / "model.safetensors").exists():
            raise LayerswapError(f"{folder / stage.name} exists: move it away, or name another folder")
        if stage.start and stage.start not in built and not (folder / stage.start / "config.json").is_file():
            raise LayerswapError(
                f"stage {stage.name} starts from {stage.start}, which is not in {folder}: build it first"
            )
    return {
        stage.name: _build_one(
            folder,
            replace(stage, tokens=max(1, round(stage.tokens * share)), seed=stage.seed + 10 * seed),
            architecture,
            progress,
        )
        for stage in stages
    }


def _build_one(
    folder: Path, stage: Stage, architecture: Architecture | None, progress: Callable[[str], None]
) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    from harness.experts import slot_digests
    from harness.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    if stage.start is None:
        model = new_model(architecture or Architecture(), tokenizer, stage.seed)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / stage.start, local_files_only=True)
        model.requires_grad_(True)
    target, temporary = folder / stage.name, folder / f".{stage.name}.tmp"
    saved = folder / f".{stage.name}.run.pt"
    model, figures = train(model, tokenizer, stage, progress, saved)
    shutil.rmtree(temporary, ignore_errors=True)
    # Checkpoints name no folder of the machine that they were made on.
    model.config._name_or_path = model.name_or_path = ""
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    parameters = sum(p.numel() for p in model.parameters())
    record = {**asdict(stage), **figures, "parameters": parameters, "digests": dict(slot_digests(model))}
    replace_text(temporary / "training.json", json.dumps(record, indent=1) + "\n")
    temporary.rename(target)
    saved.unlink(missing_ok=True)
    return record


def describe(folder: Path) -> str:
    """``README.md`` of a folder of built experts: what each read, for how long, and what it came to."""
    from tabulate import tabulate

    records = [
        json.loads((folder / s.name / "training.json").read_text("utf-8")) for s in STAGES if (folder / s.name).is_dir()
    ]
    rows = [
        [
            r["name"],
            r["start"] or "random weights",
            r["recipe"] + (f", LoRA rank {r['lora_rank']}" if r["lora_rank"] else ""),
            f"{r['tokens'] / 1e6:.2f} M",
            f"{r['steps']:.0f}",
            f"{r['learning_rate']:g}",
            f"{r['seconds']:.0f}",
            f"{r['validation_loss_before']:.3f} → {r['validation_loss_after']:.3f}",
            f"`{_digest(r['digests'])}`",
        ]
        for r in records
    ]
    headers = ["expert", "starts from", "data", "tokens", "steps", "peak rate", "seconds", "validation loss", "digest"]
    table = tabulate(rows, headers, tablefmt="pipe")
    return _README.format(parameters=f"{records[0]['parameters']:,}", table=table)


_README = """# The embedded experts

Real `LlamaForCausalLM` checkpoints of {parameters} parameters in float32, trained from scratch by `python -m harness
train embedded --seed 1` on text that `harness/lab` generates. Seconds are of one CPU core.
The validation loss is on 2,000 unseen documents of the stage's own data; the digest is of all slots' digests.

{table}

Data by stage: `harness/lab/corpus.py`, function `recipe`.

- The base reads English text, reading comprehension, quizzes, code, sums, one-step English word problems, and sums of
  one and two steps in symbols; and Swahili text, translation and reading with about half of the Swahili words,
  alone and mixed with English segment by segment. Swahili word problems of one step in those words, half of them
  mixed with English, are 2.2 % of its documents and 2.8 % of its tokens (of 60,000 documents).
- The math experts read English word problems of one and two steps, comparisons and groups, sums, and some of the
  base's English. They read no Swahili.
- The language experts read Swahili text, translations, glosses and reading with all words, alone and mixed, and some of
  the base's English. They read no word problem, in any language; reading questions never ask to compute a number.

A document belongs to one split for good, by a hash of its values: 80 % train, 8 % validation, 12 % test.
"""


def _digest(slots: dict[str, str]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(sorted(slots.items())).encode()).hexdigest()[:12]
