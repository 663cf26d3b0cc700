"""Names that the YAML files beside this one refer to."""

from __future__ import annotations

from harness.evaluation.numbers import direct_answers, reasoned_answers, without_punctuation
from harness.evaluation.real import corpus_chrfpp, load, passes, translated

__all__ = ["corpus_chrfpp", "direct_answers", "load", "passes", "reasoned_answers", "translated", "without_punctuation"]
