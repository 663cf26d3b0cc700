"""One fine-tuning run: transformers' Trainer on a base, from checkpoint to checkpoint, to an expert's folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from harness.errors import LayerswapError, one_line
from harness.experts import load_expert
from harness.files import replace_text, shortened
from harness.identity import folder_digest
from harness.tuning.packing import Collator, Encoded, check_apart, encode, sequences
from harness.tuning.records import Data, data_file, read_data
from harness.tuning.spec import TrainingSpec
from harness.tuning.watching import WHOLE, watchers
from harness.tuning.writing import record_of, write

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


@dataclass(frozen=True)
class Job:
    """What is tuned, and where to. ``place`` is what the base is called (with its commit, if it is of the hub),
    ``folder`` where relative data files lie."""

    expert: str
    spec: TrainingSpec
    base: Path
    place: str
    out: Path
    folder: Path = field(default_factory=Path)
    device: str = "cpu"

    @property
    def state(self) -> Path:
        """Where checkpoints of the run lie until it is done."""
        return self.out.parent / f".{self.out.name}.run"


@dataclass(frozen=True)
class Sequences:
    """Packed records to train and to evaluate on, and how many of what there are."""

    train: Sequence[tuple[Encoded, ...]]
    held_out: Sequence[tuple[Encoded, ...]]
    counts: Mapping[str, int]


def tune(job: Job, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Tunes an expert into ``job.out`` and returns the record of the run, which is ``training.json`` there.

    An interrupted run leaves its state beside ``out``; the same run, started again, goes on from it to the same
    weights. Raises :class:`LayerswapError` before long work for data, recipe, device or an output folder that will not
    do, and afterwards if the loss is no number.
    """
    check(job.spec, job.out, job.folder, job.device)
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading and writing files; training has its own
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(job.base, local_files_only=True, trust_remote_code=False)
    data = read_data(job.spec, job.folder, tokenizer)
    read = _sequences(job, data, tokenizer)
    steps = job.spec.steps or max(1, round(job.spec.epochs * -(-len(read.train) // job.spec.batch_size)))
    say(_begins(job, data, read, steps))
    model = _model(job, max(len(r.ids) for row in read.train for r in row))
    if job.spec.packing:
        check_apart(model, read.train[0])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    with _claimed(job):
        digest = folder_digest(job.base)
        last = _last_checkpoint(job, data, digest)
        if last:
            say(f"goes on from step {last.name.rpartition('-')[2]}")
        trainer = _trainer(job, model, Collator(pad, job.spec.packing), read, steps, last is not None, say)
        started = time.monotonic()
        with _written_to(job.state):
            _train(trainer, last, job.device)
        record = {"base_digest": digest, **record_of(job, data, read, trainer.state, time.monotonic() - started)}
        with _written_to(job.out):
            write(job, trainer.model, record)
        shutil.rmtree(job.state, ignore_errors=True)
    return record


@contextmanager
def _claimed(job: Job) -> Iterator[None]:
    try:
        job.state.mkdir(parents=True, exist_ok=True)
        with FileLock(job.state / "lock", timeout=0):
            yield
    except Timeout as error:
        raise LayerswapError(f"another process is tuning to {str(job.out)!r}") from error
    except OSError as error:
        raise LayerswapError(f"cannot write to {str(job.state)!r}: {error.strerror or error}") from error


@contextmanager
def _written_to(place: Path) -> Iterator[None]:
    """What safetensors and torch raise where a disk is full is no OSError; here it is one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        of_torch = ("PytorchStreamWriter", "inline_container", "iostream")  # what torch.save's writer calls itself
        if not isinstance(error, SafetensorError) and not any(name in str(error) for name in of_torch):
            raise
        reason = shortened(one_line(error), 200)
        raise LayerswapError(f"cannot write to {str(place)!r}, whose disk may be full: {reason}") from error


def _train(trainer: Trainer, last: Path | None, device: str) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise LayerswapError(
            f"the {device} has too little memory: give a smaller --micro-batch or --max-length, "
            "--gradient-checkpointing true, --optimizer adafactor, or --method lora"
        ) from error


def check(spec: TrainingSpec, out: Path, folder: Path, device: str) -> None:
    """What can be told before the base is there: output, libraries, data file, device. Raises as :func:`tune`."""
    if out.exists() or out.is_symlink():
        raise LayerswapError(f"{str(out)!r} exists: choose another output folder, or remove it first")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LayerswapError("WORLD_SIZE is set: tuning takes one process and one device, start it without a launcher")
    if spec.method == "lora" and find_spec("peft") is None:
        raise LayerswapError("method lora needs peft: pip install 'pytest-layerswap[lora]'")
    data_file(spec, folder)
    _check_device(device)


def _sequences(job: Job, data: Data, tokenizer: Any) -> Sequences:
    spec = job.spec
    train, left = encode(data.train, tokenizer, spec.max_length)
    held, _ = encode(data.held_out, tokenizer, spec.max_length)
    if not train:
        raise LayerswapError(f"training data {data.name!r}: every record is longer than max_length {spec.max_length}")
    counts = {
        "available": data.available,
        "records": len(data.train) - left,
        "left_out_as_too_long": left,
        "held_out": len(data.held_out),
        "tokens": sum(len(r.ids) for r in train),
        "learnt_tokens": sum(label >= 0 for r in train for label in r.labels),
    }
    rows = sequences(train, spec.max_length, spec.packing)
    return Sequences(rows, sequences(held, spec.max_length, spec.packing), counts | {"sequences": len(rows)})


def _begins(job: Job, data: Data, read: Sequences, steps: int) -> str:
    counts, asked = read.counts, job.spec.samples
    few = f" (of {asked:,} asked for)" if asked and data.available < asked else ""
    left = f", {counts['left_out_as_too_long']:,} left out as too long" if counts["left_out_as_too_long"] else ""
    return (
        f"{job.expert}: {counts['records']:,} records{few}{left}, {counts['tokens']:,} tokens in "
        f"{counts['sequences']:,} sequences, {counts['held_out']:,} records held out; {steps:,} steps"
    )


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda", "mps"):
        raise LayerswapError(f"device {device!r}: expected cpu, cuda or mps (CUDA_VISIBLE_DEVICES picks one of many)")
    import torch

    there = device == "cpu" or (torch.cuda if device == "cuda" else torch.backends.mps).is_available()
    if not there:
        raise LayerswapError(
            f"device {device!r} is not available to torch: give --device cpu, or a machine that has it"
        )


def _model(job: Job, longest: int) -> PreTrainedModel:
    import torch

    dtype = "bfloat16" if job.spec.precision == "bfloat16" else "float32"
    model = load_expert("base", job.base, dtype).model
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and longest > positions:
        raise LayerswapError(
            f"the longest record has {longest} tokens, but the base has {positions} positions: "
            f"give --max-length {positions}"
        )
    model.config.use_cache = False  # with a cache, attention would take packed records for one
    if job.spec.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()  # an adapter's inputs need no gradients of their own accord
    torch.manual_seed(job.spec.seed)
    if job.spec.method == "full":
        model.requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model

    rank = job.spec.rank
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: PreTrainedModel = get_peft_model(model, config)
    return adapted


def _last_checkpoint(job: Job, data: Data, base: str) -> Path | None:
    """The newest whole checkpoint of this very run; those that were being written when it ended are removed."""
    facts = {
        "recipe": {key: value for key, value in job.spec.model_dump().items() if key != "data"},
        "data": data.digest,
        "base": base,
        "device": job.device,
    }
    text, file = json.dumps(facts, indent=1) + "\n", job.state / "run.json"
    if file.is_file() and file.read_text("utf-8") != text:
        raise LayerswapError(
            f"{str(job.state)!r} holds the state of another run (other data, base or recipe): remove it to begin anew"
        )
    replace_text(file, text)
    whole: list[Path] = []
    for folder in job.state.glob("checkpoint-*"):
        if (folder / WHOLE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _trainer(
    job: Job,
    model: PreTrainedModel,
    collator: Collator,
    read: Sequences,
    steps: int,
    resumes: bool,
    say: Callable[[str], None],
) -> Trainer:
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

    spec = job.spec
    every = max(1, steps // spec.evaluations)
    arguments = TrainingArguments(
        output_dir=str(job.state),
        max_steps=steps,
        per_device_train_batch_size=spec.rows,
        per_device_eval_batch_size=spec.rows,
        gradient_accumulation_steps=spec.batch_size // spec.rows,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(spec.warmup * steps),
        optim={"adamw": "adamw_torch", "adafactor": "adafactor"}[spec.optimizer],
        bf16=spec.precision == "mixed",
        logging_steps=every,
        eval_strategy="steps" if read.held_out else "no",
        eval_steps=every,
        eval_on_start=bool(read.held_out) and not resumes,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,  # the older one goes when the newer one is whole
        seed=spec.seed,
        data_seed=spec.seed,
        use_cpu=job.device == "cpu",
        remove_unused_columns=False,
        report_to="none",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one device, whatever else the machine has
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=read.train,
        eval_dataset=read.held_out or None,
    )
    for shown_otherwise in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shown_otherwise)
    for watcher in watchers(say):
        trainer.add_callback(watcher)
    return trainer
