"""How an expert is tuned: a profile's ``[training.NAME]``, checked by pydantic. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import LayerswapError


class TrainingSpec(BaseModel):
    """A recipe of fine-tuning. Lengths are in tokens; a step reads ``batch_size`` sequences of up to ``max_length``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = ""  # a file of JSON lines, or a data set on the hub: ORG/NAME or ORG/NAME@REVISION
    config: str | None = None  # of a data set on the hub
    split: str = "train"  # the same
    fields: dict[str, str] = {}  # where the data calls text, prompt, completion or messages otherwise
    prompt_format: str = "{prompt}"  # what stands around every prompt
    samples: int | None = Field(default=None, ge=1)  # records to take, a seeded sample; None for all
    held_out: float = Field(default=0.02, ge=0, le=0.5)  # share of the records that only the evaluation reads
    method: Literal["full", "lora"] = "full"
    rank: int = Field(default=16, ge=1)  # of LoRA; its alpha is twice that
    learning_rate: float = Field(default=1e-5, gt=0, le=1)  # the peak: linear warm-up, then a cosine to 0
    warmup: float = Field(default=0.03, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(default=0.0, ge=0, lt=1)
    epochs: float = Field(default=1.0, gt=0)
    steps: int | None = Field(default=None, ge=1)  # instead of epochs
    batch_size: int = Field(default=16, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)  # sequences in memory at once; None for batch_size
    max_length: int = Field(default=1024, ge=8)
    packing: bool = True  # several records in one sequence, none of which sees another
    precision: Literal["float32", "mixed", "bfloat16"] = "float32"
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    gradient_checkpointing: bool = False
    evaluations: int = Field(default=10, ge=1)  # how often in a run it is evaluated, and its state saved
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> TrainingSpec:
        if self.batch_size % self.rows:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch {self.rows}")
        if "{prompt}" not in self.prompt_format:
            raise ValueError(f"prompt_format {self.prompt_format!r} has no {{prompt}} in it")
        if unknown := sorted(set(self.fields) - {"text", "prompt", "completion", "messages"}):
            raise ValueError(f"fields names {unknown[0]!r}: expected text, prompt, completion or messages")
        return self

    @property
    def rows(self) -> int:
        """Sequences in memory at once."""
        return self.micro_batch or self.batch_size

    def changed(self, values: Mapping[str, Any]) -> TrainingSpec:
        """The recipe with other values, checked anew. Raises :class:`LayerswapError` naming the option."""
        try:
            return TrainingSpec(**{**self.model_dump(), **values})
        except ValidationError as error:
            raise LayerswapError("; ".join(_problem(e) for e in error.errors())) from error


def fields_of(given: Iterable[str]) -> dict[str, str]:
    """``prompt=question`` and so on, by name. Raises :class:`LayerswapError` for anything else."""
    found = {}
    for text in given:
        name, equals, other = text.partition("=")
        if not (name and equals and other):
            raise LayerswapError(f"--field is {text!r}: expected a pair such as prompt=question")
        found[name] = other
    return found


def _problem(error: Any) -> str:
    option = "--" + "-".join(str(part) for part in error["loc"]).replace("_", "-")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{option}: {message}" if error["loc"] else message
