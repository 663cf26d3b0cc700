"""Several pairs of experts in one run: a case is one recipe, evaluated with each pair on the columns that are its own.

Such as a language expert for every language, or several training runs of one. What lies below knows nothing of it: the
columns of a benchmark that share a pair are a benchmark of their own there, a *part*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from harness.evaluation.cells import Cell, keep_cell
from harness.evaluation.grid import Control, Grid
from harness.evaluation.scores import Sample, Score
from harness.evaluation.variants import Settings

if TYPE_CHECKING:
    from harness.evaluation.responses import Store
    from harness.plan import Plan
    from harness.profiles import BenchmarkSpec, Profile


@dataclass(frozen=True)
class Part:
    """The columns of a benchmark that are evaluated with one pair: under which name, and whose experts stand in."""

    name: str
    spec: BenchmarkSpec
    experts: Mapping[str, str]


def parts(profile: Profile, benchmark: str) -> tuple[Part, ...]:
    """The parts of a benchmark; the one that is evaluated with the profile's own experts keeps the benchmark's name."""
    spec = profile.benchmarks[benchmark]
    return tuple(
        Part(
            f"{benchmark}@{pair}" if pair else benchmark,
            spec.model_copy(update={"columns": tuple(c for c in spec.columns if c.pair == pair)}),
            profile.pairs.get(pair, {}),
        )
        for pair in dict.fromkeys(column.pair for column in spec.columns)
    )


def average(name: str, scores: Sequence[Score]) -> Score:
    """The documents of several columns as one column; one that several have counts once, with its mean over them.

    So answers of several pairs to one document are not taken for independent ones.
    """
    first = scores[0]
    facts = {key: " + ".join(dict.fromkeys(s.fingerprint.get(key, "") for s in scores)) for key in first.fingerprint}
    found: dict[str, list[tuple[float, str, Sample | None]]] = {}
    for score in scores:
        for i, (document, value) in enumerate(zip(score.documents, score.values, strict=True)):
            found.setdefault(document, []).append((value, score.column, score.samples[i] if score.samples else None))
    return replace(
        first,
        column=name,
        graded=first.graded or any(len(given) > 1 for given in found.values()),
        documents=tuple(found),
        values=tuple(round(fmean(value for value, _, _ in given), 7) for given in found.values()),
        fingerprint=facts,
        corpus={},
        samples=tuple(_sample(given) for given in found.values()) if first.samples else (),
    )


def _sample(given: Sequence[tuple[float, str, Sample | None]]) -> Sample:
    samples = [(column, sample) for _, column, sample in given if sample is not None]
    if len(samples) == 1:
        return samples[0][1]
    return replace(samples[0][1], answer=" | ".join(f"{column}: {sample.answer}" for column, sample in samples))


class PairGrid(Grid):
    """A :class:`Grid` whose cells hold the columns of all pairs, and their averages."""

    def __init__(self, settings: Settings, folder: Path, store: Store | None = None) -> None:
        super().__init__(settings, folder, store)
        self._specs = settings.profile.benchmarks
        self._pairs = settings.profile.pairs
        self._parts = {benchmark: parts(settings.profile, benchmark) for benchmark in self._specs}
        self._joined: dict[str, str] = {}

    @cached_property
    def built_from(self) -> Settings:
        found = {part.name: part.spec for of in self._parts.values() for part in of}
        return replace(self.settings, profile=self.settings.profile.model_copy(update={"benchmarks": found}))

    @property
    def editions(self) -> Mapping[str, str]:
        """The edition of every benchmark that has been asked for so far."""
        return {**super().editions, **self._joined}

    def expect(self, benchmark: str, plans: Iterable[Plan]) -> None:
        """See :meth:`Grid.expect`."""
        plans = tuple(plans)
        for part in self._parts[benchmark]:
            super().expect(part.name, [plan.renamed(part.experts) for plan in plans])

    def cell(self, plan: Plan, benchmark: str) -> Cell:
        """See :meth:`Grid.cell`; its identity is of all pairs' weights."""
        if self._is_plain(benchmark):
            return super().cell(plan, benchmark)
        plans = {part.name: plan.renamed(part.experts) for part in self._parts[benchmark]}
        identity = self._joined_identity(plan)
        edition = self._joined_edition(benchmark)
        if (known := self.cells.read(edition, benchmark, identity)) is not None:
            return known
        cells = [super(PairGrid, self).cell(of, name) for name, of in plans.items()]
        cell = Cell(
            identity,
            benchmark,
            self._scores(benchmark, [score for cell in cells for score in cell.scores]),
            sum(cell.seconds for cell in cells),
            sum(cell.merge_seconds for cell in cells),
            max(cell.peak_bytes for cell in cells),
        )
        keep_cell(self.store, edition, cell)
        self.cells.note(edition, cell)
        return cell

    def control(self, plan: Plan, expert: Plan, benchmark: str) -> Control:
        """See :meth:`Grid.control`; of every pair."""
        if self._is_plain(benchmark):
            return super().control(plan, expert, benchmark)
        found = [
            super(PairGrid, self).control(plan.renamed(part.experts), expert.renamed(part.experts), part.name)
            for part in self._parts[benchmark]
        ]
        documents = {column: counts for control in found for column, counts in control.documents.items()}
        for name, columns in self._specs[benchmark].averages.items():
            counts = [documents[column.name] for column in columns]
            documents[name] = (max(changed for changed, _ in counts), min(n for _, n in counts))
        return Control(tuple(tensor for control in found for tensor in control.tensors), documents)

    def _is_plain(self, benchmark: str) -> bool:
        return benchmark not in self._specs or not (self._pairs or self._specs[benchmark].averages)

    def _joined_identity(self, plan: Plan) -> str:
        """One for a case on all benchmarks, whichever pairs these use."""
        others = [self.identity(plan.renamed(experts)) for experts in self._pairs.values()]
        return _digest("pairs", self.identity(plan), *others) if others else self.identity(plan)

    def _scores(self, benchmark: str, found: Sequence[Score]) -> tuple[Score, ...]:
        known = {score.column: replace(score, benchmark=benchmark) for score in found}
        spec = self._specs[benchmark]
        own = [known[column.name] for column in spec.columns]
        return (*own, *(average(name, [known[c.name] for c in columns]) for name, columns in spec.averages.items()))

    def _joined_edition(self, benchmark: str) -> str:
        if benchmark not in self._joined:
            names = [column.name for column in self._specs[benchmark].columns]
            editions = [self._edition(part.name) for part in self._parts[benchmark]]
            self._joined[benchmark] = _digest(*names, *self._specs[benchmark].averages, *editions)
        return self._joined[benchmark]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
