"""Scores whose documents come out as a test asks for."""

from __future__ import annotations

from harness.evaluation.scores import Score


def flips(both: int, gained: int, lost: int, neither: int) -> tuple[Score, Score]:
    """A score and its baseline with this many documents right in both, gained, lost, and right in neither."""
    ours = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    theirs = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    return build(ours), build(theirs)


def build(values, **other) -> Score:
    n = len(values)
    fields = {
        "benchmark": "mgsm",
        "column": "mgsm sw",
        "metric": "exact_match",
        "graded": False,
        "documents": tuple(f"d{i:04}" for i in range(n)),
        "fingerprint": {"task": "1"},
    }
    return Score(values=tuple(values), **(fields | other))
