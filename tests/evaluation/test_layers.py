"""Quicker layers give transformers' own numbers, bit for bit where they are not small."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama import modeling_llama

from harness.evaluation import layers
from harness.evaluation.layers import quick_classes

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "scaled": {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0},
        "max_position_embeddings": 64,
    },
}


def model_of(kind: str) -> Any:
    torch.manual_seed(1)
    settings = {"max_position_embeddings": 128} | KINDS[kind]
    config = LlamaConfig(
        vocab_size=61, hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, **settings
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():  # norms and biases too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def quickened(model: Any) -> Any:
    quick = copy.deepcopy(model)
    classes = quick_classes(sdpa_attention_forward)
    changed = [module for module in quick.modules() if type(module) in classes]
    for module in changed:
        module.__class__ = classes[type(module)]
    assert len(changed) == 3 * 5 + 1  # in each layer itself, attention, MLP and two norms; and the last norm
    return quick


def asked(kind: str) -> dict[str, Any]:
    ids = torch.randint(3, 61, (5, 17), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return {
        "chains": {"input_ids": ids},
        "padded": {"input_ids": ids, "attention_mask": mask},
        "positions": {"input_ids": ids, "position_ids": (torch.arange(17)[None] + torch.arange(5)[:, None])},
    }[kind]


@pytest.fixture(params=["small", "large"])
def agree(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether logits are those of transformers: all bits where layers count as large."""
    if request.param == "small":
        return partial(torch.allclose, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(layers, "SMALL", 0)
    return torch.equal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["chains", "padded", "positions"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_logits_are_those_of_transformers(kind: str, given: str, use_cache: bool, agree: Callable[..., bool]) -> None:
    plain = model_of(kind)
    quick = quickened(plain)
    with torch.inference_mode():
        found, expected = (model(**asked(given), use_cache=use_cache).logits for model in (quick, plain))
    joined = [module for module in quick.modules() if "joined" in module.__dict__]
    assert len(joined) == (0 if use_cache or agree is torch.equal or kind == "biased" else 3)
    assert agree(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_keys_and_values_is_the_same_too(kind: str, agree: Callable[..., bool]) -> None:
    plain = model_of(kind)
    quick = quickened(plain)
    found = []
    for model in (plain, quick):
        with torch.inference_mode():
            first = model(**asked("padded"), use_cache=True)
            mask = torch.cat([asked("padded")["attention_mask"], torch.ones((5, 1), dtype=torch.long)], 1)
            following = first.logits[:, -1].argmax(-1)[:, None]
            again = model(input_ids=following, attention_mask=mask, past_key_values=first.past_key_values)
            found.append(again.logits)
    assert agree(*found)


def test_a_cache_goes_on_outside_of_inference_mode() -> None:
    model = quickened(model_of("plain"))
    ids = asked("chains")["input_ids"]
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False)  # joins
        past = model(input_ids=ids[:, :-1], use_cache=True).past_key_values
    with torch.no_grad():
        found = model(input_ids=ids[:, -1:], past_key_values=past).logits[:, -1]
        assert torch.allclose(found, model(input_ids=ids).logits[:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["replaced", "in place"])
def test_a_projection_that_changes_is_joined_anew(way: str) -> None:
    plain = model_of("grouped")
    quick = quickened(plain)
    found = []
    for model in (plain, quick):
        with torch.inference_mode():
            before = model(**asked("chains"), use_cache=False).logits
        keys = model.model.layers[1].self_attn.k_proj
        with torch.no_grad():
            if way == "replaced":
                keys.weight = torch.nn.Parameter(2 * keys.weight)
            else:
                keys.weight.mul_(2)
        with torch.inference_mode():
            found.append(model(**asked("chains"), use_cache=False).logits)
        assert not torch.allclose(found[-1], before, rtol=1e-3, atol=1e-3)
    assert torch.allclose(*found, rtol=1e-5, atol=1e-5)


def test_outside_of_inference_mode_nothing_is_changed() -> None:
    plain = model_of("plain")
    quick = quickened(plain)
    seen: list[str] = []
    quick.model.layers[0].self_attn.register_forward_hook(lambda *_: seen.append("attention"))
    with torch.no_grad():
        assert torch.equal(quick(**asked("chains")).logits, plain(**asked("chains")).logits)
    assert seen
    quick(**asked("chains"), labels=asked("chains")["input_ids"]).loss.backward()
    assert all(parameter.grad is not None for parameter in quick.parameters())


def test_code_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, hidden_states: Any, more: Any) -> None: ...

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", forward)
    assert quick_classes(lambda *_, **__: None) == {}  # type: ignore[arg-type, return-value]
