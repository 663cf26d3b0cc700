"""One benchmark for many variants: what the store knows is not asked again, all else is asked in one shared pass."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.evaluation.benchmarks import distinct
from harness.evaluation.drafts import ANCHORS
from harness.evaluation.editions import stock_digest
from harness.evaluation.engine import Counts, Engine, Keep
from harness.evaluation.graphs import Graphs
from harness.evaluation.memory import keep_pages
from harness.evaluation.planning import Piece
from harness.evaluation.requests import Encoder, Request
from harness.evaluation.sharing import Variant
from harness.evaluation.shortage import ShortOfMemoryError, halved, score_each, sparing, stock_answers
from harness.evaluation.sizing import sizes_of
from harness.evaluation.stock import Portion, Stock, hf_model
from harness.evaluation.trials import can_branch, can_score, can_share, can_step, cost_of
from harness.evaluation.workers import threads_per_operation

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.responses import Store
    from harness.evaluation.room import Room
    from harness.evaluation.scores import Score
    from harness.experts import LoadedExpert


Answers = Callable[["Column", Variant], list[Any]]


@dataclass
class Sweeper:
    """Asks benchmarks' requests of variants. ``example`` is an expert of the variants' architecture.

    ``engine_digest`` is of all that decides an answer beside weights and request. ``memory`` bounds hidden states.
    ``place`` is where ``example`` is, if not on ``device``: variants that others ask may not fit here. ``room`` is how
    the memory of a GPU is divided, and ``hold`` puts ``example`` there. ``failed`` are the variants, by identity, that
    the last sweep had not enough memory for.
    """

    example: LoadedExpert
    tokenizer: Any
    device: str
    rows: int
    memory: int
    engine_digest: str
    place: str = ""
    room: Room | None = None
    hold: Callable[[], object] = lambda: None
    counts: Counts = field(default_factory=Counts)
    failed: dict[str, ShortOfMemoryError] = field(default_factory=dict)
    _requests: dict[int, tuple[Column, list[Request], list[str]]] = field(default_factory=dict)

    def scores(
        self,
        columns: Sequence[Column],
        variants: Sequence[Variant],
        store: Store | None,
        done: Callable[[str, tuple[Score, ...]], None],
        others: Sequence[Variant] = (),
    ) -> None:
        """Every variant's scores on ``columns``, given to ``done`` with its identity, one variant after the other.

        Those that memory did not suffice for are left out, and noted in ``failed``. Answers of ``others`` that the
        store has are drafts.
        """
        answers: dict[int, Answers] = {}
        for some in self._together(distinct(columns)):
            answers |= dict.fromkeys(map(id, some), self._answers(some, variants, store, others))
        with self._stock:
            self.failed = score_each(columns, variants, lambda column, v: answers[id(column)](column, v), done)

    def answer(self, column: Column, variants: Sequence[Variant], store: Store, others: Sequence[Variant]) -> None:
        """Has the store know the variants' answers, as far as memory suffices; ``others``: see :meth:`scores`."""
        self._answers([column], variants, store, others)

    def answers(self, column: Column) -> bool:
        """Whether the shared engine answers the column's requests, and not lm-eval's own model class."""
        return self._can(column)

    def _together(self, columns: Sequence[Column]) -> list[list[Column]]:
        """Columns by whom they are asked with: answers that are written fill batches that go on longest together."""
        groups: dict[object, list[Column]] = {}
        for column in columns:
            written = self._can(column) and all(r.stop is not None for r in self._encoded(column)[0])
            groups.setdefault("written" if written else id(column), []).append(column)
        return list(groups.values())

    def _answers(
        self,
        columns: Sequence[Column],
        variants: Sequence[Variant],
        store: Store | None,
        others: Sequence[Variant] = (),
    ) -> Answers:
        """Gives a variant's responses to the instances of one of ``columns``, in their order; all are asked as one."""
        if not all(map(self._can, columns)):
            return partial(self._ask_stock, store)
        requests = [request for column in columns for request in self._encoded(column)[0]]
        digests = [digest for column in columns for digest in self._encoded(column)[1]]
        known: dict[str, dict[str, Any]] = {
            v.identity: store.responses(v.identity, digests) if store else {} for v in variants
        }

        def keep(identity: str, found: Mapping[int, Any]) -> None:
            named = {digests[number]: answer for number, answer in found.items()}
            known[identity].update(named)
            if store:
                store.add_responses(identity, named)

        def ask(engine: Engine, of: Sequence[Variant]) -> None:
            for missing, some in _missing(digests, of, known).items():
                wanted = [v for v in of if v.identity in missing]
                given = [*known.values(), *lent]
                drafts = {n: [k[digests[n]] for k in given if digests[n] in k] for n in some}
                _ask(engine, wanted, {number: requests[number] for number in some}, drafts, keep)

        # The engine is made where there is something to ask.
        left = [v for v in variants if any(digest not in known[v.identity] for digest in digests)]
        written = [digest for digest, request in zip(digests, requests, strict=True) if request.stop is not None]
        lent = _lent(store, left, others, written) if store and left and written else []
        short = sparing(ask, self._engine, left) if left else set()

        def given(column: Column, variant: Variant) -> list[Any]:
            if variant.identity in short:
                raise ShortOfMemoryError(self.device, halved(self._engine).rows)
            return [known[variant.identity][digest] for digest in self._encoded(column)[1]]

        return given

    def _ask_stock(self, store: Store | None, column: Column, variant: Variant) -> list[Any]:
        def ask(rows: int) -> list[Any]:
            return (self._stock if rows == self.rows else self._stock_of(rows)).answers(column, variant, store)

        return stock_answers(ask, self.device, self.rows)

    def ask(
        self,
        column: Column,
        variants: Sequence[Variant],
        rows: Sequence[Sequence[int]],
        keep: Keep,
        drafts: Mapping[int, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Gives ``keep`` every variant's answers to the requests whose numbers ``rows`` hold (see :class:`Portion`).

        ``drafts`` are answers of other variants.
        """
        if not self._can(column):
            return self._stock.ask(column, variants, rows, keep)
        requests, _ = self._encoded(column)
        asked = {number: requests[number] for row in rows for number in row}
        _ask(self._engine, variants, asked, drafts, keep, [i for i, row in enumerate(rows) for _ in row])

    def digests(self, column: Column) -> list[str]:
        """What each of the column's requests is kept under."""
        return self._encoded(column)[1] if self._can(column) else self._stock.digests(column)

    def shares(self, column: Column) -> bool:
        """Whether variants share layers while they are asked."""
        return self._can(column) and self._engine.share

    def tokens(self, text: str) -> int:
        """How many tokens an answer has, with the one that ends it."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    def portions(self, column: Column, without: Container[str] = ()) -> list[Portion]:
        """The column's distinct requests in the least pieces that can be asked apart: batches of the engine.

        Left out are those ``without``, by their digests, which another column has asked.
        Answers written token by token may be asked in any company; they come in as many as a batch has rows.
        """
        if not self._can(column):
            return self._stock.portions(column, without)
        requests, digests = self._encoded(column)
        numbers_of = {digest: number for number, digest in enumerate(digests) if digest not in without}
        asked = {number: requests[number] for number in numbers_of.values()}
        scored = {n: r for n, r in asked.items() if r.stop is None}
        found = []
        for batch, rows in self._engine.batches(scored) if scored else ():
            numbers = [n for row in rows for n in row]
            read = sum(len(requests[n].continuation) for n in numbers)
            found.append(Portion(Piece(len(numbers), batch.size, read), rows))
        open_ = sorted((r.context, n, r.stop.most) for n, r in asked.items() if r.stop is not None)
        for some in (open_[i : i + self.rows] for i in range(0, len(open_), self.rows)):
            read, written = sum(len(context) for context, _, _ in some), sum(most for *_, most in some)
            found.append(Portion(Piece(len(some), read, written // 2, written // 2), tuple((n,) for _, n, _ in some)))
        return found

    def _can(self, column: Column) -> bool:
        return self._encoder.can(column.instances) and self._can_score

    def _encoded(self, column: Column) -> tuple[list[Request], list[str]]:
        if id(column) not in self._requests:
            requests = self._encoder.encode(column.instances)
            # The column is kept too: another one in its place in memory would have its number.
            digests = [request.digest(self.engine_digest) for request in requests]
            self._requests[id(column)] = column, requests, digests
        return self._requests[id(column)][1:]

    @cached_property
    def _stock(self) -> Stock:
        return self._stock_of(self.rows)

    def _stock_of(self, rows: int) -> Stock:
        digest = f"{self.engine_digest} {stock_digest()}"
        return Stock(lambda variant: nullcontext(self.stock(variant.build(), rows)), digest)

    def stock(self, model: Any, rows: int = 0) -> Any:
        """lm-eval's own wrapper of a variant, for requests that the shared engine does not answer."""
        return hf_model(model, self.tokenizer, rows or self.rows)

    @cached_property
    def _prefix(self) -> str:
        from harness.experts import layers_prefix

        return layers_prefix(self.example.model)

    @cached_property
    def _can_score(self) -> bool:
        self.hold()
        return can_score(self.example.model, self._prefix, self.place or self.device)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.example.model, self.tokenizer)

    @cached_property
    def _engine(self) -> Engine:
        self.hold()
        model = self.example.model
        sizes = sizes_of(model, self.rows, self.memory, self.device, self.room)
        if self.device == "cpu":
            keep_pages()
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        place = self.place or self.device
        return Engine(
            self.tokenizer,
            self._prefix,
            pad,
            self.device,
            sizes,
            cost_of(model) if can_branch(model, self._prefix, place) else None,
            can_share(model, self._prefix, place),
            self.counts,
            Graphs() if place.startswith("cuda") and can_step(model) else None,
        )


def _ask(
    engine: Engine,
    variants: Sequence[Variant],
    asked: Mapping[int, Request],
    drafts: Mapping[int, Sequence[str]],
    keep: Keep,
    apart: Sequence[int] | None = None,
) -> None:
    scored = {n: r for n, r in asked.items() if r.stop is None}
    open_ = {n: r for n, r in asked.items() if r.stop is not None}
    with threads_per_operation(engine.sizes.within):
        if scored:
            engine.score(variants, scored, keep, **({} if apart is None else {"apart": apart}))
        if open_:
            engine.generate(variants, open_, {n: drafts.get(n, ()) for n in open_}, keep)


def _lent(
    store: Store, variants: Sequence[Variant], others: Sequence[Variant], digests: Sequence[str]
) -> list[Mapping[str, Any]]:
    """What others have answered, if all: of :data:`ANCHORS` of them, those most like ``variants``."""
    own, wanted = {v.identity for v in variants}, set(digests)

    def unlike(other: Variant) -> int:
        return min(sum(x != y for x, y in zip(v.slots, other.slots, strict=True)) for v in variants)

    ordered = sorted((v for v in others if v.identity not in own), key=lambda v: (unlike(v), v.identity))
    found = (store.responses(v.identity, list(wanted)) for v in ordered)
    return list(islice((known for known in found if len(known) == len(wanted)), ANCHORS))


def _missing(
    digests: Sequence[str], variants: Sequence[Variant], known: Mapping[str, Mapping[str, Any]]
) -> dict[frozenset[str], list[int]]:
    """Requests by the set of variants that have yet to answer them; a request that comes twice is asked once."""
    groups: dict[frozenset[str], list[int]] = {}
    for digest, number in {digest: number for number, digest in enumerate(digests)}.items():
        missing = frozenset(v.identity for v in variants if digest not in known[v.identity])
        if missing:
            groups.setdefault(missing, []).append(number)
    return groups
