"""Tiny experts that tests may share, because variants leave them untouched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from harness.experts import LoadedExpert
from tests.merging.models import tiny_experts


@pytest.fixture(scope="session")
def experts_of() -> Callable[[str, bool], dict[str, LoadedExpert]]:
    """The base, math and language experts of an architecture, tied or not."""
    return cache(tiny_experts)
