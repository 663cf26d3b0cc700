"""Numbers in, verdicts out: paired statistics, floors, and the accepted results they are held to. No torch."""

from __future__ import annotations
