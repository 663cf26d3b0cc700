from __future__ import annotations

import math

import pytest
import torch

from harness.errors import LayerswapError
from harness.experts import as_expert
from harness.merging.analysis import changes, totals
from tests.merging.models import ARCHITECTURES, LAYERS, tiny_model


def moved(architecture: str = "llama", tied: bool = True):
    base, other = (tiny_model(architecture, tied) for _ in range(2))
    state = other.state_dict()
    name = next(key for key in state if ".1." in key and key.endswith("weight") and state[key].dim() == 2)
    with torch.no_grad():
        state[name].add_(0.5)
    return {"base": as_expert("base", base), "math": as_expert("math", other)}, name


def test_only_what_moved_shows_a_change():
    experts, name = moved()
    rows = changes(experts)
    changed = [row for row in rows if row.squared_sum]
    assert [(row.expert, row.slot, row.kind) for row in changed] == [("math", "layers.1", "self_attn")]
    tensor = experts["base"].model.state_dict()[name]
    assert changed[0].absolute_sum == pytest.approx(0.5 * tensor.numel(), rel=1e-5)
    by_slot = {row.slot: row for row in totals(rows, "slot")}
    assert by_slot["layers.0"].relative == 0.0
    assert 0 < by_slot["layers.1"].mean_absolute < 0.5


def test_relative_change_is_a_ratio_of_norms():
    experts, _ = moved()
    base, other = (experts[name].model.state_dict() for name in ("base", "math"))
    names = [name for name in base if name.startswith("model.layers.1.self_attn.")]
    delta = math.sqrt(sum(float((other[n] - base[n]).square().sum()) for n in names))
    start = math.sqrt(sum(float(base[n].square().sum()) for n in names))
    row = next(row for row in changes(experts) if (row.slot, row.kind) == ("layers.1", "self_attn"))
    assert row.relative == pytest.approx(delta / start, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_counts_once(architecture):
    experts, _ = moved(architecture)
    rows = changes(experts)
    total = sum(parameter.numel() for parameter in experts["base"].model.parameters())
    assert sum(row.parameters for row in rows) == total
    assert sum(row.parameters for row in totals(rows, "kind")) == total
    assert [row.slot for row in totals(rows, "slot")] == ["embed", *(f"layers.{i}" for i in range(LAYERS)), "norm"]


def test_kinds_are_the_layers_own_modules():
    rows = totals(changes(moved()[0]), "kind")
    names = {row.kind for row in rows}
    assert names == {"embed", "norm", "self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def test_a_missing_base_is_named():
    with pytest.raises(LayerswapError, match="base 'start' is not loaded: loaded are base, math"):
        changes(moved()[0], "start")
