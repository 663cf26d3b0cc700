from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.places import EMBEDDED_WEIGHTS
from harness.tuning.packing import IGNORED, Collator, Encoded, check_apart, encode, pack, sequences
from harness.tuning.records import Text


def spans(tokenizer, encoded: Encoded) -> tuple[list[str], list[str]]:
    """The tokens, and those that are learnt."""
    learnt = [i for i in encoded.labels if i != IGNORED]
    return tokenizer.convert_ids_to_tokens(encoded.ids), tokenizer.convert_ids_to_tokens(learnt)


def test_of_a_prompt_with_completion_only_that_and_the_end_are_learnt(tokenizer):
    (one, two), left = encode(
        [Text("asha ana vitabu 3 .", ((9, 19),)), Text("asha ana", ((0, 8),))], tokenizer, max_length=16
    )
    assert spans(tokenizer, one) == (["asha", "ana", "vitabu", "3", ".", "</s>"], ["vitabu", "3", ".", "</s>"])
    assert spans(tokenizer, two) == (["asha", "ana", "</s>"], ["ana", "</s>"])  # nothing predicts the first
    assert left == 0


def test_a_chat_has_all_its_special_tokens_already(tokenizer):
    ((one,), _) = encode([Text("asha ana", ((5, 8),), chat=True)], tokenizer, 16)
    assert spans(tokenizer, one) == (["asha", "ana"], ["ana"])


def test_long_texts_become_several_sequences_and_long_answers_are_left_out(tokenizer):
    text = "asha ana vitabu 3 . " * 4
    found, left = encode([Text(text, ((0, len(text)),)), Text(text, ((9, len(text)),))], tokenizer, 8)
    assert [len(e.ids) for e in found] == [8, 8, 5]
    assert left == 1


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packs_hold_every_record_once_and_never_too_much(lengths):
    bins = pack(lengths, 50)
    assert sorted(i for group in bins for i in group) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in group) <= 50 for group in bins)
    assert sum(sum(lengths[i] for i in group) <= 25 for group in bins) <= 1  # two such would have been one


def records(tokenizer) -> list[Encoded]:
    texts = ["asha ana vitabu 3 .", "asha has 3 books . asha is at home .", "[text] asha ana ndizi 2 ."]
    return encode([Text(t, ((5, len(t)),)) for t in texts], tokenizer, 64)[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_record_is_read_as_if_it_were_alone(tokenizer, attention):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_WEIGHTS / "base", attn_implementation=attention)
    model.config.use_cache = False
    some = records(tokenizer)
    check_apart(model, some)
    rows = [*sequences(some[:2], 64, packing=True), *sequences(some[2:], 64, packing=True)]
    assert [len(row) for row in rows] == [2, 1]  # the second is padded
    with torch.inference_mode():
        packed = model(**Collator(0, True)(rows))
        alone = [model(**Collator(0, False)([(one,)])) for one in some]
    order = [some.index(record) for record in rows[0]]
    expected = torch.cat([alone[i].logits[0] for i in order])
    assert torch.allclose(packed.logits[0], expected, atol=1e-4)
    assert torch.allclose(packed.logits[1, : len(some[2].ids)], alone[2].logits[0], atol=1e-4)
    counts = [sum(label != IGNORED for label in one.labels) for one in some]
    mean = sum(a.loss.item() * n for a, n in zip(alone, counts, strict=True)) / sum(counts)
    assert packed.loss.item() == pytest.approx(mean, abs=1e-5)


def test_a_model_that_mixes_records_is_refused(tokenizer):
    from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_WEIGHTS / "base")
    with pytest.raises(LayerswapError, match=r"LlamaForCausalLM does not keep records apart .* --packing false"):
        check_apart(model, records(tokenizer))  # its cache is on
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, state_size=4)
    with pytest.raises(LayerswapError, match=r"MambaForCausalLM .* --packing false"):
        check_apart(MambaForCausalLM(config), records(tokenizer))
