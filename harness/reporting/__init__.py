"""What came of a run, as data (``results.json``) and as Markdown (``report.md``)."""

from __future__ import annotations
