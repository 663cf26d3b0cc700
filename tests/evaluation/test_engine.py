from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from harness.errors import LayerswapError
from harness.evaluation.drafts import anchor, filling, walk
from harness.evaluation.engine import Engine, Sizes
from harness.evaluation.requests import Encoder, Request, Stop
from harness.evaluation.rows import Cost
from harness.evaluation.sharing import Variant, layer_calls
from harness.evaluation.trials import SOFTMAX, can_branch, can_share, cost_of
from harness.experts import layers_prefix
from tests.evaluation.architectures import MODELS, RECIPES, experts_of, model_of, variants_of
from tests.evaluation.asking import answered, choices, encoded, instance, questions, words

SOME = ("llama", "llama-tied", "qwen2-window", "mistral-window", "gemma3", "gpt_neox", "gpt_neo", "bloom")
FEW = RECIPES[:3]
Answers = dict[str, dict[int, Any]]


def text(random: Random, length: int) -> str:
    return " ".join(f"w{random.randrange(5, 61)}" for _ in range(length))


def pairs_of(seed: int) -> list[tuple[str, str]]:
    """Multiple choices after exemplars; some share a prompt, one has none, one is too long, one comes twice."""
    random = Random(seed)
    shots = text(random, 20)
    found = []
    for _ in range(4):
        prompt = f"{shots} {text(random, random.randrange(1, 6))}"
        found += [(prompt, f" {text(random, length)}") for length in (1, 3, 1, 2)]
    return [*found, ("", " w9 w8"), (text(random, 110), " w7 w12"), ("w9", f" {text(random, 94)}"), found[0]]


def prompts_of(seed: int, count: int = 5) -> list[str]:
    random = Random(seed)
    shots = text(random, 18)
    return [f"{shots} {text(random, random.randrange(1, 5))}" for _ in range(count)] + ["w9 w11"]


def engine_of(name: str, threads: int = 1, plain: bool = False, **sizes: Any) -> Engine:
    model = model_of(name)
    prefix = layers_prefix(model)
    branches = not plain and can_branch(model, prefix, "cpu")
    shares = not plain and can_share(model, prefix, "cpu")
    limits = Sizes(**{"rows": 4, "tokens": 128, "threads": threads} | sizes)
    return Engine(words(), prefix, 0, "cpu", limits, cost_of(model) if branches else None, shares)


def asked(requests: Sequence[Request]) -> dict[int, Request]:
    return dict(enumerate(requests))


def collecting() -> tuple[Answers, Any]:
    found: Answers = {}
    batches: list[int] = []

    def keep(identity: str, answers: Mapping[int, Any]) -> None:
        mine = found.setdefault(identity, {})
        assert not set(mine) & set(answers), "answered twice"
        mine.update(answers)
        batches.append(len(answers))

    return found, keep


def check_scores(found: Answers, models: Mapping[str, Any], instances: Sequence[Any]) -> None:
    assert set(found) == set(models)
    for identity, model in models.items():
        expected = answered(model, instances)
        assert sorted(found[identity]) == list(range(len(instances)))
        for number, (chance, likeliest) in enumerate(expected):
            assert found[identity][number][0] == pytest.approx(chance, rel=1e-4, abs=1e-4), number
            assert found[identity][number][1] == likeliest


@pytest.mark.parametrize("name", SOME)
def test_log_likelihoods_of_every_variant_are_those_of_lm_eval(name):
    models, variants = variants_of(name, RECIPES if name == "llama" else FEW)
    instances = choices(pairs_of(1))
    engine, (found, keep) = engine_of(name), collecting()
    engine.score(variants, asked(encoded(model_of(name), instances)), keep)
    check_scores(found, models, instances)
    assert 0 < engine.counts.made < engine.counts.asked


@pytest.mark.parametrize("name", SOME)
def test_greedy_answers_of_every_variant_are_those_of_lm_eval(name, monkeypatch):
    models, variants = variants_of(name, RECIPES if name == "llama" else FEW)
    free = answered(model_of(name, 1), questions(prompts_of(1), until=[], max_gen_toks=9))
    stop = max((text.split() for text in free), key=len)[3]
    instances = questions(prompts_of(1), until=[stop, "w5 w6"], max_gen_toks=9)
    engine, (found, keep) = engine_of(name), collecting()
    monkeypatch.setattr("harness.evaluation.engine.ANCHORS", 2)  # so that some are verified
    engine.generate(variants, asked(encoded(model_of(name), instances)), {}, keep)
    assert set(found) == set(models)
    for identity, model in models.items():
        assert [found[identity][n] for n in range(len(instances))] == answered(model, instances), identity
    assert len({tuple(answers.values()) for answers in found.values()}) > 1


def test_neither_threads_nor_sizes_nor_sharing_change_an_answer(monkeypatch):
    models, variants = variants_of("llama", FEW)
    scored = asked(encoded(model_of("llama"), choices(pairs_of(2))))
    opened = asked(encoded(model_of("llama"), questions(prompts_of(2), until=["w9"], max_gen_toks=9)))
    monkeypatch.setattr("harness.evaluation.engine.ANCHORS", 1)
    results = []
    for options in ({}, {"threads": 2}, {"rows": 1}, {"held_bytes": 1}, {"tokens": 1}, {"plain": True}):
        engine = engine_of("llama", **options)
        (chances, keep), (texts, note) = collecting(), collecting()
        engine.score(variants, scored, keep)
        engine.generate(variants, opened, {}, note)
        results.append((chances, texts))
    for chances, texts in results[1:]:
        assert texts == results[0][1]
        for identity in models:
            for number, (chance, likeliest) in results[0][0][identity].items():
                assert chances[identity][number][0] == pytest.approx(chance, rel=1e-4)
                assert chances[identity][number][1] is likeliest


def test_two_threads_give_what_one_gives_bit_for_bit():
    _, variants = variants_of("qwen2")
    requests = asked(encoded(model_of("qwen2"), choices(pairs_of(4))))
    found = []
    for threads in (1, 2):
        engine, (answers, keep) = engine_of("qwen2", threads), collecting()
        engine.score(variants, requests, keep)
        found.append((answers, engine.counts))
    assert found[0] == found[1]


def test_a_sweep_makes_the_calls_of_the_distinct_nodes_once_a_batch():
    _, variants = variants_of("llama")
    requests = asked(encoded(model_of("llama"), choices(pairs_of(3))))
    for held in (1024**3, 1):
        engine, (_, keep) = engine_of("llama", held_bytes=held), collecting()
        engine.score(variants, requests, keep)
        count = engine.counts.asked // (6 * len(variants))
        assert count > 1
        assert engine.counts.made == count * layer_calls(variants)


def test_logits_are_cut_to_what_may_be_held(monkeypatch):
    models, variants = variants_of("llama", FEW)
    monkeypatch.setattr("harness.evaluation.likelihoods.SLICE", 3 * 64)  # of a longer continuation's, two slices
    instances = choices(pairs_of(1))
    found, keep = collecting()
    engine_of("llama", logits=1).score(variants, asked(encoded(model_of("llama"), instances)), keep)
    check_scores(found, models, instances)


@pytest.mark.parametrize("quality", ["right", "other", "cut", "none"])
def test_whatever_drafts_say_the_answer_is_the_variants_own(quality):
    models, variants = variants_of("llama")
    instances = questions(prompts_of(5), until=["w9"], max_gen_toks=8)
    requests = asked(encoded(model_of("llama"), instances))
    variant = variants[0]
    expected = answered(models[variant.identity], instances)
    drafts = {
        "right": {n: [answer] for n, answer in enumerate(expected)},
        "other": {n: ["w7 w7 w7", "w12"] for n in requests},
        "cut": {n: [" ".join(answer.split()[:2]), ""] for n, answer in enumerate(expected)},
        "none": {n: [""] for n in requests},
    }[quality]
    decoded: list[int] = []
    engine, (found, keep) = engine_of("llama"), collecting()
    plain = engine._decode

    def noting(begun: Any, *rest: Any) -> None:
        decoded.extend(len(first) for _, first in begun)
        plain(begun, *rest)

    engine._decode = noting  # type: ignore[method-assign]
    engine.generate([variant], requests, drafts, keep)
    assert [found[variant.identity][n] for n in range(len(instances))] == expected
    if quality == "right":
        # An answer that a stop text cut is a draft without it: what ended it may have to be decoded.
        assert sum(decoded) <= sum("w9" in a for a in answered(models[variant.identity], _free(instances)))


def _free(instances: Sequence[Any]) -> list[Any]:
    return questions([i.args[0] for i in instances], until=[], max_gen_toks=8)


def test_an_answer_that_goes_on_as_another_prompt_does_is_read_no_further():
    """One prompt is another one's beginning, and what comes between is what the first is answered with."""
    models, variants = variants_of("llama")
    first = prompts_of(6)[0]
    model = models[variants[0].identity]
    (answer,) = answered(model, questions([first], until=[], max_gen_toks=8))
    both = [first, f"{first} {' '.join(answer.split()[:5])}"]
    instances = questions(both, until=[], max_gen_toks=8)
    requests = asked(encoded(model, instances))
    found, keep = collecting()
    engine_of("llama").generate(variants[:1], requests, {0: ["w7"], 1: ["w8"]}, keep)
    assert [found[variants[0].identity][n] for n in (0, 1)] == answered(model, instances)


def test_walking_stops_where_no_draft_goes_along():
    class Ends:
        def ended(self, tokens: Sequence[int]) -> bool:
            return tokens[-1] == 2

    children: list[Mapping[int, int]] = [{5: 1}, {6: 2, 7: 3}, {2: 4}, {}, {}]
    for best, expected in (
        ({0: 5, 1: 6, 2: 2}, ([5, 6, 2], True)),
        ({0: 5, 1: 7, 3: 9}, ([5, 7, 9], False)),
        ({0: 8}, ([8], False)),
        ({0: 2}, ([2], True)),
    ):
        assert walk(children, 0, best.__getitem__, Ends()) == expected  # type: ignore[arg-type]


def test_one_more_anchor_decodes_where_a_thread_would_wait():
    assert [filling(3, threads) for threads in (1, 2, 3, 4, 8)] == [3, 4, 3, 4, 4]


def test_anchors_are_variants_that_differ_most():
    def variant(slots: str) -> Variant:
        return Variant(slots, tuple(slots), lambda: None)

    variants = [variant(slots) for slots in ("LLLLL", "LLLLM", "LLLMM", "MMMMM")]
    assert [v.identity for v in anchor(variants, 2)] == ["LLLLM", "MMMMM"]
    assert len(anchor(variants, 9)) == 4
    assert len({v.identity for v in anchor(variants, 4)}) == 4


def test_a_row_costs_its_multiply_adds():
    model = model_of("llama")
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    cost = cost_of(model)
    heads = model.config.num_attention_heads
    assert cost == Cost(linear=layer + (61 * 32 + 32) / 6, pair=2.0 * 32 + heads * SOFTMAX)


def test_what_plain_greedy_decoding_does_not_do_is_left_to_lm_eval():
    model = copy.copy(model_of("llama"))
    encoder = Encoder(model, words())
    for arguments, can in (
        ({"until": ["a"], "max_gen_toks": 4}, True),
        ({"until": ["a"], "temperature": 0.0, "do_sample": False}, True),
        ({"until": "a"}, True),
        ({"do_sample": True}, False),
        ({"temperature": 0.7}, False),
        ({"num_beams": 2}, False),
        ({"until": ["a"], "repetition_penalty": 1.2}, False),
        ({"max_length": 9}, False),
    ):
        assert encoder.can([instance("generate_until", 0, "w9", arguments)]) is can, arguments
    assert not encoder.can([instance("loglikelihood_rolling", 0, "w9")])
    assert not encoder.can([*choices([("w9", "w8")]), instance("multiple_choice", 0, "w9")])
    for name, value in (
        ("repetition_penalty", 1.1),
        ("no_repeat_ngram_size", 3),
        ("num_beams", 4),
        ("suppress_tokens", [7]),
        ("max_new_tokens", 3),
        ("stop_strings", ["w9"]),
    ):
        other = copy.copy(model)
        other.generation_config = copy.deepcopy(model.generation_config)
        setattr(other.generation_config, name, value)
        assert not Encoder(other, words()).can(questions(["w9"], until=[])), name
        assert Encoder(other, words()).can(choices([("w9", "w8")]))


def test_requests_that_do_not_fit_the_model_are_refused_in_a_sentence():
    encoder = Encoder(model_of("llama"), words())
    with pytest.raises(LayerswapError, match=r"97 tokens .* reads 96"):
        encoder.encode(choices([("w9", " w8" * 97)]))
    for most in (96, 200):
        with pytest.raises(LayerswapError, match=rf"{most} tokens .* reads 96"):
            encoder.encode(questions(["w9 w8"], until=[], max_gen_toks=most))


def test_a_request_is_known_by_all_that_makes_its_answer():
    stop = Stop(("a",), (2,), 9)
    requests = [
        Request((1, 2), (3,)),
        Request((1,), (2, 3)),
        Request((1, 2), (4,)),
        Request((1, 2), (), stop),
        Request((1, 2), (), Stop(("b",), (2,), 9)),
        Request((1, 2), (), Stop(("a",), (3,), 9)),
        Request((1, 2), (), Stop(("a",), (2,), 8)),
    ]
    assert len({r.digest(engine) for r in requests for engine in ("one", "other")}) == 2 * len(requests)
    assert Request((1, 2), (3,)).digest("one") == requests[0].digest("one")


def test_requests_are_encoded_as_lm_eval_does():
    model = model_of("llama")
    empty, long, longest = encoded(
        model, choices([("", " w9 w8"), (text(Random(1), 110), " w7 w8"), ("w9", f" {text(Random(2), 96)}")])
    )
    assert (empty.context, empty.continuation) == ((2,), (9, 8))  # nothing before: lm-eval puts the end of a text there
    assert (len(long.context), len(long.scored), long.continuation) == (95, 96, (7, 8))
    assert (len(longest.context), len(longest.scored)) == (1, 96)
    assert set(MODELS) >= set(SOME)
    assert experts_of("llama")["base"].layers == 6
