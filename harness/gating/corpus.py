"""Corpus metrics (chrF, BLEU) of two systems on the same documents: paired, seeded, whatever the documents' order.

Such a metric is no mean over documents: counts of n-grams are summed first. So documents are resampled together with
their counts, and the metric is computed anew from every resample's sums, by sacrebleu itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from harness.cache import Cache, kept, key_of
from harness.evaluation.scores import Score
from harness.gating.pairing import pair

RESAMPLES = 999
SEED = 20_241_005
CorpusMetric = Literal["chrf", "chrf++", "bleu"]
# What a task may call a metric, and how it is computed: the embedded tasks' texts are tokenised already.
_NAMES: dict[str, tuple[CorpusMetric, str]] = {
    "chrf": ("chrf", ""),
    "corpus_chrf": ("chrf", ""),
    "chrf++": ("chrf++", ""),
    "bleu": ("bleu", "13a"),
    "corpus_bleu": ("bleu", "none"),
}


@dataclass(frozen=True)
class CorpusComparison:
    """One corpus metric against a baseline on the same documents, in the metric's usual units (0 to 100).

    ``difference`` is value minus baseline and ``low`` to ``high`` its interval; ``p`` is two-sided.
    """

    metric: str
    value: float
    baseline: float
    difference: float
    low: float
    high: float
    p: float


def corpus_bootstrap(
    metric: CorpusMetric,
    hypotheses: Sequence[str],
    baseline_hypotheses: Sequence[str],
    references: Sequence[str],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    tokenize: str = "13a",
) -> CorpusComparison:
    """A corpus metric of ``hypotheses`` against that of ``baseline_hypotheses``, one reference a document.

    The interval holds the percentiles of the paired bootstrap over documents (P. Koehn, EMNLP 2004, 388-395); p is by
    approximate randomisation: each document's two answers change sides at random (S. Riezler and J. T. Maxwell, ACL
    workshop on evaluation measures 2005, 57-64), and the observed sides count as one resample. If no document's counts
    differ, the interval has no width and p is 1. ``tokenize`` is sacrebleu's tokenizer, for BLEU alone.

    Raises :class:`ValueError` without documents, or if the three do not have the same number.
    """
    import numpy as np

    if not references or not len(hypotheses) == len(baseline_hypotheses) == len(references):
        raise ValueError(
            f"{len(hypotheses)} and {len(baseline_hypotheses)} hypotheses for {len(references)} references: "
            "expected the same number, at least one"
        )
    scorer = _scorer(metric, tokenize)
    rows = sorted(zip(references, hypotheses, baseline_hypotheses, strict=True))
    targets = [[row[0] for row in rows]]
    ours, theirs = (
        np.asarray(scorer._extract_corpus_statistics([row[side] for row in rows], targets), dtype=np.float64)
        for side in (1, 2)
    )
    n = len(rows)

    def metric_of(sums: Any) -> Any:
        """[resamples, counts] to [resamples]; counts are whole, so their sums are exact."""
        return np.array([scorer._compute_score_from_stats(row).score for row in sums.astype(np.int64).tolist()])

    value, baseline = (float(metric_of(side.sum(axis=0, keepdims=True))[0]) for side in (ours, theirs))
    difference = value - baseline
    result = CorpusComparison(metric, value, baseline, difference, difference, difference, 1.0)
    if np.array_equal(ours, theirs):
        return result
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    tail = (1 - confidence) / 2
    low, high = np.quantile(metric_of(drawn @ ours) - metric_of(drawn @ theirs), [tail, 1 - tail])
    kept = rng.integers(0, 2, size=(resamples, n)).astype(np.float64)
    shuffled = metric_of(kept @ ours + (1 - kept) @ theirs) - metric_of(kept @ theirs + (1 - kept) @ ours)
    # The same sums can give the same metric but for its last bits.
    extreme = int((np.abs(shuffled) >= abs(difference) - 1e-9).sum())
    return replace(result, low=float(low), high=float(high), p=(1 + extreme) / (resamples + 1))


def compare_corpus(
    score: Score, baseline: Score, confidence: float = 0.95, cache: Cache | None = None
) -> tuple[CorpusComparison, ...]:
    """Every metric in ``score.corpus`` against the baseline's, from the answers of both on the same documents.

    The comparison carries the name that the metric has in ``score.corpus``. Left out is a metric that this module does
    not know, and one whose value the stored answers do not give (its task may have cleaned them first): what is
    compared would not be what is shown. Empty where either score has no samples, as an accepted result has none.
    ``cache`` keeps what resampling gives.

    Raises :class:`IncomparableError` as :func:`pair` does.
    """
    paired = pair(score, baseline)
    if not len(score.samples) == len(baseline.samples) == paired.n:
        return ()
    ours = [score.samples[i] for i in paired.positions]
    theirs = [baseline.samples[i] for i in paired.baseline_positions]
    found = []
    for name, stored in score.corpus.items():
        if name not in _NAMES:
            continue
        metric, tokenize = _NAMES[name]
        texts = (
            [sample.answer for sample in ours],
            [sample.answer for sample in theirs],
            [sample.target for sample in ours],
        )
        comparison = _bootstrapped(metric, texts, confidence, tokenize, cache)
        given = (stored, baseline.corpus.get(name, comparison.baseline))
        if max(abs(a - b) for a, b in zip(given, (comparison.value, comparison.baseline), strict=True)) < 1e-6:
            found.append(replace(comparison, metric=name))
    return tuple(found)


def _bootstrapped(
    metric: CorpusMetric,
    texts: tuple[list[str], list[str], list[str]],
    confidence: float,
    tokenize: str,
    cache: Cache | None,
) -> CorpusComparison:
    def made() -> str:
        return json.dumps(asdict(corpus_bootstrap(metric, *texts, confidence, tokenize=tokenize)))

    key = partial(key_of, ["corpus", metric, texts, confidence, tokenize], "numpy", "sacrebleu")
    return CorpusComparison(**json.loads(kept(cache, "comparison", key, made)))


def _scorer(metric: CorpusMetric, tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    if metric == "bleu":
        return BLEU(tokenize=tokenize, force=True)
    return CHRF(word_order=2 if metric == "chrf++" else 0)
