"""A run's benchmarks in parts, for the processes of one machine: nothing is computed twice that one would share.

Log-likelihoods are cut by documents, at the borders of the engine's batches: each batch, with all variants, is the one
that a single process would ask. Answers written token by token are not: a batch of half the documents takes more than
half as long. There each variant whose answers are drafts for all others is a part, and then runs of variants are,
which begin with these drafts. Metrics are computed with the runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError, out_of_memory
from harness.evaluation.benchmarks import CODE, distinct
from harness.evaluation.drafts import ANCHORS, anchor
from harness.evaluation.sandbox import no_sandbox
from harness.evaluation.teamwork import Part, Team
from harness.merging.residence import free_memory

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.grid import Grid
    from harness.evaluation.sharing import Variant
    from harness.plan import Plan

DOCUMENTS = 4  # runs of documents that a column is cut into, a worker
VARIANTS = 3  # runs of variants, a worker


class Division:
    """What the processes of a run do of ``grid``, which each of them has; ``folder`` is theirs in common."""

    def __init__(self, grid: Grid, folder: Path) -> None:
        self._grid, self._team = grid, Team(folder)
        self._known: dict[str, list[Part]] = {}
        self._avoided: set[str] = set()

    def answer(self, benchmark: str, identity: str) -> None:
        """Does parts of a benchmark that no other process is at, until a variant's cell is there or nothing is left.

        What others are at is waited for only where no benchmark has anything left to do.
        """
        while left := self._team.left(self._parts(benchmark)):
            if self._team.attempt(left):
                continue
            if self._grid.known(benchmark, identity) is not None:
                return
            if not self._help(benchmark):
                self._team.wait(left)

    def _help(self, besides: str) -> bool:
        """Does a part of another benchmark; whether there was one."""
        for benchmark in self._grid.expected:
            code = benchmark.partition("@")[0] in CODE and not self._grid.settings.unsafe_code
            if benchmark == besides or benchmark in self._avoided or (code and no_sandbox()):
                continue  # items of the last are skipped
            try:
                if self._team.attempt(self._parts(benchmark)):
                    return True
            except LayerswapError:  # for its own items to say
                self._avoided.add(benchmark)
        return False

    def _parts(self, benchmark: str) -> list[Part]:
        """What gives the cells that were missing when the first process asked."""
        if benchmark not in self._known:
            grid, team = self._grid, self._team
            text = team.agreed(benchmark, lambda: json.dumps([grid.identity(p) for p in grid.missing(benchmark)]))
            known = grid.plans(benchmark)
            plans = [known[identity] for identity in json.loads(text) if identity in known]
            asking = self._asking(benchmark, plans) if plans and grid.settings.backend == "shared" else []

            def cells(run: Sequence[Plan]) -> None:
                spent = sum(team.seconds(part) or 0.0 for part in asking)
                grid.sweep(run, benchmark, spent / len(plans))

            runs = even([1] * len(plans), VARIANTS * grid.settings.workers)
            last = [Part(f"{benchmark} cells {a}-{b}", partial(cells, plans[a:b]), tuple(asking)) for a, b in runs]
            self._known[benchmark] = asking + last
        return self._known[benchmark]

    def _asking(self, benchmark: str, plans: Sequence[Plan]) -> list[Part]:
        """Parts after which the store has every log-likelihood, and drafts of what is written."""
        grid = self._grid
        asker: Any = grid.asker  # a Sweeper, with this backend
        grid.load(dict.fromkeys(name for plan in plans for name in plan.experts))
        variants = [grid.variants.variant(plan) for plan in plans]
        others = [grid.variants.variant(plan) for plan in grid.plans(benchmark).values()]
        columns, before = grid.columns(benchmark), set[str]()
        first: list[Part] = []
        then: list[Part] = []
        for number, column in enumerate(columns):
            if not any(column is other for other in distinct(columns)) or not asker.answers(column):
                continue
            portions = asker.portions(column, before)
            before |= set(asker.digests(column))
            if any(portion.piece.written for portion in portions):
                for variant in anchor(variants, ANCHORS):
                    work = partial(asker.answer, column, [variant], grid.store, others)
                    first.append(Part(f"{benchmark} {number} {variant.identity}", work))
            scored = [portion for portion in portions if not portion.piece.written]
            for a, b in even([portion.piece.tokens for portion in scored], DOCUMENTS * grid.settings.workers):
                rows = [row for portion in scored[a:b] for row in portion.rows]
                then.append(Part(f"{benchmark} {number} {a}-{b}", partial(self._score, column, variants, rows)))
        return first + then

    def _score(self, column: Column, variants: Sequence[Variant], rows: Sequence[tuple[int, ...]]) -> None:
        """Asks rows of requests of the variants that have yet to answer one of them."""
        asker: Any = self._grid.asker
        store, digests = self._grid.store, asker.digests(column)
        wanted = list({digests[number] for row in rows for number in row})
        left = [variant for variant in variants if len(store.responses(variant.identity, wanted)) < len(wanted)]

        def keep(identity: str, answers: Mapping[int, Any]) -> None:
            store.add_responses(identity, {digests[number]: answer for number, answer in answers.items()})

        try:
            if left:
                asker.ask(column, left, rows, keep)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
        free_memory(asker.device)  # whoever computes the cells asks again, in smaller batches


def even(amounts: Sequence[float], count: int) -> list[tuple[int, int]]:
    """``amounts`` in at most so many runs of about equal sums, as half-open ranges; none is empty."""
    sums = list(accumulate(amounts, initial=0))
    cuts = {min(range(len(sums)), key=lambda i: abs(sums[i] - sums[-1] * k / count)) for k in range(1, count)}
    return list(pairwise(sorted({0, len(amounts), *cuts})))
