from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.errors import LayerswapError
from harness.merging import arithmetic, ranges, selection
from harness.merging.headers import read_folder, read_ranges
from harness.merging.layout import known_places
from harness.merging.storage import open_source, place_tensors
from harness.merging.streams import OPERATIONS, Workspace, merged, model_cut
from harness.merging.writing import Planned, write_tensors
from harness.plan import Mix
from tests.merging.models import ARCHITECTURES, LAYERS, save_experts

SIZES = [1, 7, 1 << 16, (1 << 17) + 33]
MIXES = [
    Mix("linear", (("math", 1.0), ("language", 1.0))),
    Mix("linear", (("math", 0.7), ("language", 0.2), ("base", 0.3))),
    Mix("linear", (("math", 0.25), ("language", 0.75))),
    Mix("task_arithmetic", (("math", 0.6), ("language", 0.3)), (("base", "base"), ("lambda", 0.7))),
    *(
        Mix(
            "ties",
            (("math", weights[0]), ("language", weights[1])),
            (("base", "base"), ("density", density), ("lambda", lambda_), ("normalize", normalize)),
        )
        for weights, density, lambda_, normalize in [
            ((1.0, 1.0), 0.5, 1.0, True),
            ((0.7, 0.4), 0.2, 0.8, True),
            ((1.0, 0.3), 1.0, 1.3, False),
            ((1.0, 0.3), 0.4, 1.0, True),
            ((1.0, 0.0), 0.4, 1.0, True),
        ]
    ),
]


def tensors(size: int, dtype: str, frozen: float = 0.0) -> dict[str, torch.Tensor]:
    """Three related tensors; a share of the entries has not changed from the base."""
    generator = torch.Generator().manual_seed(size)
    base = torch.randn(size, generator=generator)
    made = {"base": base}
    for name in ("math", "language"):
        moved = torch.rand(size, generator=generator) >= frozen
        made[name] = base + 0.05 * torch.randn(size, generator=generator) * moved
    return {name: tensor.to(getattr(torch, dtype)) for name, tensor in made.items()}


def stored(made: dict[str, torch.Tensor], folder: Path) -> dict:
    for name, tensor in made.items():
        save_file({"first": torch.ones(3), "w": tensor}, folder / f"{name}.safetensors")
    return {name: read_ranges(folder / f"{name}.safetensors")["w"] for name in made}


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.text[:60])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
def test_streams_equal_torch_to_the_bit(dtype, mix, held, tmp_path, monkeypatch):
    if not held:
        if mix.operation != "ties":
            pytest.skip("only TIES holds tensors")
        monkeypatch.setattr("harness.merging.streams.HELD", 0)
        monkeypatch.setattr("harness.merging.selection.HELD", 5000)
    assert mix.operation in OPERATIONS
    for size in SIZES:
        for frozen in (0.0, 0.9):
            made = tensors(size, dtype, frozen)
            expected = arithmetic.merge_tensor(mix, "w", made.__getitem__)
            data = b"".join(bytes(block) for block in merged(mix, stored(made, tmp_path), Workspace()))
            assert data == expected.view(torch.uint8).numpy().tobytes(), (size, frozen)


def test_a_fused_product_is_rounded_once(tmp_path):
    # 3 · 2**-24 · (1 + 2**-23) + 1 lies just above half way between two float32s, by less than float64 can hold
    made = {"math": torch.full((64,), 1.0), "language": torch.full((64,), 2.0**-24 * (1 + 2**-23) * 2**-10)}
    mix = Mix("linear", (("math", 1.0), ("language", 1023.9999)))
    expected = arithmetic.merge_tensor(mix, "w", made.__getitem__)
    data = b"".join(bytes(block) for block in merged(mix, stored(made, tmp_path), Workspace()))
    assert data == expected.view(torch.uint8).numpy().tobytes()


def test_infinities_and_nan_stay(tmp_path):
    made = tensors(100, "bfloat16")
    made["math"][3], made["math"][4] = float("inf"), float("nan")
    blocks = b"".join(bytes(block) for block in merged(MIXES[0], stored(made, tmp_path), Workspace()))
    result = torch.frombuffer(bytearray(blocks), dtype=torch.bfloat16)
    expected = arithmetic.merge_tensor(MIXES[0], "w", made.__getitem__)
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result[result == result], expected[expected == expected])


def test_a_model_wide_threshold_equals_torchs(tmp_path):
    pairs, deltas = [], []
    for size in (5000, 70_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        made = tensors(size, "bfloat16", 0.3)
        where = stored(made, folder)
        pairs.append((where["math"], where["base"]))
        deltas.append((made["math"], made["base"]))
    for density in (0.001, 0.5, 0.69, 0.71, 1.0):
        expected = arithmetic.threshold(lambda: (p for a, b in deltas for p in arithmetic.task_vector(a, b)), density)
        assert model_cut(pairs, density) == expected


@given(
    st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=200),
    st.data(),
    st.sampled_from(["all at once", "by a sample", "by bits"]),
)
def test_the_kth_largest(values, data, how):
    keep = data.draw(st.integers(1, len(values)))
    array = np.array(values, np.float32)
    held = selection.HELD
    try:
        selection.HELD = held if how == "all at once" else 0
        found = (
            selection._by_bits(lambda step: iter([array]), keep)
            if how == "by bits"
            else selection.kth_largest(lambda step: iter([array[::step]]), len(values), keep)
        )
    finally:
        selection.HELD = held
    expected = float(np.sort(array)[len(values) - keep])
    assert found == (0.0 if keep == len(values) and how != "by bits" else expected)


def test_many_values_are_selected_from_near_a_sample(monkeypatch):
    monkeypatch.setattr(selection, "HELD", 1 << 15)
    random = np.random.default_rng(0)
    array = np.abs(random.standard_normal(1_000_000, np.float32))
    array[::3] = 0  # ties: too many to hold
    arrays = np.array_split(array, 17)
    for keep in (1, 100, 333_333, 500_000, 700_000, 999_999):
        found = selection.kth_largest(lambda step: (part[::step] for part in arrays), array.size, keep)
        assert found == float(np.partition(array, array.size - keep)[array.size - keep])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_values_in_memory_are_selected_from_by_counting(data):
    """Of numbers that differ, that are mostly equal, that are ordered, or that repeat along the sample's stride."""
    few, size = selection._FEW, data.draw(st.integers(1, 400))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = {
        "differ": lambda: np.abs(random.standard_normal(size)),
        "few": lambda: random.integers(0, data.draw(st.integers(1, 5)), size),
        "mostly 0": lambda: np.where(random.random(size) < 0.9, 0, random.random(size)),
        "ordered": lambda: np.sort(random.random(size)),
        "repeat": lambda: np.arange(size) % data.draw(st.integers(1, 40)),
        "infinite": lambda: np.where(random.random(size) < 0.3, np.inf, random.random(size)),
        "no numbers": lambda: np.where(random.random(size) < 0.1, np.nan, random.random(size)),
    }[data.draw(st.sampled_from(["differ", "few", "mostly 0", "ordered", "repeat", "infinite", "no numbers"]))]()
    values, keep = values.astype(np.float32), data.draw(st.integers(1, size))
    try:
        selection._FEW = data.draw(st.sampled_from([1, 2, 7, 40]))
        found = selection.select(values.copy(), keep)
    finally:
        selection._FEW = few
    expected = 0.0 if keep == size else float(np.sort(values)[size - keep])
    assert found == expected or (np.isnan(found) and np.isnan(expected))


@pytest.mark.parametrize("system", [True, False], ids=["by the system", "through a buffer"])
def test_ranges_are_copied(system, tmp_path, monkeypatch):
    if not system:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(ranges, "_BLOCK", 1000)
    data = bytes(range(256)) * 40
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb", buffering=0) as source, (tmp_path / "b").open("wb", buffering=0) as target:
        ranges.write_all(target, memoryview(b"head"))
        ranges.copy_range(source, 5, 9005, target)
        ranges.copy_range(source, 0, 0, target)
        ranges.write_all(target, memoryview(b"tail"))
        with pytest.raises(LayerswapError, match="cut off"):
            ranges.copy_range(source, 10_000, 20_000, target)
    assert (tmp_path / "b").read_bytes().startswith(b"head" + data[5:9005] + b"tail")


def test_a_system_that_refuses_to_copy_is_no_failure(tmp_path, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    save_file({"a": torch.arange(5), "b": torch.ones(2)}, tmp_path / "in.safetensors")
    found = read_ranges(tmp_path / "in.safetensors")
    planned = {name: Planned(part.dtype, part.shape, part) for name, part in found.items()}
    assert write_tensors(tmp_path / "out.safetensors", planned) == 48
    again = read_ranges(tmp_path / "out.safetensors")
    assert {name: (part.dtype, part.shape) for name, part in again.items()} == {
        name: (part.dtype, part.shape) for name, part in found.items()
    }


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_known_places_are_those_of_the_model(architecture, tied, experts_of, tmp_path, monkeypatch):
    folder = save_experts(experts_of(architecture, tied), tmp_path)["math"]
    donor = open_source(folder, lambda path: lambda: "")
    known = known_places(donor.config, donor.tensors)
    assert known is not None
    assert known.layers == LAYERS
    monkeypatch.setattr("harness.merging.storage.raw_config", lambda folder: None)
    asked = place_tensors(donor)
    assert (known.layers, dict(known.tensors), dict(known.tied)) == (asked.layers, asked.tensors, asked.tied)
    assert list(known.tensors) == list(asked.tensors)
    names = list(read_folder(folder))
    assert known_places(donor.config, names[1:]) is None
    assert known_places(donor.config, [*names, "model.layers.0.self_attn.rotary_emb.inv_freq"]) is None
    assert known_places(donor.config | {"model_type": "another"}, names) is None
