from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from harness.evaluation import embedded
from harness.evaluation.scores import Sample, Score
from harness.gating.corpus import compare_corpus, corpus_bootstrap
from harness.gating.pairing import IncomparableError

WORDS = ["maji", "moto", "mti", "mtoto", "mama", "nyumba", "kitabu", "samaki", "ndege", "jua", "mwezi", "nyota"]
METRICS = {"chrf": CHRF(), "chrf++": CHRF(word_order=2), "bleu": BLEU(tokenize="none", force=True)}


def garbled(sentence: str, share: float, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in sentence.split())


def corpus(n=200, ours=0.35, theirs=0.25, seed=0) -> tuple[list[str], list[str], list[str]]:
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(5, 12))) for _ in range(n)]
    return [garbled(r, ours, rng) for r in references], [garbled(r, theirs, rng) for r in references], references


def as_score(answers, references, **other) -> Score:
    fields = {
        "documents": tuple(f"d{i:04}" for i in range(len(answers))),
        "values": tuple(sacrebleu.sentence_chrf(a, [r]).score / 100 for a, r in zip(answers, references, strict=True)),
        "samples": tuple(Sample("", a, r) for a, r in zip(answers, references, strict=True)),
        "corpus": {
            "corpus_chrf": embedded.corpus_chrf(list(zip(references, answers, strict=True))),
            "corpus_bleu": embedded.corpus_bleu(list(zip(references, answers, strict=True))),
        },
    }
    return Score("flores", "flores en-sw", "chrf", True, fingerprint={"task": "1"}, **(fields | other))


@pytest.mark.parametrize("metric", METRICS)
def test_it_agrees_with_sacrebleus_own_tests(metric, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    ours, theirs, references = corpus()
    c = corpus_bootstrap(metric, ours, theirs, references, tokenize="none")
    scorer = METRICS[metric]
    assert c.value == pytest.approx(scorer.corpus_score(ours, [references]).score)
    assert c.baseline == pytest.approx(scorer.corpus_score(theirs, [references]).score)
    assert c.low < c.difference < c.high < 0
    # sacrebleu's paired bootstrap, resample by resample, with another generator.
    stats = [np.array(scorer._extract_corpus_statistics(side, [references])) for side in (ours, theirs)]
    rows = np.random.default_rng(1).choice(200, size=(999, 200))
    a, b = ([scorer._compute_score_from_stats(s).score for s in side[rows].sum(axis=1).tolist()] for side in stats)
    expected = np.quantile(np.subtract(a, b), [0.025, 0.975])
    assert (c.low, c.high) == pytest.approx(expected, abs=0.12 * (c.high - c.low))
    systems = [("theirs", theirs), ("ours", ours)]
    _, result = PairedTest(systems, {metric: scorer}, [references], test_type="ar", n_samples=999)()
    (_, (_, oracle)) = next((name, row) for name, row in result.items() if name != "System")
    assert c.p == pytest.approx(oracle.p_value, abs=0.005)


def test_a_p_that_is_neither_small_nor_large_agrees_too():
    ours, theirs, references = corpus(ours=0.30, theirs=0.28, seed=3)
    c = corpus_bootstrap("chrf", ours, theirs, references, resamples=1999)
    systems = [("theirs", theirs), ("ours", ours)]
    _, result = PairedTest(systems, {"chrf": CHRF()}, [references], test_type="ar", n_samples=4000)()
    assert 0.03 < result["chrF2"][1].p_value < 0.97
    assert c.p == pytest.approx(result["chrF2"][1].p_value, abs=0.04)


def test_the_order_of_documents_does_not_matter_and_it_is_the_same_again():
    rows = list(zip(*corpus(60), strict=True))
    before = corpus_bootstrap("bleu", *zip(*rows, strict=True), tokenize="none")
    random.Random(1).shuffle(rows)
    assert corpus_bootstrap("bleu", *zip(*rows, strict=True), tokenize="none") == before


def test_seen_from_the_other_side_it_is_mirrored():
    ours, theirs, references = corpus(60)
    c, mirrored = corpus_bootstrap("chrf", ours, theirs, references), corpus_bootstrap("chrf", theirs, ours, references)
    assert (mirrored.value, mirrored.baseline, mirrored.difference) == (c.baseline, c.value, -c.difference)
    # The documents come in another order where a reference occurs twice, so the resamples may differ.
    assert (-mirrored.high, -mirrored.low) == pytest.approx((c.low, c.high), abs=0.12 * (c.high - c.low))


def test_equal_systems_are_not_told_apart_and_have_no_width():
    ours, _, references = corpus(20)
    c = corpus_bootstrap("chrf", ours, ours, references)
    assert (c.difference, c.low, c.high, c.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 3])
def test_constant_and_empty_answers_are_guarded(metric, n):
    c = corpus_bootstrap(metric, [""] * n, ["maji moto mti mtoto"] * n, ["maji moto mti mtoto"] * n)
    assert (c.value, c.baseline, c.low, c.high) == pytest.approx((0.0, 100.0, -100.0, -100.0))
    assert 0 < c.p <= 1


@pytest.mark.parametrize("sides", [([], [], []), (["a"], ["a", "b"], ["a", "b"])])
def test_unequal_numbers_of_documents_are_an_error(sides):
    with pytest.raises(ValueError, match="expected the same number, at least one"):
        corpus_bootstrap("chrf", *sides)


def test_every_metric_of_a_score_is_compared_on_the_same_documents():
    ours, theirs, references = corpus(40)
    score, baseline = as_score(ours, references), as_score(theirs, references)
    chrf, bleu = compare_corpus(score, baseline)
    assert (chrf.metric, bleu.metric) == ("corpus_chrf", "corpus_bleu")
    assert (chrf.value, bleu.value) == pytest.approx(tuple(score.corpus.values()))
    assert (chrf.baseline, bleu.baseline) == pytest.approx(tuple(baseline.corpus.values()))
    order = list(range(40))
    random.Random(2).shuffle(order)
    other = replace(
        score,
        **{name: tuple(getattr(score, name)[i] for i in order) for name in ("documents", "values", "samples")},
    )
    assert compare_corpus(other, baseline) == (chrf, bleu)


def test_what_cannot_be_computed_from_the_answers_is_left_out():
    ours, theirs, references = corpus(10)
    score, baseline = as_score(ours, references), as_score(theirs, references)
    assert compare_corpus(score, replace(baseline, samples=())) == ()
    assert compare_corpus(replace(score, samples=()), baseline) == ()
    unknown = replace(score, corpus={"comet": 50.0, "corpus_chrf": score.corpus["corpus_chrf"]})
    assert [c.metric for c in compare_corpus(unknown, baseline)] == ["corpus_chrf"]
    cleaned = replace(score, corpus={**score.corpus, "corpus_bleu": 99.0})
    assert [c.metric for c in compare_corpus(cleaned, baseline)] == ["corpus_chrf"]
    with pytest.raises(IncomparableError):
        compare_corpus(score, replace(baseline, fingerprint={"task": "2"}))
