"""Every damaged input of the catalogue meets the real command: one clear error, no traceback, nothing written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.cli import main
from tests.damage import records, settings, texts, weights
from tests.damage.case import Case

CLASSES = {
    "safetensors": weights.SAFETENSORS,
    "pickles": weights.PICKLED,
    "nonfinite": weights.NONFINITE,
    "shards": weights.SHARDS,
    "configs": settings.CONFIGS,
    "tokenizers": settings.TOKENIZERS,
    "adapters": settings.ADAPTERS,
    "profiles": texts.PROFILES,
    "recipes": texts.RECIPES,
    "recipe-files": texts.RECIPE_FILES,
    "mergekit": texts.MERGEKIT,
    "data": records.DATA,
    "accepted": records.ACCEPTED,
    "saved-runs": records.SAVED,
    "folders": records.FOLDERS,
}
CASES = [pytest.param(case, id=f"{kind}: {case.name}") for kind, cases in CLASSES.items() for case in cases]


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workshop in which commands run."""
    place = tmp_path / "here"
    shutil.copytree(workshop, place, symlinks=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr("harness.costs.MEASURED", 0.0)
    return place


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            seen = os.lstat(os.path.join(place, name))  # noqa: PTH118
            found[f"{place}/{name}"] = (0, 0) if name in folders else (seen.st_size, seen.st_mtime_ns)
    return found


def status_of(command: str) -> int:
    try:
        return main(shlex.split(command))
    except SystemExit as stop:  # argparse's own
        return int(stop.code or 0)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_input_gets_one_clear_error(case: Case, here: Path, capfd: pytest.CaptureFixture[str]):
    case.change(here)
    before = snapshot(here)
    capfd.readouterr()
    status = status_of(case.command)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    if case.command.startswith("doctor") and status == 1:
        said = [line for line in out.splitlines() if line.startswith("WRONG  ")]
        assert err == ""
    else:
        said = [line for line in err.splitlines() if not line.startswith("  ")]
        assert status == 2
        assert len(said) == 1, err
        assert said[0].startswith("error: ")
        assert out == ""
    assert any(re.search(case.says, line) for line in said), said
    assert all(len(line) < 1500 for line in said)
    assert snapshot(here) == before


def test_the_catalogue_is_large_and_names_no_case_twice():
    names = Counter((kind, case.name) for kind, cases in CLASSES.items() for case in cases)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 150


@pytest.mark.parametrize("command", ["doctor profile.toml --limit 1", "merge recipe.toml --out out"])
def test_the_workshop_itself_is_sound(command: str, here: Path):
    assert status_of(command) == 0
