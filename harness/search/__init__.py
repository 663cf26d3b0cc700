"""Looks for good sizes, weights and outer slots of a layer swap, on documents that the suite's floors never see."""

from __future__ import annotations
