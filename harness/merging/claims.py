"""Whether a checkpoint is what it says: its config against its weights, and weights that are numbers at all."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cache import Cache
from harness.errors import LayerswapError
from harness.files import file_state, inside, read_object
from harness.merging.headers import Range
from harness.merging.layout import Outer, is_tied, known_depth, outer_of, raw_config

_BLOCK = 1 << 20  # bytes
_SOUND = "sound-json"
# Of each kind of float: bytes, what the highest byte of a NaN or infinity is, the exponent's bits, which are then all
# ones, and struct's code.
_HIGH = (b"\x7f", b"\xff")
_FLOATS: dict[str, tuple[int, tuple[bytes, ...], int, str]] = {
    "float16": (2, tuple(bytes([sign | top]) for sign in (0, 0x80) for top in range(0x7C, 0x80)), 0x7C00, "<H"),
    "bfloat16": (2, _HIGH, 0x7F80, "<H"),
    "float32": (4, _HIGH, 0x7F800000, "<I"),
    "float64": (8, _HIGH, 0x7FF0000000000000, "<Q"),
}
_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


def check_claims(
    folder: Path, tensors: Mapping[str, Range], tokenizer: bool = True, cache: Cache | None = None
) -> None:
    """Holds depth, vocabulary, width and tying in ``config.json`` to the stored tensors, for architectures we know.

    Raises :class:`LayerswapError` naming the key. Of others only the depth is held to numbered layers. ``tokenizer``
    False leaves the tokenizer unread: of large vocabularies that takes longest, so ``cache`` keeps that it was sound.
    """
    if (folder / "config.json").is_file():
        read_object(inside(folder, "config.json"))
    if tokenizer and (folder / "tokenizer.json").is_file():
        _read_once(inside(folder, "tokenizer.json"), cache)
    config = raw_config(folder)
    outer = None if config is None else outer_of(config)
    if config is None or outer is None:
        return
    wrong = _depth(config, tensors) or _sizes(config, outer, tensors) or _tying(config, outer, tensors)
    if wrong:
        raise LayerswapError(f"{str(folder / 'config.json')!r} does not fit the weights beside it: {wrong}")


def _read_once(file: Path, cache: Cache | None) -> None:
    """Reads a file that must hold an object, unless it was read before and has not changed."""
    if cache is None:
        read_object(file)
        return
    key = hashlib.sha256(json.dumps(file_state(file)).encode()).hexdigest()
    if cache.document(_SOUND, key) is None:
        read_object(file)
        cache.add_document(_SOUND, key, "")


def _depth(config: Mapping[str, Any], tensors: Mapping[str, Range]) -> str:
    found = {int(match[1]) for name in tensors if (match := _LAYER.search(name))}
    depth = known_depth(config)
    if depth is None or not found or (len(found) == depth and max(found) == depth - 1):
        return ""
    missing = next((layer for layer in range(depth) if layer not in found), None)
    has = f"layer {missing} has none" if missing is not None else f"there are some of layer {max(found)}"
    return f"num_hidden_layers gives {depth} layers, but {has}"


def _sizes(config: Mapping[str, Any], outer: Outer, tensors: Mapping[str, Range]) -> str:
    for name in (outer.embed, outer.head):
        expected = (config.get("vocab_size"), config.get(outer.width))
        if name in tensors and None not in expected and tensors[name].shape != expected:
            return f"vocab_size and {outer.width} give {list(expected)}, but {name} is {list(tensors[name].shape)}"
    return ""


def _tying(config: Mapping[str, Any], outer: Outer, tensors: Mapping[str, Range]) -> str:
    if not is_tied(config) or not {outer.embed, outer.head} <= tensors.keys():
        return ""
    one, other = tensors[outer.embed], tensors[outer.head]
    if one.dtype == other.dtype and _same_bytes(one, other):
        return ""
    return f"tie_word_embeddings is true, but {outer.head} is stored and differs from {outer.embed}"


def _same_bytes(one: Range, other: Range) -> bool:
    if one.end - one.begin != other.end - other.begin:
        return False
    with one.path.open("rb") as first, other.path.open("rb") as second:
        first.seek(one.begin)
        second.seek(other.begin)
        left = one.end - one.begin
        while left > 0:
            size = min(left, 1 << 20)
            if first.read(size) != second.read(size):
                return False
            left -= size
    return True


def check_finite(tensors: Mapping[str, Range]) -> None:
    """Reads every weight; raises :class:`LayerswapError` naming the first tensor with NaN or infinite values."""
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS and (bad := _not_finite(tensor)):
            raise LayerswapError(
                f"{str(tensor.path)!r} is damaged or of a training that diverged: {name} holds NaN or infinite values, "
                f"the first at place {bad - 1:,}"
            )


def _not_finite(tensor: Range) -> int:
    """Where the first NaN or infinity is, counted from 1; 0 if there is none. Without numpy: a swap needs none.

    Bytes with the exponent are looked for first, which is fast: of sound weights hardly one is a candidate.
    """
    width, high, ones, code = _FLOATS[tensor.dtype]
    left, start = tensor.end - tensor.begin, 0
    with tensor.path.open("rb") as stream:
        stream.seek(tensor.begin)
        while left > 0:
            data = stream.read(min(left, _BLOCK))
            if not data:
                raise LayerswapError(f"{str(tensor.path)!r} is cut off")
            tops = data[width - 1 :: width]
            if any(top in tops for top in high):
                for place, (bits,) in enumerate(struct.iter_unpack(code, data)):
                    if bits & ones == ones:
                        return start + place + 1
            left, start = left - len(data), start + len(data) // width
    return 0
