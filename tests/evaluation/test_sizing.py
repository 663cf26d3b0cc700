"""How large batches are on a CPU."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.evaluation.sizing import DECODING, sizes_of


@pytest.mark.parametrize(("memory", "expected"), [(10**9, DECODING), (2 * 100 * 12_000, 12_000), (2 * 100, None)])
def test_decoding_keeps_to_the_memory_and_goes_on_with_little(memory, expected, monkeypatch):
    monkeypatch.setattr("harness.evaluation.sizing.bytes_of_a_token", lambda *_: 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    config = LlamaConfig(
        vocab_size=61, hidden_size=80, intermediate_size=216, num_hidden_layers=2, num_attention_heads=4
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    sizes = sizes_of(model, 64, memory, "cpu")
    assert sizes.threads == 2
    assert sizes.decoding == (expected or 2 * sizes.tokens)
