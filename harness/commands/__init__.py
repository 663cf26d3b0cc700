"""Commands of the command line that work on models and recipes: their options, and what they call."""

from __future__ import annotations
