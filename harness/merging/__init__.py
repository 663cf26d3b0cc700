"""Merging: tensor arithmetic, live models that share layers, checkpoints on disk, checks and analysis."""

from __future__ import annotations
