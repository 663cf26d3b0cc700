"""The part of mergekit's YAML that a plan can say, checked key by key; any other key is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import LayerswapError

Dtype = Literal["float32", "bfloat16", "float16"]
METHODS = ("linear", "passthrough", "ties", "task_arithmetic", "slerp")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Parameters(_Strict):
    """Numbers only: mergekit also has lists over layers and filters by name, which are refused."""

    weight: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    density: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    normalize: bool | None = Field(default=None, strict=True)
    lambda_: float | None = Field(default=None, strict=True, alias="lambda", allow_inf_nan=False)
    t: float | None = Field(default=None, strict=True, allow_inf_nan=False)

    def given(self) -> dict[str, float | bool]:
        """The parameters that are there, by mergekit's names."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value is not None}


class Model(_Strict):
    """A model by its path or hub id; LoRA adapters and revisions are refused."""

    model: str
    parameters: Parameters = Parameters()


class Source(Model):
    """A model's layers from the first to before the second number."""

    layer_range: tuple[int, int]


class Slice(_Strict):
    """Layers that stand together, made of one source or several."""

    sources: tuple[Source, ...] = Field(min_length=1)
    parameters: Parameters = Parameters()


class MergekitFile(_Strict):
    """One merge."""

    merge_method: Literal["linear", "passthrough", "ties", "task_arithmetic", "slerp"]
    slices: tuple[Slice, ...] = ()
    models: tuple[Model, ...] = ()
    parameters: Parameters = Parameters()
    base_model: str | None = None
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: Literal["base"] | None = None


def parse_mergekit(data: Mapping[str, Any], path: Path) -> MergekitFile:
    """Checks a file's content; raises :class:`LayerswapError` naming the first key that cannot be read."""
    try:
        return MergekitFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = _place(first["loc"])
        if first["type"] == "extra_forbidden":
            raise LayerswapError(f"{path}: {where} cannot be read: a recipe has nothing like it") from error
        expected = str(first["msg"]).removeprefix("Input should be ")
        given = repr(first["input"])
        given = given if len(given) <= 60 else f"{given[:57]}..."
        raise LayerswapError(f"{path}: {where} is {given}: expected {_words(first['type'], expected)}") from error


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _words(kind: str, message: str) -> str:
    if kind == "missing":
        return "a value"
    if kind == "float_type":
        return "one number for all layers (no list, no filter)"
    if kind == "string_type":
        return "a path or hub id (no adapter, no revision)"
    return message
