"""What lies where in safetensors files, read from their headers alone; imports neither torch nor numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LayerswapError

# safetensors' names of element types, and torch's.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Range:
    """One tensor in a file: its dtype (torch's name), its shape, and the bytes from ``begin`` up to ``end``."""

    path: Path
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


def read_ranges(path: Path) -> dict[str, Range]:
    """Every tensor of a safetensors file in the order of their bytes; LayerswapError if the file is cut off."""
    cut_off = LayerswapError(f"{str(path)!r} is cut off or no safetensors file")
    there = path.stat().st_size
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size + 8 > there:
            raise cut_off
        try:
            header = json.loads(stream.read(size))
            header.pop("__metadata__", None)
            entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
            found = {
                name: Range(
                    path,
                    8 + size + int(entry["data_offsets"][0]),
                    8 + size + int(entry["data_offsets"][1]),
                    DTYPES.get(entry["dtype"], entry["dtype"]),
                    tuple(entry["shape"]),
                )
                for name, entry in entries
            }
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise cut_off from error
    if any(not 0 <= part.begin <= part.end <= there for part in found.values()):
        raise cut_off
    return found


def read_folder(folder: Path) -> dict[str, Range]:
    """Every tensor of a checkpoint folder; only files of the index if there is one. Raises if files are missing."""
    index = folder / INDEX
    if index.is_file():
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    elif (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    else:
        files = sorted(file.name for file in folder.glob("*.safetensors"))
    if not files:
        raise LayerswapError(f"{str(folder)!r} has no safetensors weights")
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise LayerswapError(f"{str(folder)!r} lacks {missing[0]}, which its index names")
    found: dict[str, Range] = {}
    for file in files:
        found |= read_ranges(folder / file)
    return found


def kinds(tensors: Mapping[str, Range]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype (torch's name) and shape by name."""
    return {name: (part.dtype, part.shape) for name, part in tensors.items()}
