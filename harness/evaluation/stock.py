"""lm-eval's own model classes, a variant at a time: the reference, and whoever answers what the shared engine does not.

Answers are kept like the engine's, under digests of the requests' texts and of what answers them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.costs import CHARACTERS
from harness.evaluation.engine import Counts, Keep
from harness.evaluation.planning import Piece
from harness.evaluation.sharing import Variant
from harness.evaluation.shortage import ShortOfMemoryError, score_each

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.responses import Store
    from harness.evaluation.scores import Score

Open = Callable[[Variant], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Portion:
    """A piece of a column, and the numbers of its requests, by the rows that they must be packed into."""

    piece: Piece
    rows: tuple[tuple[int, ...], ...]


@dataclass
class Stock:
    """Asks benchmarks' requests of an ``lm_eval.api.model.LM``.

    ``open_variant`` gives a variant's for as long as its block runs. ``engine_digest`` is of all that decides an answer
    beside weights and request.
    """

    open_variant: Open
    engine_digest: str
    counts: Counts = field(default_factory=Counts)
    failed: dict[str, ShortOfMemoryError] = field(default_factory=dict)
    _digests: dict[int, tuple[Column, list[str]]] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _opened: tuple[str, Any] = ("", None)

    def scores(
        self,
        columns: Sequence[Column],
        variants: Sequence[Variant],
        store: Store | None,
        done: Callable[[str, tuple[Score, ...]], None],
        others: Sequence[Variant] = (),
    ) -> None:
        """As :meth:`harness.evaluation.sweep.Sweeper.scores`."""
        with self:
            self.failed = score_each(columns, variants, lambda column, v: self.answers(column, v, store), done)

    def answers(self, column: Column, variant: Variant, store: Store | None) -> list[Any]:
        """A variant's responses to the column's instances, in their order."""
        digests = self.digests(column)
        known = dict(store.responses(variant.identity, digests)) if store else {}

        def keep(identity: str, found: Mapping[int, Any]) -> None:
            named = {digests[number]: answer for number, answer in found.items()}
            known.update(named)
            if store:
                store.add_responses(identity, named)

        missing = {digest: number for number, digest in enumerate(digests) if digest not in known}
        self.ask(column, [variant], (tuple(sorted(missing.values())),), keep)
        return [known[digest] for digest in digests]

    def ask(
        self,
        column: Column,
        variants: Sequence[Variant],
        rows: Sequence[Sequence[int]],
        keep: Keep,
        drafts: Mapping[int, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Gives ``keep`` every variant's answers to the requests whose numbers ``rows`` hold."""
        numbers = [number for row in rows for number in row]
        if not numbers:
            return
        asked = replace(column, instances=[column.instances[number] for number in numbers])
        for variant in variants:
            found = asked.ask(self._model(variant))
            keep(variant.identity, dict(zip(numbers, map(_plain, found), strict=True)))

    def digests(self, column: Column) -> list[str]:
        """What each of the column's requests is kept under."""
        if id(column) not in self._digests:
            self._digests[id(column)] = column, [_digest(self.engine_digest, i) for i in column.instances]
        return self._digests[id(column)][1]

    def shares(self, column: Column) -> bool:
        """Whether variants share layers while they are asked."""
        return False

    def portions(self, column: Column, without: Container[str] = ()) -> list[Portion]:
        """The column in one piece, as a batch of lm-eval's own is made of all that it is asked; but for ``without``."""
        distinct = {digest: number for number, digest in enumerate(self.digests(column)) if digest not in without}
        if not distinct:
            return []
        asked = [column.instances[number] for number in distinct.values()]
        tokens = sum(len(str(argument)) for i in asked for argument in i.args if isinstance(argument, str))
        written = sum(i.args[1].get("max_gen_toks", 256) // 2 for i in asked if i.request_type == "generate_until")
        piece = Piece(len(asked), round(tokens / CHARACTERS), len(asked), written)
        return [Portion(piece, (tuple(distinct.values()),))]

    def tokens(self, text: str) -> int:
        """About how many tokens an answer has, with the one that ends it."""
        return round(len(text) / CHARACTERS) + 1

    def _model(self, variant: Variant) -> Any:
        """A variant's model, which stays for the next column; that of another variant goes first."""
        if self._opened[0] != variant.identity:
            self.close()
            self._opened = variant.identity, self._open.enter_context(self.open_variant(variant))
        return self._opened[1]

    def close(self) -> None:
        """Lets go of the model that was used last."""
        self._opened = ("", None)
        self._open.close()

    def __enter__(self) -> Stock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hf_model(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """lm-eval's own wrapper of a transformers model.

    Log-likelihoods in float32 whatever the model's dtype; no token before the prompt unless the prompt has it.
    """
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32", add_bos_token=False
    )


def _digest(engine: str, instance: Any) -> str:
    text = json.dumps([engine, "text", instance.request_type, instance.args], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(answer: Any) -> Any:
    """An answer as it is kept: numbers of numpy or torch as Python's own."""
    return [float(answer[0]), bool(answer[1])] if isinstance(answer, (tuple, list)) else answer
