"""What an evaluation yields: one value for every document, and where it came from. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import eq
from statistics import fmean
from typing import overload


@dataclass(frozen=True)
class Sample:
    """One document as a person would want to read it."""

    prompt: str
    answer: str
    target: str


class Samples(Sequence[Sample]):
    """Samples of many documents, each made when it is looked at: variants share prompts and targets."""

    def __init__(self, prompts: Sequence[str], answers: Sequence[str], targets: Sequence[str]) -> None:
        if not len(prompts) == len(answers) == len(targets):
            raise ValueError(f"{len(prompts)} prompts, {len(answers)} answers, {len(targets)} targets")
        self._prompts, self._answers, self._targets = prompts, answers, targets

    def __len__(self) -> int:
        return len(self._answers)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._prompts[index], self._answers[index], self._targets[index])
        return Sample(self._prompts[index], self._answers[index], self._targets[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((len(self), *self[:1]))


@dataclass(frozen=True)
class Score:
    """One variant on one *column*: a task in one language, with one metric.

    ``documents`` are content digests, ``values`` their scores in the same order, each in [0, 1] (chrF is divided
    by 100). ``graded`` is False for right/wrong metrics, whose values are 0 or 1. ``corpus`` holds metrics that
    only the whole corpus has (BLEU, chrF), in their usual units. ``fingerprint`` is everything that must agree
    for two scores to be comparable (task version, prompts, dtype, ...). ``higher_is_better`` is False for metrics of
    which less is better (an error rate): floors then bound them from above.
    """

    benchmark: str
    column: str
    metric: str
    graded: bool
    documents: tuple[str, ...]
    values: tuple[float, ...]
    fingerprint: Mapping[str, str]
    corpus: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if len(self.documents) != len(self.values):
            raise ValueError(f"{self.column}: {len(self.documents)} documents but {len(self.values)} values")

    @property
    def n(self) -> int:
        """Number of documents."""
        return len(self.values)

    @property
    def value(self) -> float:
        """Mean over documents, in [0, 1]."""
        return fmean(self.values)

    def restricted_to(self, documents: Sequence[str]) -> Score:
        """This score on ``documents`` alone, or as it is if it lacks one, so that comparing names the gap."""
        where = {document: i for i, document in enumerate(self.documents)}
        if any(document not in where for document in documents):
            return self
        kept = [where[document] for document in documents]
        return replace(
            self,
            documents=tuple(documents),
            values=tuple(self.values[i] for i in kept),
            samples=tuple(self.samples[i] for i in kept) if self.samples else (),
            corpus={},
        )
