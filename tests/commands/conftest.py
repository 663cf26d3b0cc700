"""Tiny experts on disk, untied and of six layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.merging.models import save_experts, tiny_experts


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of base, math and language expert."""
    return save_experts(tiny_experts(tied=False), tmp_path_factory.mktemp("experts"))
