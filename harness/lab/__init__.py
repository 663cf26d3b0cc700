"""The embedded experts: a small bilingual world, its tokenizer, and the training that builds them."""

from __future__ import annotations
