"""Finds of fuzzing stay survived, and so do some new mutants of sound files: one clear error, or the file is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz import CORPUS, mutant
from tests.damage.readers import READERS, put, survives

FINDS = sorted((reader, path.name) for reader in READERS for path in (CORPUS / reader).glob("*"))
MUTANTS = 40


@pytest.fixture(scope="module")
def place(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place") / "copy"
    shutil.copytree(workshop, folder)
    return folder


@pytest.mark.parametrize(("name", "find"), FINDS)
def test_a_find_is_survived(name: str, find: str, place: Path):
    reader = READERS[name]
    sound = (place / reader.seeds[0]).read_bytes()
    survives(reader, put(reader, place, (CORPUS / name / find).read_bytes()))
    assert survives(reader, put(reader, place, sound))


@pytest.mark.parametrize("name", READERS)
def test_mutants_of_a_sound_file_are_survived(name: str, place: Path):
    reader, random = READERS[name], Random(0)
    sound = (place / reader.seeds[0]).read_bytes()
    refused = sum(not survives(reader, put(reader, place, mutant(reader, [sound], random))) for _ in range(MUTANTS))
    assert refused  # or they were no mutants
    assert survives(reader, put(reader, place, sound))


def test_every_kind_of_find_has_a_reader():
    assert {path.name for path in CORPUS.iterdir()} <= set(READERS)
