"""One benchmark for many variants: what the store knows is not asked again, all else is asked in one shared pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from harness.evaluation.engine import Counts, Engine, Sizes, cost_of
from harness.evaluation.memory import keep_pages
from harness.evaluation.requests import Encoder, Request
from harness.evaluation.sharing import Variant
from harness.evaluation.shortage import ShortOfMemoryError, halved, sparing, stock_answers
from harness.evaluation.trials import can_branch, can_score, can_share
from harness.evaluation.workers import threads_per_operation

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.responses import Store
    from harness.evaluation.scores import Score
    from harness.experts import LoadedExpert

SMALL = 1e6  # multiply-adds a token and layer, below which cores do better with a batch each than all with one
CACHED = 1024**2  # bytes of a layer's widest activations that stay in a core's cache
DECODING = 16384  # tokens whose keys and values a batch holds while it decodes


@dataclass
class Sweeper:
    """Asks benchmarks' requests of variants. ``example`` is an expert of the variants' architecture.

    ``engine_digest`` is of all that decides an answer beside weights and request. ``memory`` bounds hidden states.
    ``failed`` are the variants, by identity, that the last sweep had not enough memory for.
    """

    example: LoadedExpert
    tokenizer: Any
    device: str
    rows: int
    memory: int
    engine_digest: str
    counts: Counts = field(default_factory=Counts)
    failed: dict[str, ShortOfMemoryError] = field(default_factory=dict)
    _requests: dict[int, tuple[Column, list[Request], list[str]]] = field(default_factory=dict)

    def scores(
        self,
        columns: Sequence[Column],
        variants: Sequence[Variant],
        store: Store | None,
        done: Callable[[str, tuple[Score, ...]], None],
    ) -> None:
        """Every variant's scores on ``columns``, given to ``done`` with its identity, one variant after the other.

        Those that memory did not suffice for are left out, and noted in ``failed``.
        """
        self.failed = {}
        asked = [c for i, c in enumerate(columns) if not any(c.covered_by(whole) for whole in columns[:i])]
        answers = {id(column): self._answers(column, variants, store) for column in asked}
        for variant in variants:
            scores: list[Score] = []
            try:
                for column in columns:
                    shares = (column.share(whole, score) for whole, score in zip(columns, scores, strict=False))
                    shared = next((share for share in shares if share), None)
                    scores.append(shared or column.score(answers[id(column)][variant.identity]()))
            except ShortOfMemoryError as error:
                self.failed[variant.identity] = error
            else:
                done(variant.identity, tuple(scores))

    def _answers(
        self, column: Column, variants: Sequence[Variant], store: Store | None
    ) -> dict[str, Callable[[], list[Any]]]:
        """For every variant its responses to the column's instances, in their order."""
        if not (self._encoder.can(column.instances) and self._can_score):
            return {v.identity: partial(self._ask_stock, column, v) for v in variants}
        if id(column) not in self._requests:
            requests = self._encoder.encode(column.instances)
            # The column is kept too: another one in its place in memory would have its number.
            digests = [request.digest(self.engine_digest) for request in requests]
            self._requests[id(column)] = column, requests, digests
        _, requests, digests = self._requests[id(column)]
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
                asked = {number: requests[number] for number in some}
                scored = {n: r for n, r in asked.items() if r.stop is None}
                open_ = {n: r for n, r in asked.items() if r.stop is not None}
                with threads_per_operation(engine.sizes.within):
                    if scored:
                        engine.score(wanted, scored, keep)
                    if open_:
                        drafts = {n: [k[digests[n]] for k in known.values() if digests[n] in k] for n in open_}
                        engine.generate(wanted, open_, drafts, keep)

        # The engine is made where there is something to ask.
        left = [v for v in variants if any(digest not in known[v.identity] for digest in digests)]
        short = sparing(ask, self._engine, left) if left else set()

        def given(identity: str) -> list[Any]:
            if identity in short:
                raise ShortOfMemoryError(self.device, halved(self._engine).rows)
            return [known[identity][digest] for digest in digests]

        return {v.identity: partial(given, v.identity) for v in variants}

    def _ask_stock(self, column: Column, variant: Variant) -> list[Any]:
        def ask(rows: int) -> list[Any]:
            return column.ask(self.stock(variant.build(), rows))

        return stock_answers(ask, self.device, self.rows)

    def stock(self, model: Any, rows: int = 0) -> Any:
        """lm-eval's own wrapper of a variant, for requests that the shared engine does not answer."""
        from lm_eval.models.huggingface import HFLM

        # Log-likelihoods in float32 whatever the model's dtype; no token before the prompt unless the prompt has it.
        return HFLM(
            pretrained=model,
            tokenizer=self.tokenizer,
            batch_size=rows or self.rows,
            softmax_dtype="float32",
            add_bos_token=False,
        )

    @cached_property
    def _prefix(self) -> str:
        from harness.experts import layers_prefix

        return layers_prefix(self.example.model)

    @cached_property
    def _can_score(self) -> bool:
        return can_score(self.example.model, self._prefix, self.device)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.example.model, self.tokenizer)

    @cached_property
    def _engine(self) -> Engine:
        import torch

        model = self.example.model
        config = model.config.get_text_config()
        width = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        sizes = Sizes(self.rows, held_bytes=self.memory)
        if self.device == "cpu":
            keep_pages()
            sizes = replace(sizes, tokens=max(512, min(16384, CACHED // (4 * width))))
            if cost_of(model).linear < SMALL:
                sizes = replace(sizes, threads=min(8, torch.get_num_threads()), within=1)
            # A step of decoding costs much the same for few rows and for many.
            held = sizes.threads * _bytes_of_a_token(config, model.dtype)
            sizes = replace(sizes, decoding=max(4 * sizes.tokens, min(DECODING, self.memory // held)))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        return Engine(
            self.tokenizer,
            self._prefix,
            pad,
            self.device,
            sizes,
            cost_of(model) if can_branch(model, self._prefix, self.device) else None,
            can_share(model, self._prefix, self.device),
            self.counts,
        )


def _bytes_of_a_token(config: Any, dtype: Any) -> int:
    """What a token's keys and values take, in all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * dtype.itemsize)


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
