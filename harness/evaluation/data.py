"""Benchmark files in a local folder, in the formats that their authors publish, and the hub's data sets otherwise.

Imports nothing heavy: which files a task reads is asked before lm-eval is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import LayerswapError

if TYPE_CHECKING:
    from harness.profiles import Profile

# FLORES' and BELEBELE's names of the languages.
CODES = {"sw": "swh_Latn", "te": "tel_Telu", "bn": "ben_Beng", "ja": "jpn_Jpan", "en": "eng_Latn"}
LANGUAGES = {"sw": "Swahili", "te": "Telugu", "bn": "Bengali", "ja": "Japanese", "en": "English"}

# Where a benchmark's files may lie under the data folder, by benchmark and split; LANG and CODE are the language's.
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "mgsm": {"test": ("mgsm/mgsm_LANG.tsv", "mgsm_LANG.tsv", "mgsm/LANG/test-00000-of-00001.parquet")},
    "belebele": {
        "test": ("belebele/CODE.jsonl", "Belebele/CODE.jsonl", "belebele/data/CODE.jsonl", "belebele_CODE.jsonl")
    },
    "flores": {
        split: tuple(
            f"{folder}{split}/CODE.{ending}"
            for folder in ("flores/", "flores200_dataset/", "flores200/", "flores_plus/", "")
            for ending in (split, "jsonl", "parquet")
        )
        for split in ("devtest", "dev")
    },
    "mbpp": {"test": ("mbpp/mbpp.jsonl", "mbpp.jsonl", "mbpp/full")},
    "mmlu": {
        split: (
            *(f"{place}/{split}" for place in ("mmlu", "mmlu/data", "data")),
            *(f"mmlu/{split}.{ending}" for ending in ("jsonl", "parquet")),
            *(f"{place}/{split}-00000-of-00001.parquet" for place in ("mmlu/all", "all")),
        )
        for split in ("test", "dev")
    },
}


def find(folder: Path, benchmark: str, split: str, language: str = "en") -> Path | None:
    """The file with a benchmark's documents, or the folder (MMLU: a file a subject; MBPP: a file a split), or None."""
    for place in PLACES[benchmark].get(split, ()):
        path = folder / place.replace("LANG", language).replace("CODE", CODES[language])
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
    return None


def need(folder: Path, benchmark: str, split: str, language: str = "en") -> Path:
    """As :func:`find`; raises :class:`LayerswapError` naming where the file may lie."""
    found = find(folder, benchmark, split, language)
    if found is None:
        places = [p.replace("LANG", language).replace("CODE", CODES[language]) for p in PLACES[benchmark][split]]
        raise LayerswapError(f"{str(folder)!r} has no {benchmark} data: expected {' or '.join(places[:3])} in it")
    return found


def asked(task: str) -> tuple[str, tuple[str, ...]]:
    """Benchmark and languages of a task of ``tasks/real``, from its name: ``real_flores_en-sw``, ``real_mmlu``."""
    parts = task.removeprefix("real_").split("_")
    return parts[0], tuple(parts[-1].split("-")) if len(parts) > 1 else ("en",)


def task_files(folder: Path, task: str) -> list[Path]:
    """The files that a task of ``tasks/real`` reads; raises :class:`LayerswapError` if its documents are not there."""
    benchmark, languages = asked(task)
    found = []
    for number, split in enumerate(PLACES[benchmark]):
        for language in languages:
            path = need(folder, benchmark, split, language) if number == 0 else find(folder, benchmark, split, language)
            found += [] if path is None else sorted(path.iterdir()) if path.is_dir() else [path]
    return found


def data_files(profile: Profile, tasks: Iterable[str]) -> list[Path] | None:
    """The files outside of its task folder that ``tasks`` of a profile read; None if they ask the hub."""
    if profile.tasks == "small":
        from harness.profiles import EMBEDDED_TASKS

        return sorted((EMBEDDED_TASKS / "data").glob("*.jsonl"))
    folder = profile.data_folder
    if profile.tasks == "real":
        if folder is None:
            return None
        return list(dict.fromkeys(path for task in tasks for path in task_files(folder, task)))
    return [] if folder is None else sorted(path for path in folder.rglob("*") if path.is_file())
