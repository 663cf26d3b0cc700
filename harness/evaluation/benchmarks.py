"""From a profile's benchmarks to lm-eval tasks whose requests are built once, and back to scores.

Everything that decides a score (prompts, filters, metrics) is lm-eval's own; this module only keeps the requests of
a task between variants, so that prompts are built once for the whole session.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.evaluation.scores import Sample, Score
from harness.profiles import OWN_TASKS

if TYPE_CHECKING:
    from harness.evaluation.sharing import Variant
    from harness.profiles import ColumnSpec, Profile

CODE = ("mbpp",)  # benchmarks that run what a model wrote


def digest(value: object, length: int = 12) -> str:
    """Content digest of a JSON-like value (hex)."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def subset(total: int, limit: int | None, seed: int = 0) -> list[int]:
    """Which documents a limit keeps: a seeded sample in ascending order, not the first ones.

    Raises :class:`LayerswapError` for a limit that would keep none.
    """
    if limit is not None and limit < 1:
        raise LayerswapError(f"the limit is {limit}: expected a whole number of documents, 1 or more")
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

    def covered_by(self, whole: Column) -> bool:
        """Whether ``whole`` is the same task with every document of this column."""
        return {**whole.fingerprint} == {**self.fingerprint} and set(self.documents) <= set(whole.documents)

    def part(self, most: int) -> Column:
        """At most so many of the documents, a seeded sample."""
        ids = list(dict.fromkeys(instance.doc_id for instance in self.instances))
        kept = subset(len(ids), most)
        chosen = {ids[i] for i in kept}
        instances = [instance for instance in self.instances if instance.doc_id in chosen]
        return replace(self, instances=instances, documents=tuple(self.documents[i] for i in kept))

    def share(self, whole: Column, score: Score) -> Score | None:
        """This column's part of the score of ``whole``, or None if that does not cover it."""
        if not self.covered_by(whole):
            return None
        return replace(score.restricted_to(self.documents), column=self.spec.name)

    def ask(self, model: Any) -> list[Any]:
        """What an ``lm_eval.api.model.LM`` responds to every instance, asked as ``lm_eval.evaluate`` asks."""
        found: dict[int, Any] = {}
        for kind in dict.fromkeys(i.request_type for i in self.instances):
            numbers = [n for n, i in enumerate(self.instances) if i.request_type == kind]
            batch = [self.instances[n] for n in numbers]
            found.update(zip(numbers, getattr(model, kind)(batch, disable_tqdm=True), strict=True))
        return [found[n] for n in range(len(self.instances))]

    def score(self, responses: Sequence[Any]) -> Score:
        """The score of a response to every instance, by the task's own filters and metrics."""
        instances = self.task._instances = list(self.instances)
        for instance, response in zip(instances, responses, strict=True):
            instance.resps, instance.filtered_resps = [response], {}
        self.task.apply_filters()
        values: list[float] = []
        samples: list[Sample] = []
        corpus: dict[str, list[Any]] = {name: [] for name in self.spec.corpus}
        for document, metrics in zip(self._by_document, self._all_metrics(), strict=True):
            values.append(float(metrics[self.spec.metric]) / self.spec.scale)
            samples.append(document.sample())
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

    def _all_metrics(self) -> Sequence[Mapping[str, Any]]:
        """The metrics of every document; programs are run two at a time, since this process only waits for them."""
        groups = [document.instances for document in self._by_document]
        if self.benchmark not in CODE:
            return [self._metrics(group) for group in groups]
        contexts = [copy_context() for _ in groups]  # whether programs may run unconfined is known to this thread alone
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda context, group: context.run(self._metrics, group), contexts, groups))

    def _metrics(self, group: Sequence[Any]) -> Mapping[str, Any]:
        """The task's metrics of one document; variants that give the same text are judged once."""
        filtered = [instance.filtered_resps[self.spec.filter] for instance in group]
        if group[0].request_type != "generate_until" or not all(isinstance(text, str) for text in filtered):
            return dict(self.task.process_results(group[0].doc, filtered))
        key = (group[0].doc_id, *filtered)
        if key not in self._judged:
            self._judged[key] = dict(self.task.process_results(group[0].doc, filtered))
        return self._judged[key]

    @cached_property
    def _judged(self) -> dict[tuple[Any, ...], Mapping[str, Any]]:
        return {}

    @cached_property
    def _by_document(self) -> list[_Document]:
        groups: dict[int, list[Any]] = {}
        for instance in self.instances:
            groups.setdefault(instance.doc_id, []).append(instance)
        return [
            _Document(self.task, tuple(sorted(group, key=lambda instance: instance.idx))) for group in groups.values()
        ]


def score_all(
    columns: Sequence[Column],
    variants: Sequence[Variant],
    answers: Callable[[Column, Variant], Sequence[Any]],
    done: Callable[[str, tuple[Score, ...]], None],
) -> None:
    """Gives ``done`` every variant's scores on ``columns``; one that another covers takes its part of that one's."""
    for variant in variants:
        scores: list[Score] = []
        for column in columns:
            shares = (column.share(whole, score) for whole, score in zip(columns, scores, strict=False))
            shared = next((share for share in shares if share), None)
            scores.append(shared or column.score(answers(column, variant)))
        done(variant.identity, tuple(scores))


def distinct(columns: Sequence[Column]) -> list[Column]:
    """Those that no other one before them covers: all that need be asked."""
    return [c for i, c in enumerate(columns) if not any(c.covered_by(whole) for whole in columns[:i])]


class _Document:
    """The instances of one document, and what a person would want to read of it."""

    def __init__(self, task: Any, instances: Sequence[Any]) -> None:
        self.instances = instances
        first = instances[0]
        target = task.doc_to_target(first.doc)
        if first.request_type == "loglikelihood" and isinstance(target, int):
            target = instances[target].args[1]
        self._prompt, self._target = str(first.args[0]), str(target).strip()

    def sample(self) -> Sample:
        """The answer that was given last."""
        first = self.instances[0]
        if first.request_type == "loglikelihood":
            answer = max(self.instances, key=lambda instance: instance.resps[0][0]).args[1].strip()
        else:
            answer = str(first.resps[0])
        return Sample(prompt=self._prompt, answer=answer, target=self._target)


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
        if unknown := [name for name in spec.corpus if name not in task.aggregation()]:
            known = ", ".join(task.aggregation())
            raise LayerswapError(f"task {spec.task} has no corpus metric {unknown[0]!r}: it has {known}")
        filters = [f.name for f in task._filters]
        if spec.filter not in filters:
            raise LayerswapError(f"task {spec.task} has no filter {spec.filter!r}: it has {', '.join(filters)}")
        prompts = [[str(a) for a in i.args] for i in task.instances]
        kept = [number for number, doc in {i.doc_id: i.doc for i in task.instances}.items() if spec.keeps(doc)]
        if not kept:
            kept_by = f"where = {spec.where!r}" if spec.where else f"part = {spec.part!r}"
            raise LayerswapError(f"column {spec.name}: {kept_by} is true of no document of {spec.task}")
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
    data = {"data": str(profile.data_folder)} if profile.data_folder else None  # reaches a task's loading function
    if folder is not None and not folder.is_dir():
        raise LayerswapError(
            f"profile {profile.name}: tasks: there is no folder {str(folder)!r}: give one of lm-eval's YAML files, or "
            f"one that ships ({', '.join(OWN_TASKS)})"
        )
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None, metadata=data)
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
