from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.decoding import Ending, Limits, greedy
from harness.evaluation.requests import Stop
from tests.evaluation.architectures import MODELS, model_of
from tests.evaluation.asking import answered, byte_level, encoded, metaspace, questions, words

TOKENIZERS = {"words": words, "byte-level": byte_level, "metaspace": metaspace}
STOPS = {
    "words": ["w5", "w5 w6", "w6 w7", "w4 w5 w6", "w7 ", " w8", "w1"],
    "byte-level": ["\n", "\n\n", "END", "Question :", " ", ". ", "é", "你", "好 世", "ab", "b a", "a an", "return"],
    "metaspace": ["END", "Question :", " ", ". ", "é", "an", "a an", "ana v", "?"],
}


def ours(tokenizer: Any, stop: Stop, stream: Sequence[int]) -> tuple[list[int], str]:
    """The answer of a model that would give ``stream`` if nothing stopped it."""
    ending = Ending(tokenizer, stop)
    tokens: list[int] = []
    for token in stream:
        tokens.append(token)
        if ending.ended(tokens):
            break
    return tokens, ending.text(tokens)


def theirs(tokenizer: Any, stop: Stop, stream: Sequence[int], alone: bool) -> str:
    """What lm-eval makes of it: in a batch ``alone``, or in one with rows that never see a stop text."""
    import torch
    from lm_eval.models.utils import postprocess_generated_text
    from lm_eval.models.utils_hf import stop_sequences_criteria

    criteria = stop_sequences_criteria(tokenizer, list(stop.texts), 0, 1)
    tokens: list[int] = []
    for token in stream[: stop.most]:
        tokens.append(token)
        if token in stop.tokens or (alone and bool(criteria(torch.tensor([tokens]), None).all())):
            break
    return postprocess_generated_text(tokenizer.decode(tokens, skip_special_tokens=True), list(stop.texts), None)


def check(name: str, texts: Sequence[str], stream: Sequence[int], most: int, ends: int = 1) -> None:
    tokenizer = TOKENIZERS[name]()
    eos = tokenizer.eos_token_id
    stop = Stop((*texts, tokenizer.eos_token), (eos, 3, 4)[:ends], most)
    tokens, text = ours(tokenizer, stop, stream)
    alone, among = (theirs(tokenizer, stop, stream, alone) for alone in (True, False))
    # Where stop texts overlap, what lm-eval says depends on the batch.
    assert text in (alone, among)
    if not any(_overlap(a, b) for a in texts for b in texts):
        assert text == alone
    assert len(tokens) <= most


def _overlap(a: str, b: str) -> bool:
    """Whether ``b`` may begin inside ``a`` and not end there."""
    return a != b and (b in a or a in b or any(b.startswith(a[i:]) for i in range(1, len(a))))


@st.composite
def streams(draw: st.DrawFn, name: str) -> tuple[list[str], list[int]]:
    """Stop texts, and tokens in which they come often, in their own tokens or in others."""
    tokenizer = TOKENIZERS[name]()
    texts = draw(st.lists(st.sampled_from(STOPS[name]), min_size=1, max_size=3, unique=True))
    token = st.integers(0, len(tokenizer) - 1).map(lambda t: [t])
    written = st.sampled_from([*texts, *(t[:-1] for t in texts), *(t[1:] for t in texts), "a", "END"])
    parts = st.one_of(token, written.map(lambda t: list(tokenizer.encode(t, add_special_tokens=False))))
    return texts, [t for part in draw(st.lists(parts, min_size=1, max_size=8)) for t in part] or [5]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=120)
def test_an_answer_ends_and_is_cut_as_lm_eval_does(name, data):
    texts, stream = data.draw(streams(name))
    check(name, texts, stream, data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3)))


@pytest.mark.parametrize(
    ("name", "texts", "written", "expected"),
    [
        ("words", ["w5 w6"], "w9 w5 w7 w5 w6 w8", "w9 w5 w7 "),
        ("words", ["w6 w7", "w4 w5 w6"], "w9 w4 w5 w6 w7 w1", "w9 "),
        ("words", ["w1"], "w9 w8 w12 w3", "w9 w8 "),  # inside a word
        ("words", ["w7 "], "w9 w7", "w9 w7"),  # the space comes with the next word
        ("words", ["w7 "], "w9 w7 w8 w8", "w9 "),
        ("words", [], "w9 w8 </s> w3", "w9 w8"),
        ("byte-level", ["\n\n"], "a\nb\n\nc", "a\nb"),
        ("byte-level", ["世"], "你好 世界", "你好 "),
        ("byte-level", ["é"], "caf\u00e9 x", "caf"),
        ("byte-level", [". "], "it is . Is it ?", "it is "),
        ("byte-level", ["Question :", "END"], "12\nQuestion : END", "12\n"),
        ("metaspace", ["END"], "a an END stop", "a an "),
    ],
)
def test_answers_are_cut_at_stop_texts(name, texts, written, expected):
    tokenizer = TOKENIZERS[name]()
    stream = tokenizer.encode(written, add_special_tokens=False)
    stop = Stop((*texts, tokenizer.eos_token), (tokenizer.eos_token_id,), 99)
    assert ours(tokenizer, stop, stream)[1] == expected
    check(name, texts, stream, 99)


def test_nothing_is_read_beyond_the_end():
    tokenizer = words()
    stop = Stop(("w5 w6", "</s>"), (2, 3), 4)
    for written, count in (("w9 w5 w6 w7", 3), ("w9 w3 w7", 2), ("</s> w9", 1), ("w9 w9 w9 w9 w9", 4)):
        assert len(ours(tokenizer, stop, tokenizer.encode(written))[0]) == count
    assert not Ending(tokenizer, stop).ended([])
    assert Ending(tokenizer, Stop((), (), 1)).ended([9])
    assert not Ending(tokenizer, Stop(("",), (), 2)).ended([9])


def test_a_stop_that_began_before_another_is_waited_for():
    tokenizer = words()
    ending = Ending(tokenizer, Stop(("w4 w5 w6", "w5"), (), 99))
    assert not ending.ended([9, 4, 5])  # lm-eval cuts at the text that it lists first
    assert ending.ended([9, 4, 5, 6])
    assert ending.text([9, 4, 5, 6]) == "w9 "
    assert ending.ended([9, 4, 5, 7])
    assert ending.text([9, 4, 5, 7]) == "w9 w4 "


SMALL = Limits(3, 10_000)


def prompts_of(seed: int) -> list[str]:
    """Some that begin alike, some that do not, of many lengths."""
    random = Random(seed)
    stem = " ".join(f"w{random.randrange(5, 61)}" for _ in range(20))
    tails = [" ".join(f"w{random.randrange(5, 61)}" for _ in range(random.randrange(1, 9))) for _ in range(5)]
    return [f"{stem} {tail}" for tail in tails]


def greedily(model: Any, instances: Sequence[Any], begun: int = 0, limits: Limits = SMALL) -> list[str]:
    requests = encoded(model, instances)
    ends = [Ending(words(), request.stop) for request in requests if request.stop]
    contexts = [request.context for request in requests]
    found: dict[int, list[int]] = {}

    def run(first: list[list[int]]) -> None:
        found.clear()
        greedy(model, contexts, first, ends, 0, limits, found.update)

    run([[] for _ in contexts])
    if begun:
        known = {n: list(tokens) for n, tokens in found.items()}
        open_ = [n for n in known if len(known[n]) > begun]
        run([known[n][:begun] if n in open_ else [] for n in range(len(contexts))])
        assert found == known
    assert sorted(found) == list(range(len(contexts)))
    return [ends[n].text(found[n]) for n in sorted(found)]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_lm_eval(name):
    model = model_of(name)
    prompts = prompts_of(1)
    free = answered(model, questions(prompts, until=[], max_gen_toks=10))
    often = max(dict.fromkeys(word for text in free for word in text.split()), key=lambda w: sum(w in t for t in free))
    mixed = [*prompts, "w7", "w9 w8", *prompts_of(2)[:2]]
    for texts, asked in (([often], prompts), ([often, "w5 w6"], mixed), ([], prompts[:1])):
        instances = questions(asked, until=texts, max_gen_toks=10)
        expected = answered(model, instances)
        assert greedily(model, instances, begun=2) == expected
    assert len(set(free)) > 1


@pytest.mark.parametrize("name", ["llama", "mistral-window", "gpt_neo"])
def test_long_prompts_lose_their_beginning_as_in_lm_eval(name):
    model = model_of(name)
    random = Random(3)
    long = [" ".join(f"w{random.randrange(5, 61)}" for _ in range(length)) for length in (120, 86, 87, 30, 5)]
    instances = questions(long, until=["</s>"], max_gen_toks=10)
    assert [len(r.context) for r in encoded(model, instances)] == [86, 86, 86, 30, 5]
    assert greedily(model, instances) == answered(model, instances, batch=1)
    # All begin alike, and more than the window's length.
    same = [f"{long[1]} {tail}" for tail in ("w9", "w8 w7", "w6 w5 w11", "w6 w12")]
    instances = questions([" ".join(p.split()[20:]) for p in same], until=["</s>"], max_gen_toks=10)
    assert greedily(model, instances) == answered(model, instances, batch=1)


def test_batches_shrink_and_stay_small():
    model = model_of("llama")
    prompts = prompts_of(1)
    free = answered(model, questions(prompts, until=[], max_gen_toks=12))
    instances = questions(prompts, until=[free[0].split()[1], free[1].split()[3]], max_gen_toks=12)
    sizes: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    try:
        expected = answered(model, instances)
        for limits, most in ((Limits(5, 10_000), 5), (Limits(2, 10_000), 2), (Limits(5, 90), 2), (Limits(5, 1), 1)):
            sizes.clear()
            assert greedily(model, instances, limits=limits) == expected
            assert max(sizes) == most
    finally:
        hook.remove()


def test_what_all_prompts_begin_with_is_computed_once():
    model = model_of("llama")
    requests = encoded(model, questions(prompts_of(1), until=[], max_gen_toks=2))
    sizes: list[tuple[int, ...]] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape)))
    ends = [Ending(words(), request.stop) for request in requests if request.stop]
    try:
        greedy(model, [r.context for r in requests], [[]] * 5, ends, 0, Limits(2, 10_000), lambda _: None)
    finally:
        hook.remove()
    (long,) = [size for size in sizes if size[1] >= 20]
    assert long[0] == 1
    assert max(size[0] for size in sizes) == 2


def test_every_end_of_text_that_the_generation_config_names_ends_an_answer():
    import copy

    model = copy.copy(model_of("llama"))
    prompts = prompts_of(1)
    free = answered(model, questions(prompts, until=[], max_gen_toks=10))
    ends = [int(text.split()[2].removeprefix("w")) for text in free[:2]]
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = [2, *ends]
    instances = questions(prompts, until=["w4 w4"], max_gen_toks=10)
    assert all(r.stop is not None and r.stop.tokens == (2, *ends) for r in encoded(model, instances))
    assert greedily(model, instances) == answered(model, instances) != free
