"""What the embedded tasks need beside their YAML: data files, translation metrics, and running programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from harness.evaluation.sandbox import shared_sandbox

TASKS = Path(__file__).parent / "tasks" / "embedded"
Pairs = Sequence[tuple[str, str]]


def load(file: str, **_: Any) -> dict[str, Any]:
    """The task's documents. A function, since lm-eval resolves data files against the working directory."""
    from datasets import Dataset

    lines = (TASKS / "data" / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def to_swahili(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Translation metrics of English to Swahili; see :func:`translation`."""
    return translation(doc["sentence_swh_Latn"], results[0])


def to_english(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Translation metrics of Swahili to English; see :func:`translation`."""
    return translation(doc["sentence_eng_Latn"], results[0])


def translation(reference: str, answer: str) -> dict[str, Any]:
    """Sentence chrF in [0, 1] (Popović 2015, W15-3049), and the pair for the corpus metrics."""
    return {
        "chrf": _scored("chrf", [(reference, answer)]) / 100,
        "corpus_chrf": (reference, answer),
        "corpus_bleu": (reference, answer),
    }


def corpus_chrf(pairs: Pairs) -> float:
    """chrF over the whole corpus, 0 to 100."""
    return _scored("chrf", pairs)


def corpus_bleu(pairs: Pairs) -> float:
    """BLEU over the whole corpus, 0 to 100; the texts are tokenised already."""
    return _scored("bleu", pairs)


def _scored(name: str, pairs: Pairs) -> float:
    """What sacrebleu gives the corpus: its own sum over sentences, each of which it counts once for all variants."""
    return float(_metric(name)._aggregate_and_compute([_counts(name, *pair) for pair in pairs]).score)


@lru_cache(maxsize=100_000)
def _counts(name: str, reference: str, answer: str) -> list[int]:
    counts: list[int] = _metric(name)._extract_corpus_statistics([answer], [[reference]])[0]
    return counts


@cache
def _metric(name: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return CHRF() if name == "chrf" else BLEU(tokenize="none", force=True)


def program(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 if the generated program passes its asserts in the sandbox."""
    return {"pass_at_1": float(shared_sandbox().run(results[0], doc["test_list"]).passed)}


def body(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """As :func:`program`, for an answer that goes on after ``def f(x):``."""
    return program(doc, [f"def f(x):{results[0]}"])
