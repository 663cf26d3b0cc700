"""Evaluation: benchmarks as lm-eval tasks, the grid of a run, and generated programs outside the process."""

from __future__ import annotations
