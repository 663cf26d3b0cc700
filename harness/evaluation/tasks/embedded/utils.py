"""Names that the YAML files beside this one refer to."""

from __future__ import annotations

from harness.evaluation.embedded import corpus_bleu, corpus_chrf, load, program, to_english, to_swahili

__all__ = ["corpus_bleu", "corpus_chrf", "load", "program", "to_english", "to_swahili"]
