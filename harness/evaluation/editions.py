"""What a benchmark is made of, as one digest, without lm-eval: two runs with equal digests score documents alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.evaluation.data import data_files
from harness.versions import versions_of

if TYPE_CHECKING:
    from harness.evaluation.grid import Settings

_LIBRARIES = ("lm-eval", "transformers", "tokenizers", "torch", "datasets", "sacrebleu", "jinja2")
# What decides a model's answer to a request, beside the libraries.
_ENGINE = (
    "decoding.py",
    "drafts.py",
    "engine.py",
    "graphs.py",
    "kernels.py",
    "layers.py",
    "likelihoods.py",
    "requests.py",
    "room.py",
    "rows.py",
    "sharing.py",
    "sizing.py",
    "steps.py",
    "trees.py",
    "trials.py",
    "workers.py",
)
_STOCK = ("backends.py", "stock.py")


def engine_digest(settings: Settings) -> str:
    """Of all that decides the answer to a request beside the weights: code, libraries, device, batch size."""
    shared = settings.backend == "shared"
    facts = {
        "code": _files_digest(Path(__file__).with_name(name) for name in _ENGINE) if shared else stock_digest(),
        "libraries": versions_of(_LIBRARIES if shared else (*_LIBRARIES, "vllm")),
        "backend": [settings.backend, *settings.backend_args],
        "device": settings.device.partition(":")[0],
        "batch size": settings.profile.batch_size,
        "tokenizer": _tokenizer(settings),
    }
    return _digest(facts)


def stock_digest() -> str:
    """Of the code that asks lm-eval's own model classes."""
    return _files_digest(Path(__file__).with_name(name) for name in _STOCK)


def edition(settings: Settings, benchmark: str) -> str | None:
    """Of all that decides a benchmark's scores beside the weights; None if only building its prompts can tell.

    That is so for tasks that are not the profile's own, and for data from the hub: documents may come from anywhere.
    """
    folder = settings.profile.task_folder
    spec = settings.profile.benchmarks[benchmark]
    data = data_files(settings.profile, [column.task for column in spec.columns])
    if folder is None or not folder.is_dir() or data is None:
        return None
    facts = {
        "engine": engine_digest(settings),
        "dtype": settings.dtype,
        "limit": settings.limit,
        "columns": [column.model_dump() for column in spec.columns],
        "tasks": _files_digest(sorted(path for path in folder.rglob("*") if _counts(path))),
        "data": _files_digest(data),
        "code": _code_digest(),
    }
    return _digest(facts)


def built_edition(settings: Settings, columns: Iterable[object]) -> str:
    """The same for a benchmark whose ``columns`` have been built: by their prompts and documents."""
    found = [[c.fingerprint, c.documents, c.spec.model_dump()] for c in columns]  # type: ignore[attr-defined]
    return _digest([engine_digest(settings), settings.dtype, settings.limit, _code_digest(), found])


def _code_digest() -> str:
    here = Path(__file__).parent
    return _files_digest(sorted([*here.glob("*.py"), *here.glob("confined/*.py")]))


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")


def _tokenizer(settings: Settings) -> str:
    folder = settings.profile.expert_path("base")
    names = ("*token*", "*vocab*", "merges.txt", "*.model", "config.json", "generation_config.json")
    return _files_digest(sorted({path for name in names for path in folder.glob(name) if path.is_file()}))


def _files_digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
