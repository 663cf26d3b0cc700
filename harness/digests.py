"""Digests of checkpoints, read from their files without torch and kept from run to run.

A file counts as unchanged while device, inode, size and time of change are: then nothing of it is read again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import harness
from harness.cache import Cache
from harness.errors import LayerswapError
from harness.files import cache_folder, file_state, read_object, replace_text
from harness.identity import Digested, config_digest, folder_digest
from harness.merging.claims import check_claims, check_finite
from harness.merging.headers import INDEX, WEIGHTS, Range, read_folder
from harness.merging.layout import known_places, raw_config
from harness.plan import slot_names
from harness.versions import version_of

_BLOCK = 1 << 20
_SLOTS, _FOLDER = "slot-digests-2", "folder-digest-2"  # 2: of weights that are finite


class FileCache:
    """A :class:`Cache` of a small file for each text, in ``folder``; without the right to write it keeps none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def document(self, kind: str, key: str) -> str | None:
        try:
            return (self._folder / kind / key).read_text("utf-8")
        except OSError:
            return None

    def add_document(self, kind: str, key: str, text: str) -> None:
        try:
            replace_text(self._folder / kind / key, text)
        except OSError:
            return


def default_cache() -> FileCache:
    """Of this user: in the folder that LAYERSWAP_CACHE names, else in the system's folder for caches."""
    return FileCache(cache_folder() / "digests")


class Digests(NamedTuple):
    """SHA-256 (hex) of each slot's weights and of the architecture: all that ``identity.identity`` needs."""

    slot_digests: Mapping[str, str]
    config_digest: str


def slot_digests(path: Path, dtype: str, base_path: Path | None = None, cache: Cache | None = None) -> Digests | None:
    """The digests that :func:`harness.experts.load_expert` would find, from ``cache`` or else from the files.

    None if that takes loading: for adapters, for another dtype than the stored one, for architectures that
    :mod:`harness.merging.layout` does not know, and for configs that another version of transformers has written.
    Then load the expert and :func:`remember` it.
    """
    key = _key(path, dtype, base_path)
    if cache is not None and (known := _kept(key, cache)) is not None:
        return known
    found = None if (path / "adapter_config.json").is_file() else _from_files(path, dtype)
    if found is not None and cache is not None and key is not None and key == _key(path, dtype, base_path):
        cache.add_document(_SLOTS, key, _to_json(found))
    return found


def kept_digests(path: Path, dtype: str, base_path: Path | None, cache: Cache) -> Digests | None:
    """The same, if ``cache`` has them: then somebody has read all of these files' weights, and found them sound."""
    return _kept(_key(path, dtype, base_path), cache)


def _kept(key: str | None, cache: Cache) -> Digests | None:
    text = cache.document(_SLOTS, key) if key is not None else None
    return None if text is None else _from_json(text)


def remember(path: Path, dtype: str, base_path: Path | None, cache: Cache, expert: Digested) -> None:
    """Keeps the digests of an expert that has been loaded from ``path`` in ``dtype``."""
    key = _key(path, dtype, base_path)
    if key is not None:
        cache.add_document(_SLOTS, key, _to_json(Digests(expert.slot_digests, expert.config_digest)))


def start_folder_digest(path: Path, cache: Cache | None = None) -> Callable[[], str]:
    """What gives :func:`harness.identity.folder_digest` of ``path``: known from ``cache``, or computed from now on.

    It raises :class:`LayerswapError` for weights that are NaN or infinite. Every byte of a checkpoint is read for it,
    so a thread does that while the caller does something else.
    """
    key = _key(path, "", None)
    kept = cache.document(_FOLDER, key) if cache is not None and key is not None else None
    if kept is not None:
        return lambda: kept
    found: list[str | OSError | LayerswapError] = []

    def compute() -> None:
        try:
            check_finite(read_folder(path))  # the same bytes, which the system then has in memory
            found.append(folder_digest(path))
        except (OSError, LayerswapError) as error:
            found.append(error)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()

    def result() -> str:
        thread.join()
        digest = found[0]
        if not isinstance(digest, str):
            raise digest
        if cache is not None and key is not None and key == _key(path, "", None):
            cache.add_document(_FOLDER, key, digest)
        return digest

    return result


def _key(path: Path, dtype: str, base_path: Path | None) -> str | None:
    """SHA-256 (hex) of all that digests depend on, none of it the weights; None if a file cannot be looked at."""
    try:
        folders = [path]
        if (path / "adapter_config.json").is_file():
            named = read_object(path / "adapter_config.json").get("base_model_name_or_path") or ""
            folders.append(Path(base_path if base_path is not None else named))
        files = []
        for folder in folders:
            for pattern in ("*.safetensors", "*.safetensors.index.json", "*config.json"):
                files += [file_state(file) for file in sorted(folder.glob(pattern))]
    except (OSError, ValueError, TypeError, LayerswapError):
        return None
    if not dtype:  # of a folder's bytes
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    versions = [harness.__version__, version_of("transformers"), version_of("peft") if len(folders) > 1 else ""]
    return hashlib.sha256(json.dumps([files, dtype, versions]).encode()).hexdigest()


def _from_files(path: Path, dtype: str) -> Digests | None:
    config = raw_config(path)
    # transformers writes what differs from its defaults: only the same version's file says the same as what it loads.
    if config is None or config.get("transformers_version") != version_of("transformers"):
        return None
    if (path / WEIGHTS).is_file() == (path / INDEX).is_file():
        return None
    try:
        stored = read_folder(path)
        check_claims(path, stored)
    except LayerswapError:  # loading says what is wrong
        return None
    places = known_places(config, stored)
    named = config.get("dtype") or config.get("torch_dtype")
    wanted = dtype if dtype != "auto" else named or next((tensor.dtype for tensor in stored.values()), "")
    if places is None or any(tensor.dtype != wanted for tensor in stored.values()):
        return None
    slots: dict[str, dict[str, Range]] = {slot: {} for slot in slot_names(places.layers)}
    for name, (slot, canonical) in places.tensors.items():
        slots[slot][canonical] = stored[name]
        for alias in places.tied[name]:
            slots["head"][alias] = stored[name]
    check_finite(stored)
    known: dict[tuple[str, ...], str] = {}
    digests = {}
    for slot, tensors in slots.items():
        ranges = [tensors[name] for name in sorted(tensors)]
        place = tuple(f"{tensor.path} {tensor.begin}" for tensor in ranges)
        if place not in known:  # a tied head is hashed once
            known[place] = _digest(ranges)
        digests[slot] = known[place]
    return Digests(digests, config_digest(config))


def _digest(tensors: list[Range]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        with tensor.path.open("rb") as stream:
            stream.seek(tensor.begin)
            left = tensor.end - tensor.begin
            for block in iter(partial(stream.read, min(_BLOCK, left)), b""):
                digest.update(block[:left])
                left -= min(left, len(block))
                if not left:
                    break
    return digest.hexdigest()


def _to_json(digests: Digests) -> str:
    return json.dumps({"slots": dict(digests.slot_digests), "config": digests.config_digest})


def _from_json(text: str) -> Digests | None:
    try:
        value = json.loads(text)
        return Digests({str(slot): str(digest) for slot, digest in value["slots"].items()}, str(value["config"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
