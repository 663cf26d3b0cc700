from __future__ import annotations

import ctypes
import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from harness.merging.headers import read_ranges
from harness.merging.ranges import reserve
from harness.merging.writing import Planned, write_tensors

PAGE = 4096


def stored(path: Path, sizes: list[int], note: str) -> None:
    """A safetensors file of int64 tensors, whose header grows with ``note``."""
    save_file({f"t{i:03}": torch.arange(size) + i for i, size in enumerate(sizes)}, path, {"note": note})


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A system that will not set room aside, for the reason of this number."""

    def refused(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    class Library:
        fallocate = refused

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: Library)


def header_of(path: Path) -> tuple[int, bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return 8 + size, data[8 : 8 + size]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_copied_lies_in_its_pages_as_in_the_source_and_is_what_it_was(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("writing")
    sizes = data.draw(st.lists(st.integers(0, 2000), min_size=1, max_size=8))
    notes = [data.draw(st.text("x", max_size=5000)) for _ in range(2)]
    for name, note in zip("ab", notes, strict=True):
        stored(folder / name, sizes, note)
    sources = [read_ranges(folder / name) for name in "ab"]
    chosen = {name: data.draw(st.sampled_from(sources))[name] for name in sources[0]}
    tensors = {name: Planned(part.dtype, part.shape, part) for name, part in chosen.items()}
    write_tensors(folder / "out", tensors)
    start, text = header_of(folder / "out")
    assert start % 8 == 0
    json.loads(text)
    expected = {name: load_file(part.path)[name] for name, part in chosen.items()}
    found = load_file(folder / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    moved: dict[int, int] = {}
    for name, part in read_ranges(folder / "out").items():
        shift = (part.begin - chosen[name].begin) % PAGE
        moved[shift] = moved.get(shift, 0) + part.end - part.begin
    assert moved[0] == max(moved.values()), "most bytes are where they were in their pages"


def test_what_is_made_is_aligned_to_8_bytes(tmp_path):
    write_tensors(tmp_path / "out", {"a": Planned("float32", (2,), lambda: [memoryview(b"12345678")])})
    assert header_of(tmp_path / "out")[0] % 8 == 0
    assert read_ranges(tmp_path / "out")["a"].shape == (2,)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_has_not_so_much_is_named(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="file") as caught:
        reserve(file, 100)
    assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EFBIG])
def test_what_cannot_be_set_aside_is_written_all_the_same(tmp_path, monkeypatch, number):
    refusing(monkeypatch, number)
    stored(tmp_path / "a", [5], "")
    tensors = {name: Planned(part.dtype, part.shape, part) for name, part in read_ranges(tmp_path / "a").items()}
    write_tensors(tmp_path / "out", tensors)
    assert load_file(tmp_path / "out")["t000"].tolist() == [0, 1, 2, 3, 4]


def test_a_reserved_file_is_as_long_as_what_was_written(tmp_path):
    with (tmp_path / "file").open("wb", buffering=0) as file:
        reserve(file, 1 << 20)
        file.write(b"short")
    assert (tmp_path / "file").read_bytes() == b"short"
