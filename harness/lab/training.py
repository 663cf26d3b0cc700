"""Builds the embedded experts from scratch: a base, then experts fine-tuned from it, on text made on the fly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

from harness.errors import LayerswapError, one_line
from harness.lab.batching import Batch, batches, training_batches
from harness.lab.corpus import Split, documents

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


# How often a run saves its state.
SAVE_SECONDS = 120.0


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
    ``optimizer``: ``muon`` is Muon for the layers' matrices and AdamW for the rest, to pretrain in fewer steps.
    ``word_scale`` times the rate is the rate of embeddings and head: above 1, new words are learnt there and the
    layers move less.
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
    optimizer: Literal["adamw", "muon"] = "adamw"
    word_scale: float = 1.0


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


def rate(step: int, done: float, stage: Stage) -> float:
    """Linear warm-up, then a cosine down to a twentieth of the peak; ``done`` is the share of tokens read."""
    warm = min(1.0, (step + 1) / stage.warmup_steps)
    return stage.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    progress: Callable[[str], None] = print,
    saved: Path | None = None,
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Trains ``model`` in place and gives it back (a LoRA stage: merged), with tokens, steps, seconds and losses.

    Losses are on validation documents, before and after. With ``saved``, the run's state goes to that file every
    ``SAVE_SECONDS`` and at an interrupt, and a run that finds the file of the same stage goes on from it, to the same
    weights as an undisturbed one.
    """
    import torch

    torch.manual_seed(stage.seed)
    if stage.lora_rank:
        model = _with_adapters(model, stage)
    run = Run(model, stage)
    if saved and saved.exists() and run.load(saved):
        progress(f"{stage.name}: goes on from step {run.step} ({run.seen:,} tokens), saved in {saved}")
    else:
        run.before = validation_loss(model, tokenizer, stage)
    last_save = time.monotonic()
    model.train()
    data = training_batches(tokenizer, stage.recipe, stage.seed, stage.batch_tokens, run.position)
    try:
        for position, batch in data:
            if run.seen >= stage.tokens:
                break
            started = time.monotonic()
            run.learn(position, batch)
            run.seconds += time.monotonic() - started
            if run.step % 200 == 1:
                progress(
                    f"{stage.name}: {run.seen / stage.tokens:.0%}, step {run.step}, loss {run.recent:.4f}, "
                    f"{run.seen / run.seconds:,.0f} tokens/s"
                )
            if saved and time.monotonic() - last_save > SAVE_SECONDS:
                run.save(saved)
                last_save = time.monotonic()
    except KeyboardInterrupt:
        # In the middle of a step some weights are new and some old: then the last save stands.
        if saved and not run.stepping:
            run.save(saved)
        raise
    model.eval()
    after = validation_loss(model, tokenizer, stage)
    figures = {
        "tokens": run.seen,
        "steps": run.step,
        "seconds": run.seconds,
        "validation_loss_before": run.before,
        "validation_loss_after": after,
    }
    return (model.merge_and_unload() if stage.lora_rank else model), figures


class Run:
    """A training run under way: everything that a step changes, and how to save it and go on."""

    def __init__(self, model: LlamaForCausalLM, stage: Stage) -> None:
        self.model, self.stage = model, stage
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizers = _optimizers(self.parameters, stage)
        self.step, self.seen, self.seconds, self.recent, self.before = 0, 0, 0.0, 0.0, 0.0
        self.position = (0, 0)
        self.stepping = False

    def learn(self, position: tuple[int, int], batch: Batch) -> None:
        """One step on ``batch``, after which the run stands at ``position``."""
        import torch

        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * rate(self.step, self.seen / self.stage.tokens, self.stage)
        loss = loss_of(self.model, batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.stepping = True
        for optimizer in self.optimizers:
            optimizer.step()
        self.recent = loss.item() if self.step == 0 else 0.98 * self.recent + 0.02 * loss.item()
        self.step, self.seen, self.position = self.step + 1, self.seen + batch.ids.numel(), position
        self.stepping = False

    def save(self, path: Path) -> None:
        """Writes the state beside ``path`` and moves it there."""
        import torch

        state = {
            "stage": asdict(self.stage),
            "weights": {name: p.detach() for name, p in self.parameters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> bool:
        """Goes back to the state in ``path``; False if it is of another stage (other data, rate, seed, …).

        Raises :class:`LayerswapError` if the file is damaged.
        """
        try:
            return self._load(path)
        except Exception as error:  # whatever torch makes of a file that is cut off, or holds something else
            raise LayerswapError(
                f"{str(path)!r} is damaged: remove it, and the stage {self.stage.name} begins anew: {one_line(error)}"
            ) from error

    def _load(self, path: Path) -> bool:
        import torch

        state = torch.load(path, weights_only=True)
        if state["stage"] != asdict(self.stage):
            return False
        with torch.no_grad():
            for name, value in state["weights"].items():
                self.parameters[name].copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        return True


_COUNTERS = ("step", "seen", "seconds", "recent", "before", "position")


def _optimizers(parameters: Mapping[str, torch.nn.Parameter], stage: Stage) -> list[torch.optim.Optimizer]:
    import torch

    from harness.lab.muon import Muon

    groups: dict[str, list[torch.nn.Parameter]] = {"words": [], "matrices": [], "rest": []}
    for name, p in parameters.items():
        words, matrix = "embed_tokens" in name or "lm_head" in name, stage.optimizer == "muon" and p.ndim == 2
        groups["words" if words else "matrices" if matrix else "rest"].append(p)
    plain = [
        {"params": groups["words"], "scale": stage.word_scale},
        {"params": groups["rest"], "scale": 1.0},
    ]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [g for g in plain if g["params"]], lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
    ]
    if groups["matrices"]:
        made.append(Muon([{"params": groups["matrices"], "scale": 1.0}], lr=stage.learning_rate))
    return made


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
