"""What lies where in safetensors files, read from their headers alone; imports neither torch nor numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LayerswapError
from harness.files import inside, read_object, shortened

# safetensors' names of element types, and torch's.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
LONGEST = 100_000_000  # bytes of a header: the format's own bound
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Range:
    """One tensor in a file: its dtype (torch's name), its shape, and the bytes from ``begin`` up to ``end``."""

    path: Path
    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


def itemsize(dtype: str) -> int:
    """Bytes of an element of the type with this name in torch."""
    bits = "".join(character for character in dtype.split("_")[0] if character.isdigit())
    return int(bits) // 8 if bits else 1


def read_ranges(path: Path) -> dict[str, Range]:
    """Every tensor of a safetensors file in the order of their bytes.

    Raises :class:`LayerswapError` naming the file, and the tensor if it is one, unless the header is whole and says of
    every byte behind it which tensor it is of.
    """
    try:
        there = path.stat().st_size
        with path.open("rb") as stream:
            first = stream.read(8)
            size = int.from_bytes(first, "little")
            text = stream.read(size) if len(first) == 8 and size <= min(there - 8, LONGEST) else b""
    except OSError as error:
        raise LayerswapError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if first == b"version ":
        raise LayerswapError(f"{str(path)!r} is a pointer of Git LFS: fetch the file that it stands for (git lfs pull)")
    if not text:
        raise LayerswapError(f"{str(path)!r} is cut off or no safetensors file")
    try:
        header = json.loads(text, object_pairs_hook=_distinct)
        metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
    except RecursionError:
        raise LayerswapError(f"{str(path)!r} is no safetensors file: its header is nested too deep") from None
    except ValueError as error:
        raise LayerswapError(f"{str(path)!r} is damaged or no safetensors file: its header says {error}") from error
    if not isinstance(metadata, dict):
        raise LayerswapError(f"{str(path)!r} is damaged: __metadata__ is {shortened(metadata)}: expected texts by name")
    if not isinstance(header, dict) or not header:
        raise LayerswapError(f"{str(path)!r} has no tensors in its header")
    found = {name: _range(path, 8 + size, name, entry) for name, entry in header.items()}
    found = dict(sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)))
    place, before = 8 + size, ""
    for name, part in found.items():
        if part.begin != place:
            how = f"overlaps {before}" if part.begin < place else "has bytes before it that are of no tensor"
            raise LayerswapError(f"{str(path)!r} is damaged: {name} {how}")
        place, before = part.end, name
    if place != there:
        how = "is cut off" if place > there else "is damaged"
        raise LayerswapError(f"{str(path)!r} {how}: its tensors end at byte {place:,}, the file at {there:,}")
    return found


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)} twice")
    return found


def _range(path: Path, start: int, name: str, entry: object) -> Range:
    """What an entry of a header says, checked."""

    def wrong(what: str) -> LayerswapError:
        return LayerswapError(f"{str(path)!r} is damaged: {name} {what}")

    if not name.isprintable():
        raise LayerswapError(f"{str(path)!r} is damaged: {shortened(name)} is no name of a tensor")
    if not isinstance(entry, dict):
        raise wrong(f"is {shortened(entry)}: expected dtype, shape and data_offsets")
    dtype, shape, places = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise wrong(f"has the dtype {shortened(dtype)}: known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise wrong(f"has the shape {shortened(shape)}: expected whole numbers")
    if not (isinstance(places, list) and len(places) == 2 and all(type(place) is int for place in places)):
        raise wrong(f"has the data_offsets {shortened(places)}: expected two whole numbers")
    if not 0 <= places[0] <= places[1] or places[1] - places[0] != math.prod(shape) * itemsize(DTYPES[dtype]):
        raise wrong(f"has the data_offsets {shortened(places)}, but is of {dtype} and shape {shortened(shape)}")
    return Range(path, start + places[0], start + places[1], DTYPES[dtype], tuple(shape))


def read_folder(folder: Path) -> dict[str, Range]:
    """Every tensor of a checkpoint folder; only files of the index if there is one.

    Raises :class:`LayerswapError` if files are missing or damaged, if they are pickles, or if they lie elsewhere.
    """
    index = folder / INDEX
    named: Mapping[str, str] = {}
    if index.is_file():
        named = _index(index)
        files = sorted(set(named.values()))
    elif (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    else:
        files = sorted(file.name for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        raise no_weights(folder)
    paths = {file: inside(folder, file) for file in files}
    if missing := [file for file, path in paths.items() if not path.is_file()]:
        raise LayerswapError(f"{str(folder)!r} lacks {missing[0]}" + (", which its index names" if named else ""))
    found: dict[str, Range] = {}
    for path in paths.values():
        tensors = read_ranges(path)
        if twice := next((name for name in tensors if name in found), None):
            raise LayerswapError(f"{twice} is in {str(found[twice].path)!r} and in {str(path)!r}: expected one of them")
        found |= tensors
    for name, file in named.items():
        if name not in found or found[name].path != paths[file]:
            raise LayerswapError(f"{str(index)!r} says that {name} is in {file}, and it is not there")
    return found


def _index(path: Path) -> Mapping[str, str]:
    """The file of every tensor by an index, by name."""
    named = read_object(inside(path.parent, path.name)).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise LayerswapError(f"{str(path)!r}: weight_map is {shortened(named)}: expected a file for each tensor")
    for name, file in named.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise LayerswapError(
                f"{str(path)!r}: weight_map gives {shortened(file)} for {name}: expected a safetensors file beside it"
            )
        try:
            inside(path.parent, file)
        except LayerswapError as error:
            raise LayerswapError(f"{str(path)!r}: weight_map of {name}: {error}") from error
    return named


def no_weights(folder: Path) -> LayerswapError:
    """What is wrong with a folder that has no safetensors."""
    pickled = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickled:
        return LayerswapError(
            f"{str(folder)!r} has only pickled weights: {pickled[0]} is a pickle, which can run code when opened: "
            "convert it where you trust it with transformers' from_pretrained(...).save_pretrained(...)"
        )
    return LayerswapError(f"{str(folder)!r} has no safetensors weights")


def kinds(tensors: Mapping[str, Range]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype (torch's name) and shape by name."""
    return {name: (part.dtype, part.shape) for name, part in tensors.items()}
