"""Versions of installed packages, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


@lru_cache(maxsize=64)
def version_of(package: str) -> str:
    """The installed version, or nothing if the package is not there; looked up once a process."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are there."""
    return {package: found for package in packages if (found := version_of(package))}
