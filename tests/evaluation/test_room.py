from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from harness.errors import LayerswapError
from harness.evaluation.room import TOKENS, USABLE, bytes_of_a_token, divided, work_bytes

GB = 10**9
LLAMA_8B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
)


def test_keys_and_values_of_a_token_of_llama_8b_take_128_kib():
    assert bytes_of_a_token(LLAMA_8B, 2) == 2 * 32 * 8 * 128 * 2 == 128 * 1024


@pytest.mark.parametrize(
    ("free", "experts", "tokens"), [(140, 3, 16384), (80, 3, 16384), (40, 3, 16384), (24, 3, 2048)]
)
def test_an_8b_grid_fits_where_one_model_does(free, experts, tokens):
    room = divided(free * GB, 16 * GB, experts, GB, LLAMA_8B, 2)
    assert room.tokens == tokens
    assert room.weights >= 16 * GB
    assert str(room.decoding // 1000) in room.text


def test_what_experts_leave_goes_to_hidden_states():
    small, large = (divided(free * GB, 16 * GB, 3, 2 * GB, LLAMA_8B, 2) for free in (40, 140))
    assert small.held == GB
    assert large.weights == 48 * GB
    assert large.held == large.computed > 20 * GB


@given(
    free=st.integers(1, 200 * GB),
    model=st.integers(1, 40 * GB),
    experts=st.integers(3, 9),
    memory=st.integers(0, 9 * GB),
)
def test_parts_never_exceed_what_is_free(free, model, experts, memory):
    if model + work_bytes(LLAMA_8B, 2, TOKENS[-1]) + memory > int(USABLE * free):
        with pytest.raises(LayerswapError, match="take a smaller dtype"):
            divided(free, model, experts, memory, LLAMA_8B, 2)
        return
    room = divided(free, model, experts, memory, LLAMA_8B, 2)
    assert model <= room.weights <= experts * model
    used = room.weights + work_bytes(LLAMA_8B, 2, room.tokens) + room.held + room.computed
    assert used <= USABLE * free
