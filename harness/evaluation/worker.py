"""What one process of a cluster does: it holds a profile's experts, and answers jobs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.stock import Stock
    from harness.evaluation.sweep import Sweeper
    from harness.evaluation.variants import Settings, Variants
    from harness.plan import Plan


@dataclass(frozen=True)
class Job:
    """Requests of one column, by the rows that they are packed in, for some plans.

    ``rows`` are numbers of requests and ``digests`` what they are kept under, if the worker has the same documents,
    code and libraries. ``drafts`` are answers of other variants, by number.
    """

    benchmark: str
    column: int
    plans: tuple[Plan, ...]
    rows: tuple[tuple[int, ...], ...]
    digests: tuple[tuple[str, ...], ...]
    drafts: Mapping[int, Sequence[str]] = field(default_factory=dict)


class Worker:
    """Answers jobs of a grid with ``settings``, if it finds experts of these slot digests, by name.

    ``engine_digest`` is what the others answer with: see :func:`harness.evaluation.editions.engine_digest`.
    """

    def __init__(self, settings: Settings, digests: Mapping[str, Mapping[str, str]], engine_digest: str) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("TQDM_DISABLE", "1")
        self._settings, self._digests, self._engine = settings, digests, engine_digest
        self._columns: dict[str, list[Column]] = {}

    def ready(self) -> str:
        """The node's name, once everything is found and checked. LayerswapError if it is not what the others have."""
        from harness.evaluation.editions import engine_digest

        node = socket.gethostname()
        if engine_digest(self._settings) != self._engine:
            raise LayerswapError(
                f"node {node} would not answer as this process does: code, libraries, tokenizer or batch size differ"
            )
        try:
            self._variants.know(list(self._digests))
        except LayerswapError as error:
            raise LayerswapError(
                f"node {node}: {error}; an expert must be a hub id, or a folder that every node sees under one path"
            ) from None
        for name, expected in self._digests.items():
            if dict(self._variants.digests[name].slot_digests) != dict(expected):
                path = self._settings.profile.expert_path(name)
                raise LayerswapError(f"node {node}: the expert {name} in {path} has other weights than here")
        if self._settings.backend != "vllm":
            self._variants.load(self._digests)
        return node

    def answer(self, job: Job) -> tuple[float, dict[str, dict[str, Any]], dict[str, float]]:
        """Processor seconds, and answers by variant and by digest of the request; and seconds of merging, by variant.

        These are of variants that this worker had not met, and are not in the former: no task by itself has them.
        """
        columns, started, before = self._built(job.benchmark), time.process_time(), set(self._variants.spent)
        column = columns[job.column]
        digests = self._asker.digests(column)
        if tuple(tuple(digests[number] for number in row) for row in job.rows) != job.digests:
            raise LayerswapError(
                f"node {socket.gethostname()}: the documents of {column.spec.task} are others than here: every node "
                "must have the same --ablation-data"
            )
        found: dict[str, dict[str, Any]] = {}

        def keep(identity: str, answers: Mapping[int, Any]) -> None:
            found.setdefault(identity, {}).update({digests[number]: answer for number, answer in answers.items()})

        variants = [self._variants.variant(plan) for plan in job.plans]
        self._asker.ask(column, variants, job.rows, keep, job.drafts)
        merging = {name: spent for name, spent in self._variants.spent.items() if name not in before}
        return time.process_time() - started - sum(merging.values()), found, merging

    @cached_property
    def _variants(self) -> Variants:
        from harness.digests import default_cache
        from harness.evaluation.variants import Variants

        return Variants(self._settings, default_cache())

    @cached_property
    def _asker(self) -> Sweeper | Stock:
        from harness.evaluation.backends import asker

        return asker(self._variants)

    def _built(self, benchmark: str) -> list[Column]:
        from harness.evaluation.benchmarks import build_columns

        if benchmark not in self._columns:
            settings, profile = self._settings, self._settings.profile
            self._columns[benchmark] = build_columns(
                profile, benchmark, settings.limit, profile.batch_size, settings.dtype
            )
        return self._columns[benchmark]
