"""A folder of sound inputs, for copies of it to be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage.workshop import build


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    build(folder)
    return folder
