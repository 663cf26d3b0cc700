"""Damaged weights: safetensors files, their headers, the index of shards, pickles, and numbers that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.damage.case import (
    ANALYZE,
    DOCTOR,
    MATH,
    SHARDED,
    TENSOR,
    WEIGHTS,
    Case,
    Change,
    content,
    cut,
    edited,
    entry,
    header,
    linked,
    several,
    tensors,
    updated,
    without,
)

FILE = r"models/math/model\.safetensors"
INDEX = "sharded/math/model.safetensors.index.json"
SHARD = "model-00001-of-00004.safetensors"
NAMED = r"sharded/math/model\.safetensors\.index\.json"


def _drop(name: str) -> Change:
    return tensors(WEIGHTS, lambda found: found.pop(name))


def _make(name: str, edit: Any) -> Change:
    return tensors(WEIGHTS, lambda found: found.update({name: edit(found[name])}))


def _put(value: str, path: str = WEIGHTS, name: str = TENSOR) -> Change:
    def edit(found: dict[str, Any]) -> None:
        found[name].view(-1)[7] = float(value)

    return tensors(path, edit)


def _half(path: str, name: str, value: str, dtype: str) -> Change:
    """All experts in another dtype, and one number of one of them none."""

    def change(at: Path) -> None:
        import torch

        for folder in ("base", "math", "language"):
            for file in (at / "models" / folder).glob("*.safetensors"):
                tensors(
                    str(file), lambda found: found.update({k: v.to(getattr(torch, dtype)) for k, v in found.items()})
                )(at)
            updated(f"models/{folder}/config.json", dtype=dtype)(at)
        _put(value, path, name)(at)

    return change


def _raw(size: int, text: bytes = b"") -> Change:
    return content(WEIGHTS, size.to_bytes(8, "little") + text)


def _sparse(at: Path) -> None:
    with (at / WEIGHTS).open("wb") as file:
        file.write((3 << 30).to_bytes(8, "little"))
        file.truncate(4 << 30)


def _folder(at: Path) -> None:
    (at / WEIGHTS).unlink()
    (at / WEIGHTS).mkdir()


def _pipe(at: Path) -> None:
    (at / WEIGHTS).unlink()
    os.mkfifo(at / WEIGHTS)


def _dangling(at: Path) -> None:
    (at / WEIGHTS).unlink()
    (at / WEIGHTS).symlink_to("nowhere")


def _shift(entries: dict[str, Any], by: int) -> None:
    for part in [part for name, part in entries.items() if name != "__metadata__"][5:]:
        part["data_offsets"] = [place + by for place in part["data_offsets"]]


def _twice(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries)
    return (text[:-1] + f', "{TENSOR}": {json.dumps(entries[TENSOR])}}}').encode()


SAFETENSORS = (
    Case("empty file", content(WEIGHTS, b""), FILE),
    Case("seven bytes", content(WEIGHTS, b"\1\2\3\4\5\6\7"), FILE),
    Case("cut in the header", cut(WEIGHTS, 200), FILE),
    Case("cut in half", cut(WEIGHTS, 0.5), FILE),
    Case("cut by a byte", cut(WEIGHTS, -1), FILE),
    Case("cut by a byte, analyzed", cut(WEIGHTS, -1), FILE, ANALYZE),
    Case("cut by a byte, examined", cut(WEIGHTS, -1), FILE, DOCTOR),
    Case("bytes behind the end", lambda at: (at / WEIGHTS).open("ab").write(b"more"), FILE),
    Case("header of no bytes", _raw(0), FILE),
    Case("header longer than the file", _raw(1 << 20, b"{}"), FILE),
    Case("header of 2**63 bytes", _raw(1 << 63, b"{}"), FILE),
    Case("header of 2**64 - 1 bytes", _raw((1 << 64) - 1, b"{}"), FILE),
    Case("header of three gigabytes", _sparse, FILE),
    Case("header is no JSON", header(WEIGHTS, lambda _: b"{not json}"), FILE),
    Case("header is a list", header(WEIGHTS, lambda _: b"[1, 2]"), FILE),
    Case("header is a number", header(WEIGHTS, lambda _: b"17"), FILE),
    Case("header is null", header(WEIGHTS, lambda _: b"null"), FILE),
    Case("header in Latin-1", header(WEIGHTS, lambda _: b'{"\xe9": 1}'), FILE),
    Case("header nested deep", header(WEIGHTS, lambda _: b"[" * 100_000), FILE),
    Case("header without tensors", header(WEIGHTS, lambda _: b"{}"), FILE),
    Case("header with metadata alone", header(WEIGHTS, lambda _: b'{"__metadata__": {}}'), FILE),
    Case("metadata is a list", header(WEIGHTS, lambda h: h.update(__metadata__=[1])), FILE),
    Case("entry without dtype", entry(dtype=None), f"{FILE}.*{TENSOR}"),
    Case("entry without shape", entry(shape=None), f"{FILE}.*{TENSOR}"),
    Case("entry without place", entry(data_offsets=None), f"{FILE}.*{TENSOR}"),
    Case("entry is a text", header(WEIGHTS, lambda h: h.update({TENSOR: "text"})), f"{FILE}.*{TENSOR}"),
    Case("dtype unknown", entry(dtype="F7"), f"{FILE}.*{TENSOR}.*F7"),
    Case("dtype is a number", entry(dtype=32), f"{FILE}.*{TENSOR}"),
    Case("dtype is a list", entry(dtype=["F32"]), f"{FILE}.*{TENSOR}"),
    Case("shape is a number", entry(shape=5), f"{FILE}.*{TENSOR}"),
    Case("shape of texts", entry(shape=["48", "32"]), f"{FILE}.*{TENSOR}"),
    Case("shape of fractions", entry(shape=[48.0, 32.0]), f"{FILE}.*{TENSOR}"),
    Case("shape below zero", entry(shape=[-48, -32]), f"{FILE}.*{TENSOR}"),
    Case("shape of 2**62", entry(shape=[1 << 62, 1 << 62]), f"{FILE}.*{TENSOR}"),
    Case("shape of other size", entry(shape=[48, 31]), f"{FILE}.*{TENSOR}"),
    Case("places reversed", entry(data_offsets=[2000, 1000]), f"{FILE}.*{TENSOR}"),
    Case("places below zero", entry(data_offsets=[-6144, 0]), f"{FILE}.*{TENSOR}"),
    Case("places are texts", entry(data_offsets=["0", "6144"]), f"{FILE}.*{TENSOR}"),
    Case("places are fractions", entry(data_offsets=[0.5, 6144.5]), f"{FILE}.*{TENSOR}"),
    Case("three places", entry(data_offsets=[0, 6144, 1]), f"{FILE}.*{TENSOR}"),
    Case("place behind the end", entry(data_offsets=[1 << 40, (1 << 40) + 6144]), FILE),
    Case("tensors overlap", entry(data_offsets=[0, 6144]), f"{FILE}.*overlap"),
    Case(
        "a hole between tensors",
        several(header(WEIGHTS, lambda h: _shift(h, 4)), lambda at: (at / WEIGHTS).open("ab").write(b"more")),
        FILE,
    ),
    Case("a tensor twice", header(WEIGHTS, _twice), f"{FILE}.*{TENSOR}"),
    Case(
        "a line break in a name",
        tensors(WEIGHTS, lambda t: t.update({"a\nerror: b": t[TENSOR] + 1})),
        FILE + r".*a\\nerror",
    ),
    Case("a tensor is missing", _drop(TENSOR), f"math.*{TENSOR}"),
    Case("a tensor is missing, examined", _drop(TENSOR), f"math.*{TENSOR}", DOCTOR),
    Case("a tensor is missing, analyzed", _drop(TENSOR), f"math.*{TENSOR}", ANALYZE),
    Case("a tensor too many", tensors(WEIGHTS, lambda t: t.update(more=t[TENSOR] + 1)), "math.*more"),
    Case("a tensor by another name", tensors(WEIGHTS, lambda t: t.update(other=t.pop(TENSOR))), "math.*other"),
    Case("a tensor of another dtype", _make(TENSOR, lambda t: t.half()), f"math.*{TENSOR}: float32 against float16"),
    Case("a tensor of integers", _make(TENSOR, lambda t: t.int()), f"math.*{TENSOR}: float32 against int32"),
    Case("a tensor turned", _make(TENSOR, lambda t: t.T), rf"math.*{TENSOR}: \[48, 32\] against \[32, 48\]"),
    Case(
        "another vocabulary",
        _make("model.embed_tokens.weight", lambda t: t[:60]),
        r"models/math/config\.json.*vocab_size.*embed_tokens.*\[60, 32\]",
    ),
    Case("no weights", without(WEIGHTS), "models/math"),
    Case("no weights, examined", without(WEIGHTS), "expert math.*models/math", DOCTOR),
    Case("weights are a folder", _folder, "models/math"),
    Case("weights are a pipe", _pipe, "models/math"),
    Case("weights are a link to nothing", _dangling, "models/math"),
    Case(
        "a pointer of Git LFS",
        content(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
        f"{FILE}.*Git LFS",
    ),
    Case("a page of HTML", content(WEIGHTS, "<!DOCTYPE html><html>404</html>"), FILE),
    Case("a link out of the folder", linked(WEIGHTS, "elsewhere/private.safetensors"), f"{FILE}.*leads out of"),
)

PICKLED = (
    Case(
        "a pickle alone",
        lambda at: (at / WEIGHTS).rename(at / MATH / "pytorch_model.bin"),
        r"pytorch_model\.bin.*pickle",
    ),
    Case(
        "a pickle alone, analyzed",
        lambda at: (at / WEIGHTS).rename(at / MATH / "pytorch_model.bin"),
        r"pytorch_model\.bin.*pickle",
        ANALYZE,
    ),
    Case(
        "a pickle alone, examined",
        lambda at: (at / WEIGHTS).rename(at / MATH / "pytorch_model.bin"),
        r"pytorch_model\.bin.*pickle",
        DOCTOR,
    ),
    Case(
        "consolidated .pth",
        lambda at: (at / WEIGHTS).rename(at / MATH / "consolidated.00.pth"),
        r"consolidated\.00\.pth.*pickle",
    ),
    Case(
        "a pickle under the other name",
        content(WEIGHTS, b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."),
        FILE,
    ),
    Case(
        "shards of pickles",
        several(
            edited(
                INDEX,
                lambda d: d.update(
                    weight_map={n: f.replace(".safetensors", ".bin") for n, f in d["weight_map"].items()}
                ),
            ),
            lambda at: (at / "sharded/math" / SHARD).rename(
                at / "sharded/math" / SHARD.replace(".safetensors", ".bin")
            ),
        ),
        NAMED,
        SHARDED,
    ),
)

NONFINITE = (
    Case("NaN", _put("nan"), f"{FILE}.*{TENSOR}.*NaN"),
    Case("infinity", _put("inf"), f"{FILE}.*{TENSOR}.*infinite"),
    Case("minus infinity", _put("-inf"), f"{FILE}.*{TENSOR}.*infinite"),
    Case("NaN in the base", _put("nan", "models/base/model.safetensors"), rf"models/base/model\.safetensors.*{TENSOR}"),
    Case("NaN in a norm", _put("nan", name="model.norm.weight"), f"{FILE}.*model.norm.weight"),
    Case("NaN, analyzed", _put("nan"), f"math.*{TENSOR}.*NaN", ANALYZE),
    Case("NaN, examined", _put("nan"), f"{FILE}.*{TENSOR}.*NaN", DOCTOR),
    Case("NaN in bfloat16", _half(WEIGHTS, TENSOR, "nan", "bfloat16"), f"{FILE}.*{TENSOR}"),
    Case("infinity in float16", _half(WEIGHTS, TENSOR, "inf", "float16"), f"{FILE}.*{TENSOR}"),
    Case(
        "NaN in a shard",
        lambda at: _put("nan", f"sharded/math/{_shard_of(at)}")(at),
        f"sharded/math/model-.*{TENSOR}",
        SHARDED,
    ),
    Case(
        "NaN in the adapter",
        tensors("adapter/adapter_model.safetensors", lambda t: [x.fill_(float("nan")) for x in t.values()]),
        "adapter.*NaN",
        "merge 'expert(\"math\")' --base models/base --expert math=adapter --out out",
    ),
)


def _shard_of(at: Path) -> str:
    return str(json.loads((at / INDEX).read_text("utf-8"))["weight_map"][TENSOR])


def _to(place: str) -> Change:
    """The index looks for a tensor there."""
    return edited(INDEX, lambda data: data["weight_map"].update({TENSOR: place}))


def _other(at: Path) -> None:
    """The index says that a tensor is in another shard than it is."""
    index = json.loads((at / INDEX).read_text("utf-8"))["weight_map"]
    others = sorted(set(index.values()) - {index[TENSOR]})
    _to(others[0])(at)


SHARDS = (
    Case("index is empty", content(INDEX, ""), NAMED, SHARDED),
    Case("index is no JSON", content(INDEX, "{"), NAMED, SHARDED),
    Case(
        "index is no JSON, examined",
        several(
            lambda at: (at / INDEX).rename(at / MATH / "model.safetensors.index.json"),
            content(f"{MATH}/model.safetensors.index.json", "{"),
        ),
        r"math/model\.safetensors\.index\.json",
        DOCTOR,
    ),
    Case("index in UTF-16", lambda at: (at / INDEX).write_text((at / INDEX).read_text(), "utf-16"), NAMED, SHARDED),
    Case("index is a list", content(INDEX, "[]"), NAMED, SHARDED),
    Case("index nested deep", content(INDEX, "[" * 100_000), NAMED, SHARDED),
    Case(
        "index without weight_map", edited(INDEX, lambda d: d.pop("weight_map") and d), f"{NAMED}.*weight_map", SHARDED
    ),
    Case("weight_map is a list", updated(INDEX, weight_map=["a"]), f"{NAMED}.*weight_map", SHARDED),
    Case("weight_map is empty", updated(INDEX, weight_map={}), f"{NAMED}.*weight_map", SHARDED),
    Case("a shard is a number", _to(3), f"{NAMED}.*{TENSOR}", SHARDED),  # type: ignore[arg-type]
    Case("a shard is null", _to(None), f"{NAMED}.*{TENSOR}", SHARDED),  # type: ignore[arg-type]
    Case("a shard has no name", _to(""), f"{NAMED}.*{TENSOR}", SHARDED),
    Case(
        "a shard in the folder above",
        several(
            lambda at: (at / "sharded" / "outside.safetensors").write_bytes((at / WEIGHTS).read_bytes()),
            _to("../outside.safetensors"),
        ),
        rf"{NAMED}.*\.\./outside",
        SHARDED,
    ),
    Case("a shard at the root", lambda at: _to(str(at / WEIGHTS))(at), f"{NAMED}.*{TENSOR}", SHARDED),
    Case("a shard by a Windows path", _to("..\\x.safetensors"), NAMED, SHARDED),
    Case("a shard with a zero byte", _to("a\0b.safetensors"), NAMED, SHARDED),
    Case("a shard with a name of 5,000 letters", _to("a" * 5000), NAMED, SHARDED),
    Case("a shard is the folder", _to("."), NAMED, SHARDED),
    Case(
        "a shard leads out by a link",
        linked(f"sharded/math/{SHARD}", "elsewhere/private.safetensors"),
        f"{SHARD}.*leads out of",
        SHARDED,
    ),
    Case("a shard is missing", without(f"sharded/math/{SHARD}"), SHARD, SHARDED),
    Case("a shard is cut off", cut(f"sharded/math/{SHARD}", 0.5), SHARD, SHARDED),
    Case(
        "a tensor is in no shard",
        edited(INDEX, lambda d: d["weight_map"].update(more=SHARD)),
        f"{NAMED}.*more",
        SHARDED,
    ),
    Case("a tensor is in another shard", _other, f"{NAMED}.*{TENSOR}", SHARDED),
    Case(
        "a tensor is in two shards",
        lambda at: tensors(f"sharded/math/{SHARD}", lambda t: t.update({TENSOR: t[next(iter(t))] * 0}))(at),
        TENSOR,
        SHARDED,
    ),
    Case(
        "a shard too few in the index",
        edited(INDEX, lambda d: [d["weight_map"].pop(n) for n, f in list(d["weight_map"].items()) if f == SHARD] and d),
        "math",
        SHARDED,
    ),
)
