"""Cells of the grid, as they are kept: what all variants have in common once, and what one of them came to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.cache import Cache
from harness.evaluation.scores import Samples, Score

CELL, COLUMNS = "cell", "columns"


@dataclass(frozen=True)
class Cell:
    """The scores of one variant on one benchmark, and what computing them took.

    A sweep computes many cells at once, so ``seconds`` is this cell's part of its sweep. ``merge_seconds`` is 0 where
    the variant stood already. ``peak_bytes``: see :mod:`harness.evaluation.memory`.
    """

    identity: str
    benchmark: str
    scores: tuple[Score, ...]
    seconds: float
    merge_seconds: float = 0.0
    peak_bytes: int = 0


def key_of(edition: str, identity: str = "") -> str:
    """What a variant's cell is kept under, or an edition's columns."""
    return hashlib.sha256(f"{edition} {identity}".encode()).hexdigest()


def keep_cell(store: Cache, edition: str, cell: Cell) -> None:
    """Keeps ``cell``; its prompts and targets are kept once for the edition."""
    if store.document(COLUMNS, key_of(edition)) is None:
        shared = [
            {
                **{
                    k: v
                    for k, v in asdict(replace(score, samples=())).items()
                    if k not in ("values", "corpus", "samples")
                },
                "prompts": [sample.prompt for sample in score.samples],
                "targets": [sample.target for sample in score.samples],
            }
            for score in cell.scores
        ]
        store.add_document(COLUMNS, key_of(edition), json.dumps(shared))
    own = [
        {
            "values": score.values,
            "corpus": dict(score.corpus),
            "answers": [sample.answer for sample in score.samples],
        }
        for score in cell.scores
    ]
    data = {
        "scores": own,
        "seconds": cell.seconds,
        "merge_seconds": cell.merge_seconds,
        "peak_bytes": cell.peak_bytes,
    }
    store.add_document(CELL, key_of(edition, cell.identity), json.dumps(data))


class CellReader:
    """Reads kept cells; what an edition's variants have in common is read once."""

    def __init__(self, store: Cache) -> None:
        self._store = store
        self._shared: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._known: dict[tuple[str, str], Cell] = {}

    def note(self, edition: str, cell: Cell) -> None:
        """Takes a cell that has just been computed for read."""
        self._known[edition, cell.identity] = cell

    def read(self, edition: str, benchmark: str, identity: str) -> Cell | None:
        """The cell of a variant, or None if it is not kept."""
        if (edition, identity) in self._known:
            return self._known[edition, identity]
        text = self._store.document(CELL, key_of(edition, identity))
        if text is None:
            return None
        if edition not in self._shared:
            shared = self._store.document(COLUMNS, key_of(edition))
            if shared is None:
                return None
            self._shared[edition] = [
                {**s, "documents": tuple(s["documents"]), "prompts": tuple(s["prompts"])} for s in json.loads(shared)
            ]
        data = json.loads(text)
        scores = tuple(_score(s, own) for s, own in zip(self._shared[edition], data.pop("scores"), strict=True))
        self.note(edition, Cell(identity, benchmark, scores, **data))
        return self._known[edition, identity]


def _score(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Score:
    common = {k: v for k, v in shared.items() if k not in ("prompts", "targets")}
    samples = Samples(shared["prompts"], own["answers"], shared["targets"])
    return Score(**common, values=tuple(own["values"]), corpus=own["corpus"], samples=samples)
