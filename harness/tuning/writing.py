"""What a fine-tuning run leaves: an expert's folder with its model card and the record of the run."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.files import atomic_folder, replace_text
from harness.identity import folder_digest
from harness.tuning.card import card
from harness.versions import versions_of

if TYPE_CHECKING:
    from harness.tuning.records import Data
    from harness.tuning.run import Job, Sequences

# What describes the base's tokenizer and generation, and stays as it is.
_KEPT = ("*token*", "*vocab*", "merges.txt", "*.model", "chat_template*", "generation_config.json")
_LIBRARIES = ("pytest-layerswap", "torch", "transformers", "accelerate", "peft")


def record_of(job: Job, data: Data, read: Sequences, state: Any, seconds: float) -> dict[str, Any]:
    """What ``training.json`` says of a run. Raises :class:`LayerswapError` if its last loss is no number."""
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    learnt = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if any(loss != loss or loss in (float("inf"), float("-inf")) for loss in (*losses[-1:], *learnt[-1:])):
        raise LayerswapError(
            f"the loss is no number after {state.global_step} steps, and nothing was written: give a smaller "
            f"--learning-rate than {job.spec.learning_rate:g}, and remove {str(job.state)!r}"
        )
    return {
        "expert": job.expert,
        "base": job.place,
        "data": data.name,
        "data_digest": data.digest,
        **read.counts,
        "steps": state.global_step,
        "seconds": round(seconds, 1),
        "held_out_loss_before": losses[0] if losses else None,
        "held_out_loss_after": losses[-1] if losses else None,
        "training_loss": learnt[-1] if learnt else None,
        "recipe": {**job.spec.model_dump(), "data": data.name},
        "versions": versions_of(_LIBRARIES),
    }


def write(job: Job, model: Any, record: dict[str, Any]) -> None:
    """The expert's folder, in one step: weights stored as the base's are, model card, record with its digest."""
    from harness.merging.preflight import preflight
    from harness.merging.storage import open_source, torch_dtype

    hub, _, revision = job.place.partition("@")
    with atomic_folder(job.out) as folder:
        if job.spec.method == "lora":
            for config in model.peft_config.values():
                config.base_model_name_or_path = hub if revision else str(job.base.resolve())
            # An adapter has no embeddings; without being told, peft would ask the hub about the base's.
            model.save_pretrained(folder, save_embedding_layers=False)
        else:
            # Experts must be stored as their base is.
            model.to(torch_dtype(open_source(job.base, lambda _: lambda: "").dtype)).save_pretrained(folder)
            config = json.loads((job.base / "config.json").read_text("utf-8"))
            config.pop("_name_or_path", None)
            replace_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            for file in {path for pattern in _KEPT for path in job.base.glob(pattern) if path.is_file()}:
                shutil.copyfile(file, folder / file.name)
            preflight({"base": job.base, job.expert: folder})
        for file in folder.iterdir():  # safetensors lets nobody else read its files
            file.chmod(folder.stat().st_mode & 0o666)
        record["digest"] = folder_digest(folder)
        replace_text(folder / "training.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        replace_text(folder / "README.md", card(job.out.name, record))
