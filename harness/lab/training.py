"""Builds the embedded experts from scratch: a base, then experts fine-tuned from it, on text made on the fly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from harness.lab.corpus import Document, Split, documents

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Architecture:
    """The shape of every model of the lab. Embeddings and head are untied: tied ones drift most in tuning."""

    hidden: int = 80
    intermediate: int = 216
    layers: int = 10
    heads: int = 4


@dataclass(frozen=True)
class Stage:
    """One training run: from which weights, on which recipe of documents, for how long, at which peak rate.

    ``tokens`` counts every token read. ``lora_rank`` above 0 trains low-rank adapters (arXiv 2106.09685) of all the
    decoder's linear layers, and embeddings and head in full, since new words live there; all is merged at the end.
    """

    name: str
    start: str | None
    recipe: str
    tokens: int
    learning_rate: float
    seed: int = 0
    batch_tokens: int = 3072
    warmup_steps: int = 100
    lora_rank: int = 0


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids, shape [documents, length], and which positions predict a learnt token."""

    ids: torch.Tensor
    learnt: torch.Tensor


def batches(
    tokenizer: PreTrainedTokenizerFast, stream: Iterator[Document], rng: Random, batch_tokens: int
) -> Iterator[Batch]:
    """Batches of documents of like length, about ``batch_tokens`` each, in random order.

    Every document starts at position 0, as it does when it is evaluated. A story (no task) is learnt whole; of a
    task only the completion is.
    """
    import torch

    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    while chunk := list(islice(stream, 4096)):
        prompts = tokenizer([d.prompt for d in chunk])["input_ids"]
        completions = tokenizer([d.completion for d in chunk])["input_ids"]
        rows = sorted(zip(prompts, completions, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        made: list[Batch] = []
        start = 0
        while start < len(rows):
            end, longest = start, 0
            while end < len(rows):
                longest = max(longest, len(rows[end][0]) + len(rows[end][1]) + 1)
                if longest * (end - start + 1) > batch_tokens:
                    break
                end += 1
            group = rows[start : max(end, start + 1)]
            width = max(len(p) + len(c) + 1 for p, c in group)
            ids = torch.full((len(group), width), pad)
            learnt = torch.zeros((len(group), width), dtype=torch.bool)
            for i, (prompt, completion) in enumerate(group):
                tokens = [*prompt, *completion, eos]
                ids[i, : len(tokens)] = torch.tensor(tokens)
                learnt[i, len(prompt) - 1 : len(tokens) - 1] = True
            made.append(Batch(ids, learnt))
            start += len(group)
        rng.shuffle(made)
        yield from made


def new_model(architecture: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A randomly initialised Llama of the lab's shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden,
        intermediate_size=architecture.intermediate,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learnt tokens; only their positions reach the output head."""
    import torch.nn.functional as F

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = inner.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    picked = hidden[:, :-1][batch.learnt[:, :-1]]
    targets = batch.ids[:, 1:][batch.learnt[:, :-1]]
    return F.cross_entropy(inner.lm_head(picked).float(), targets)


def rate(step: int, steps: int, stage: Stage) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = min(1.0, (step - stage.warmup_steps) / max(1, steps - stage.warmup_steps))
    return stage.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    progress: Callable[[str], None] = print,
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Trains ``model`` in place and gives it back (a LoRA stage: merged), with tokens, steps, seconds and losses.

    Losses are on validation documents, before and after.
    """
    import torch

    torch.manual_seed(stage.seed)
    if stage.lora_rank:
        model = _with_adapters(model, stage)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    steps = max(1, round(stage.tokens / (stage.batch_tokens * 0.96)))
    before = validation_loss(model, tokenizer, stage)
    seen, started, recent = 0, time.monotonic(), 0.0
    model.train()
    stream = batches(tokenizer, documents(stage.recipe, stage.seed), Random(stage.seed), stage.batch_tokens)
    step = 0
    for step, batch in enumerate(stream):
        done = seen / stage.tokens
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(step, max(steps, 1), stage)
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen += batch.ids.numel()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if step % 200 == 0:
            elapsed = time.monotonic() - started
            progress(f"{stage.name}: step {step}/{steps}, loss {recent:.4f}, {seen / max(elapsed, 1e-9):,.0f} tokens/s")
    model.eval()
    after = validation_loss(model, tokenizer, stage)
    figures = {
        "tokens": seen,
        "steps": step,
        "seconds": time.monotonic() - started,
        "validation_loss_before": before,
        "validation_loss_after": after,
    }
    return (model.merge_and_unload() if stage.lora_rank else model), figures


def _with_adapters(model: LlamaForCausalLM, stage: Stage) -> LlamaForCausalLM:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=stage.lora_rank,
        lora_alpha=2 * stage.lora_rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def validation_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stage: Stage, split: Split = "validation"
) -> float:
    """Mean loss on 2,000 documents of the stage's own recipe that training never sees."""
    import torch

    total = count = 0.0
    stream = islice(documents(stage.recipe, stage.seed, split), 2000)
    with torch.inference_mode():
        for batch in batches(tokenizer, stream, Random(0), stage.batch_tokens):
            n = int(batch.learnt.sum())
            total, count = total + loss_of(model, batch).item() * n, count + n
    return total / count
