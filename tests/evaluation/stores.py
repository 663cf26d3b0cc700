"""Stores with known content, and processes that use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from harness.evaluation.responses import Store

ROOT = Path(__file__).parents[2]


@cache
def request(number: int) -> str:
    return sha256(f"request {number}".encode()).hexdigest()


@cache
def variant(number: int) -> str:
    return sha256(f"variant {number}".encode()).hexdigest()


@cache
def answer(owner: int, number: int) -> Any:
    """What a variant answers: the keys make it, so that a wrong one is seen for what it is."""
    random = Random(f"{owner} {number}")
    if number % 5 == 0:
        return f"{owner} {number} " + " ".join(
            random.choice(["moja", "mbili", "tatu"]) for _ in range(random.randint(0, 80))
        )
    return [random.gauss(-10, 5), random.random() < 0.5]


@cache
def cell(number: int) -> str:
    return json.dumps({"cell": number, "values": [Random(number).random() for _ in range(200)]})


def fill(path: Path, variants: int = 3, requests: int = 400, documents: int = 12, **options: Any) -> None:
    store = Store(path, **options)
    for owner in range(variants):
        store.add_responses(variant(owner), {request(n): answer(owner, n) for n in range(requests)})
    for number in range(documents):
        store.add_document("cell", variant(number), cell(number))
    store.close()
    assert store.messages == []


def wrong_and_known(store: Store, variants: int = 3, requests: int = 400, documents: int = 12) -> tuple[int, int]:
    """How much of what :func:`fill` wrote comes back as something else, and how much as it was."""
    wrong = known = 0
    asked = [request(n) for n in range(requests)]
    for owner in range(variants):
        found = store.responses(variant(owner), asked)
        for number, name in enumerate(asked):
            known += found.get(name) == answer(owner, number)
            wrong += name in found and found[name] != answer(owner, number)
    for number in range(documents):
        text = store.document("cell", variant(number))
        known += text == cell(number)
        wrong += text not in (None, cell(number))
    return wrong, known


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another process that runs ``code``, which knows the names of this module."""
    program = f"import sys\nfrom pathlib import Path\nfrom tests.evaluation.stores import *\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out
