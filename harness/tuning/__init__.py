"""Fine-tunes real experts from a base: data, packed sequences, transformers' Trainer, and what is written of it."""

from __future__ import annotations
