"""Comparisons that draw thousands of resamples, kept between runs: the same two scores give the same numbers.

Right/wrong scores need no resamples, and equal scores none either: these are compared anew, which takes less time than
to ask. Nothing here changes a number; without a cache everything is computed.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from harness.cache import Cache, kept, key_of
from harness.evaluation.scores import Score
from harness.gating.corpus import CorpusComparison, compare_corpus
from harness.gating.statistics import Comparison, compare

KIND = "comparison"


def compare_kept(score: Score, baseline: Score, confidence: float, cache: Cache | None) -> Comparison:
    """As :func:`harness.gating.statistics.compare`; graded scores that differ are looked up in ``cache`` first."""
    if cache is None or not score.graded or score.values == baseline.values:
        return compare(score, baseline, confidence)
    text = kept(
        cache,
        KIND,
        lambda: key_of(["documents", confidence, _values(score), _values(baseline)], "numpy"),
        lambda: json.dumps(asdict(compare(score, baseline, confidence))),
    )
    return Comparison(**json.loads(text))


def compare_corpus_kept(score: Score, baseline: Score, cache: Cache | None) -> tuple[CorpusComparison, ...]:
    """As :func:`harness.gating.corpus.compare_corpus`, looked up in ``cache`` first."""
    text = kept(
        cache,
        KIND,
        lambda: key_of(["corpus", *(_answers(s) for s in (score, baseline))], "numpy", "sacrebleu"),
        lambda: json.dumps([asdict(found) for found in compare_corpus(score, baseline)]),
    )
    return tuple(CorpusComparison(**found) for found in json.loads(text))


def _values(score: Score) -> list[object]:
    """Everything that a comparison document by document depends on."""
    named = [score.benchmark, score.column, score.metric, score.graded, score.higher_is_better, dict(score.fingerprint)]
    return [*named, score.documents, score.values]


def _answers(score: Score) -> list[object]:
    samples = [[sample.answer, sample.target] for sample in score.samples]
    return [*_values(score), dict(score.corpus), samples]
