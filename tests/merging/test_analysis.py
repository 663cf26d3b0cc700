from __future__ import annotations

import math

import pytest
import torch

from harness.errors import LayerswapError
from harness.experts import as_expert
from harness.merging.analysis import _kind, changes, totals
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
    assert [(row.expert, row.slot, row.kind) for row in changed] == [("math", "layers.1", "self_attn.q_proj")]
    tensor = experts["base"].model.state_dict()[name]
    assert changed[0].absolute_sum == pytest.approx(0.5 * tensor.numel(), rel=1e-5)
    by_slot = {row.slot: row for row in totals(rows, "slot")}
    assert by_slot["layers.0"].relative == 0.0
    assert 0 < by_slot["layers.1"].mean_absolute < 0.5


def test_relative_change_is_a_ratio_of_norms():
    experts, _ = moved()
    base, other = (experts[name].model.state_dict() for name in ("base", "math"))
    names = [name for name in base if name.startswith("model.layers.1.self_attn.q_proj.")]
    delta = math.sqrt(sum(float((other[n] - base[n]).square().sum()) for n in names))
    start = math.sqrt(sum(float(base[n].square().sum()) for n in names))
    row = next(row for row in changes(experts) if (row.slot, row.kind) == ("layers.1", "self_attn.q_proj"))
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
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    mlp = [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    norms = ["input_layernorm", "post_attention_layernorm"]
    assert [row.kind for row in rows] == ["embed", *attention, *mlp, *norms, "norm"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kind_is_in_every_layer_and_names_no_number_and_no_parameter(architecture):
    rows = [row for row in changes(moved(architecture)[0]) if row.slot.startswith("layers.")]
    kinds = {row.kind for row in rows}
    assert len(rows) == LAYERS * len(kinds)
    assert not any(part in ("weight", "bias") or part.isdigit() for kind in kinds for part in kind.split("."))


def test_the_experts_of_a_mixture_are_one_kind_and_a_bare_parameter_keeps_its_name():
    assert _kind("3.mlp.experts.17.gate_proj.weight") == "mlp.experts.*.gate_proj"
    assert _kind("3.mlp.experts.gate_up_proj") == "mlp.experts.gate_up_proj"
    assert _kind("0.weight") == "weight"


def test_a_missing_base_is_named():
    with pytest.raises(LayerswapError, match="base 'start' is not loaded: loaded are base, math"):
        changes(moved()[0], "start")
