"""Names that the YAML files beside this one refer to: the embedded benchmarks' data, put in plain words."""

from __future__ import annotations

from harness.evaluation.embedded import body, corpus_bleu, corpus_chrf, load, to_english, to_swahili

__all__ = ["body", "corpus_bleu", "corpus_chrf", "load", "to_english", "to_swahili"]
