"""What a damaged input is: a change to a folder of sound ones, the command that meets it, and what its error names."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MERGE = "merge ties --base models/base --expert math=models/math --expert language=models/language --out out"
SHARDED = "merge soup --expert math=sharded/math --expert language=sharded/language --out out"
ANALYZE = "analyze --base models/base --expert math=models/math --expert language=models/language"
DOCTOR = "doctor profile.toml --limit 1"
MATH = "models/math"
WEIGHTS = f"{MATH}/model.safetensors"
TENSOR = "model.layers.2.mlp.up_proj.weight"

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """``change`` damages a copy of the workshop, in which ``command`` then runs; its error must match ``says``."""

    name: str
    change: Change
    says: str
    command: str = MERGE


def content(path: str, data: str | bytes) -> Change:
    """The file holds something else."""
    return lambda at: (at / path).write_bytes(data.encode() if isinstance(data, str) else data)


def replaced(path: str, old: str, new: str) -> Change:
    """Some text of the file is another."""

    def change(at: Path) -> None:
        text = (at / path).read_text("utf-8")
        assert old in text
        (at / path).write_text(text.replace(old, new), "utf-8")

    return change


def without(path: str) -> Change:
    """The file is gone."""
    return lambda at: (at / path).unlink()


def edited(path: str, edit: Callable[[Any], Any]) -> Change:
    """The JSON file is what ``edit`` returns or, where that is None, what it made of the value."""

    def change(at: Path) -> None:
        value = json.loads((at / path).read_text("utf-8"))
        result = edit(value)
        (at / path).write_text(json.dumps(value if result is None else result), "utf-8")

    return change


def updated(path: str, **values: Any) -> Change:
    """Keys of the JSON file have other values."""
    return edited(path, lambda data: data.update(values))


def cut(path: str, keep: float | int) -> Change:
    """The file ends early: after a share of it or, for negative numbers, so many bytes before its end."""

    def change(at: Path) -> None:
        data = (at / path).read_bytes()
        (at / path).write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])

    return change


def header(path: str, edit: Callable[[dict[str, Any]], Any]) -> Change:
    """The header of a safetensors file is another; its tensors' bytes stay."""

    def change(at: Path) -> None:
        data = (at / path).read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        entries = json.loads(data[8 : 8 + size])
        result = edit(entries)
        text = result if isinstance(result, bytes) else json.dumps(entries if result is None else result).encode()
        (at / path).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return change


def entry(**values: Any) -> Change:
    """One tensor's entry in the header of the math expert's weights is another; None takes a key away."""

    def edit(entries: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is None:
                del entries[TENSOR][key]
            else:
                entries[TENSOR][key] = value

    return header(WEIGHTS, edit)


def tensors(path: str, edit: Callable[[dict[str, Any]], Any]) -> Change:
    """The safetensors file holds what ``edit`` makes of its tensors."""

    def change(at: Path) -> None:
        from safetensors.torch import load_file, save_file

        found = load_file(at / path)
        edit(found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, at / path, {"format": "pt"})

    return change


def linked(path: str, to: str) -> Change:
    """The file is moved to ``to`` (which may be outside of its folder), and a link to it stands in its place."""

    def change(at: Path) -> None:
        target = at / to
        target.parent.mkdir(parents=True, exist_ok=True)
        (at / path).rename(target)
        (at / path).symlink_to(target)

    return change


def several(*changes: Change) -> Change:
    """One after the other."""

    def change(at: Path) -> None:
        for each in changes:
            each(at)

    return change
