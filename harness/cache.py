"""Derived artifacts that are kept between runs: a figure, a bootstrap, what an analysis of weights found.

A key holds all that an artifact depends on: its inputs, the versions of the libraries that make it, and the source of
this package. So an artifact that is found is the one that would be made again, and an edit of either makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from harness.versions import version_of

_PACKAGE = Path(__file__).parent


class Cache(Protocol):
    """Where artifacts are kept: text by kind (``figure``, ``comparison``, ...) and key."""

    def document(self, kind: str, key: str) -> str | None:
        """The text that was added under a kind and key, or None."""

    def add_document(self, kind: str, key: str, text: str) -> None:
        """Keeps ``text``; adding the same again changes nothing."""


def kept(cache: Cache | None, kind: str, key: Callable[[], str], make: Callable[[], str]) -> str:
    """What ``make`` returns, from ``cache`` if it is there; ``key`` is not asked for without a cache."""
    if cache is None:
        return make()
    name = key()
    text = cache.document(kind, name)
    if text is None:
        text = make()
        cache.add_document(kind, name, text)
    return text


def key_of(value: object, *packages: str) -> str:
    """SHA-256 (hex) of a JSON-like value, of this package's source, and of the versions of ``packages``."""
    known = {package: version_of(package) for package in packages}
    text = json.dumps([value, known, sys.version_info[:2], source_digest()], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=4)
def source_digest(folder: Path = _PACKAGE) -> str:
    """SHA-256 (hex) of the Python files below ``folder``, read once a process; what builds the experts is left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("lab/"):
            data = path.read_bytes()
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()
