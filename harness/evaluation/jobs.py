"""The order in which a cluster's workers do jobs, of which some need what others have answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from harness.evaluation.planning import Task
from harness.evaluation.questions import Asked
from harness.evaluation.worker import Job


@dataclass
class Queue:
    """Jobs to be done, each after those whose answers are its drafts: ``after`` numbers them.

    ``left`` are those that no worker is at, the next one last.
    """

    jobs: Sequence[Job]
    after: Sequence[frozenset[int]]
    left: list[int]
    _answers: dict[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @cached_property
    def _lenders(self) -> frozenset[int]:
        return frozenset().union(*self.after)

    def take(self) -> tuple[int, Job] | None:
        """The next job that can be done, and its number, if there is one."""
        for at in range(len(self.left) - 1, -1, -1):
            if self.after[self.left[at]] <= self._answers.keys():
                number = self.left.pop(at)
                return number, self._with_drafts(number)
        return None

    def note(self, number: int, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """That a job is done; its answers are held if they are drafts."""
        self._answers[number] = answers if number in self._lenders else {}

    def _with_drafts(self, number: int) -> Job:
        job, after = self.jobs[number], sorted(self.after[number])
        if not after:
            return job
        given = [found for of in after for found in self._answers[of].values()]
        names = [pair for row in zip(job.rows, job.digests, strict=True) for pair in zip(*row, strict=True)]
        return replace(job, drafts={n: tuple(found[d] for found in given if d in found) for n, d in names})


def queue_of(asked: Sequence[Asked], tasks: Sequence[Task]) -> Queue:
    """The jobs of ``tasks``, in their order, but for those whose answers are drafts, which come first."""
    of_block: dict[int, list[int]] = {}
    for number, task in enumerate(tasks):
        of_block.setdefault(id(asked[task.block]), []).append(number)
    after = [frozenset(n for first in asked[task.block].before for n in of_block[id(first)]) for task in tasks]
    lenders = frozenset().union(*after)
    left = sorted(range(len(tasks)), key=lambda number: (number in lenders, -number))
    return Queue([asked[task.block].job(task) for task in tasks], after, left)
