"""From a profile's benchmarks to lm-eval tasks whose requests are built once, and back to scores.

Everything that decides a score (prompts, filters, metrics) is lm-eval's own; this module only keeps the requests of
a task between variants, so that prompts are built once for the whole session.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.evaluation.scores import Sample, Score

if TYPE_CHECKING:
    from harness.profiles import ColumnSpec, Profile


def digest(value: object, length: int = 12) -> str:
    """Content digest of a JSON-like value (hex)."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def subset(total: int, limit: int | None, seed: int = 0) -> list[int]:
    """Which documents a limit keeps: a seeded sample in ascending order, not the first ones."""
    if limit is None or limit >= total:
        return list(range(total))
    return sorted(random.Random(f"limit {seed}").sample(range(total), limit))


@dataclass(frozen=True)
class Column:
    """One task of lm-eval with its requests built, and what names its score in a table."""

    benchmark: str
    spec: ColumnSpec
    task: Any
    instances: Sequence[Any]
    documents: tuple[str, ...]
    fingerprint: Mapping[str, str]

    def share(self, whole: Column, score: Score) -> Score | None:
        """This column's part of the score of ``whole``, or None if that is another task, or lacks a document."""
        if {**whole.fingerprint} != {**self.fingerprint} or not set(self.documents) <= set(whole.documents):
            return None
        return replace(score.restricted_to(self.documents), column=self.spec.name)

    def score(self, model: Any) -> Score:
        """Runs ``model`` (an ``lm_eval.api.model.LM``) on every document.

        The same calls in the same order as ``lm_eval.evaluate`` makes for one task.
        """
        instances = self.task._instances = list(self.instances)
        for instance in instances:
            instance.resps, instance.filtered_resps = [], {}
        for kind in dict.fromkeys(i.request_type for i in instances):
            batch = [i for i in instances if i.request_type == kind]
            for instance, response in zip(batch, getattr(model, kind)(batch, disable_tqdm=True), strict=True):
                instance.resps.append(response)
        self.task.apply_filters()
        by_document: dict[int, list[Any]] = {}
        for instance in instances:
            by_document.setdefault(instance.doc_id, []).append(instance)
        values: list[float] = []
        samples: list[Sample] = []
        corpus: dict[str, list[Any]] = {name: [] for name in self.spec.corpus}
        for group in by_document.values():
            group.sort(key=lambda i: i.idx)
            metrics = self.task.process_results(group[0].doc, [i.filtered_resps[self.spec.filter] for i in group])
            values.append(float(metrics[self.spec.metric]) / self.spec.scale)
            samples.append(_sample(self.task, group))
            for name, items in corpus.items():
                items.append(metrics[name])
        aggregate = self.task.aggregation()
        return Score(
            benchmark=self.benchmark,
            column=self.spec.name,
            metric=self.spec.metric,
            graded=self.spec.graded,
            documents=self.documents,
            values=tuple(values),
            fingerprint=self.fingerprint,
            corpus={name: float(aggregate[name](items)) for name, items in corpus.items()},
            samples=tuple(samples),
            higher_is_better=bool(self.task.higher_is_better().get(self.spec.metric, True)),
        )


def _sample(task: Any, group: Sequence[Any]) -> Sample:
    first = group[0]
    target = task.doc_to_target(first.doc)
    if first.request_type == "loglikelihood":
        best = max(range(len(group)), key=lambda i: group[i].resps[0][0])
        answer, target = (
            group[best].args[1].strip(),
            group[target].args[1].strip() if isinstance(target, int) else target,
        )
    else:
        answer = str(first.resps[0])
    return Sample(prompt=str(first.args[0]), answer=answer, target=str(target).strip())


def build_columns(profile: Profile, benchmark: str, limit: int | None, batch_size: int, dtype: str) -> list[Column]:
    """The columns of one benchmark with all their requests.

    Raises :class:`LayerswapError` if lm-eval knows no task of a name, a task has no document, or a task has no metric
    or filter of the name that the profile asks for.
    """
    columns = []
    tasks = _load_tasks(profile, [c.task for c in profile.benchmarks[benchmark].columns])
    for spec in profile.benchmarks[benchmark].columns:
        task = tasks[spec.task]
        total = len(task.eval_docs)
        if total == 0:
            raise LayerswapError(f"task {spec.task} of {benchmark} has no documents")
        random.seed(0)  # few-shot examples are drawn from the global generator by some of lm-eval's samplers
        task.set_fewshot_seed(seed=1234)
        # Built for all documents and then cut: a limit changes neither a document's prompt nor the prompts' digest.
        task.build_all_requests(rank=0, world_size=1)
        if spec.metric not in task.aggregation():
            known = ", ".join(task.aggregation())
            raise LayerswapError(f"task {spec.task} has no metric {spec.metric!r}: it has {known}")
        filters = [f.name for f in task._filters]
        if spec.filter not in filters:
            raise LayerswapError(f"task {spec.task} has no filter {spec.filter!r}: it has {', '.join(filters)}")
        prompts = [[str(a) for a in i.args] for i in task.instances]
        kept = [number for number, doc in {i.doc_id: i.doc for i in task.instances}.items() if spec.keeps(doc)]
        if not kept:
            raise LayerswapError(f"column {spec.name}: where = {spec.where!r} is true of no document of {spec.task}")
        chosen = {kept[i] for i in subset(len(kept), limit)}
        instances = [i for i in task.instances if i.doc_id in chosen]
        docs = {i.doc_id: i.doc for i in instances}
        fingerprint = {
            "task": spec.task,
            "version": str(task.VERSION if task.VERSION is not None else ""),
            "metric": f"{spec.metric}/{spec.filter}",
            "prompts": digest(sorted(digest(p) for p in prompts)),
            "dtype": dtype,
            "batch_size": str(batch_size),
        }
        columns.append(Column(benchmark, spec, task, instances, tuple(digest(d) for d in docs.values()), fingerprint))
        if len(set(columns[-1].documents)) != len(columns[-1].documents):
            raise LayerswapError(
                f"task {spec.task} holds the same document twice: remove one, documents must be distinct"
            )
    return columns


def _load_tasks(profile: Profile, names: Sequence[str]) -> dict[str, Any]:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    _keep_templates()
    # The default index reads some 14,000 YAML files: only a profile of stock tasks pays for it.
    folder = profile.task_folder
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        where = f"under {folder}" if folder else "in lm-eval"
        raise LayerswapError(f"profile {profile.name}: no task named {', '.join(unknown)} {where}")
    return dict(manager.load(list(names))["tasks"])


@cache
def _keep_templates() -> None:
    """lm-eval compiles a task's templates anew for every document, three milliseconds each; now once for each text."""
    from lm_eval import utils

    utils.env.from_string = cache(utils.env.from_string)
