"""A grid on the workers of a Ray cluster, which fill this process's response store; the suite then reads from it.

A worker holds the experts, checked by their digests, and answers one task after the other. What it answers is kept as
soon as its task ends. A task whose worker is lost is given to another; every answer is the same whoever gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.evaluation.connection import connected
from harness.evaluation.editions import engine_digest
from harness.evaluation.jobs import Queue, queue_of
from harness.evaluation.packing import plan
from harness.evaluation.planning import Prices, Work, seconds, work
from harness.evaluation.prices import fit, keep_lengths, keep_prices, known_lengths, known_prices
from harness.evaluation.questions import GUESSED, Lengths, questions
from harness.evaluation.worker import Worker
from harness.execution import Cluster

if TYPE_CHECKING:
    from harness.evaluation.grid import Grid
    from harness.evaluation.variants import Settings
    from harness.progress import TaskView

ENOUGH = 8  # tasks that must have been measured, before they change what is expected of others
LOSSES = 5  # workers that a task may lose, before it counts as what ends them
Done = Callable[["Finished"], None]


@dataclass(frozen=True)
class Finished:
    """A task that is done: what it consisted of, processor seconds of its worker, responses, and its share of all.

    ``tasks`` is how many there are, ``length`` that of its answers if any was written, of the column ``name``.
    ``merging`` are processor seconds beside, by variant's digest, of weights that its worker had to compute.
    """

    name: str
    length: float | None
    work: Work
    seconds: float
    responses: int
    share: float
    tasks: int
    merging: Mapping[str, float]


@dataclass
class _Pool:
    """Workers that start or are at a task, and those that wait for one. ``start`` makes one more."""

    ray: Any
    start: Callable[[], Any]
    waiting: dict[Any, Any] = field(default_factory=dict)  # what comes back → worker and its job's number, or None
    idle: list[Any] = field(default_factory=list)

    def begin(self, count: int = 1) -> None:
        for _ in range(count):
            worker = self.start()
            self.waiting[worker.ready.remote()] = worker, None

    def keep(self, count: int) -> None:
        """Lets go of all but so many of those that have begun."""
        for begun in list(self.waiting)[count:]:
            self.ray.kill(self.waiting.pop(begun)[0])

    def rest(self) -> None:
        while self.idle:
            self.ray.kill(self.idle.pop())

    def close(self) -> None:
        self.rest()
        for worker, _ in self.waiting.values():
            self.ray.kill(worker)
        self.waiting.clear()


def fill(
    grid: Grid, cluster: Cluster, prices: Prices, begun: Callable[[str], None], done: Done, lengths: Lengths = GUESSED
) -> None:
    """Has the cluster answer all that ``grid`` expects and its store does not know.

    ``begun`` is told in a sentence what is about to be done, ``done`` each task that is; ``prices`` and ``lengths`` of
    answers are what is known of an earlier run. Raises
    :class:`LayerswapError` if there is no such cluster, if no node of it has what a worker needs, or if a worker does
    not find what this process has. Whatever ends the run, what was answered is kept.
    """
    if any(grid.missing(benchmark) for benchmark in grid.expected):
        with connected(cluster) as ray:
            answer(ray, grid, cluster.workers, prices, begun, done, lengths)


def answer(
    ray: Any,
    grid: Grid,
    most: int | None,
    prices: Prices,
    begun: Callable[[str], None],
    done: Done,
    lengths: Lengths = GUESSED,
) -> None:
    """Has at most so many workers of a cluster that is connected answer what is not known; see :func:`fill`.

    They start at once: reading prompts takes this process about as long as loading experts takes them.
    """
    for benchmark in grid.expected:
        grid.plans(benchmark)  # finds out which experts these are of
    needs = needs_of(grid.settings, *_weights(grid))
    workers = min(_room(ray, needs), most or 10**6)
    settings = for_workers(grid.built_from, int(needs["num_cpus"]))
    digests = {name: dict(expert.slot_digests) for name, expert in grid.digests.items()}
    make = ray.remote(Worker).options(**needs, max_restarts=0, max_task_retries=0)
    pool = _Pool(ray, lambda: make.remote(settings, digests, engine_digest(settings)))

    def finished(
        number: int, spent: float, answers: Mapping[str, Mapping[str, Any]], merging: Mapping[str, float]
    ) -> None:
        for identity, found in answers.items():
            grid.store.add_responses(identity, found)
        task, count = tasks[number], sum(map(len, answers.values()))
        block = asked[task.block]
        length = block.length(grid.asker, answers)
        consisted = work(block.with_length(length), task)
        share = predicted[number] / total
        done(Finished(block.name, length, consisted, spent, count, share, len(tasks), merging))

    try:
        pool.begin(workers)
        if not (asked := questions(grid, lengths)):
            return
        blocks = [block.block for block in asked]
        tasks = plan(blocks, workers, prices)
        predicted = seconds(blocks, tasks, prices)
        workers, total = min(workers, len(tasks)), sum(predicted)
        pool.keep(workers)
        begun(f"ray: {len(tasks)} tasks for {workers} workers")
        _run(pool, queue_of(asked, tasks), workers, finished)
    finally:
        pool.close()


def fill_with_view(grid: Grid, cluster: Cluster, view: TaskView) -> None:
    """As :func:`fill`, with what is kept of earlier runs, which what was measured then replaces; ``view`` shows it."""
    measured: list[tuple[Work, float]] = []
    found: dict[str, list[float]] = {}

    def done(task: Finished) -> None:
        measured.append((task.work, task.seconds))
        if task.length is not None:
            found.setdefault(task.name, []).append(task.length)
        view.done(task.responses, task.share, task.tasks)

    prices, lengths = known_prices(grid.store, grid.settings), known_lengths(grid.store, grid.settings)
    fill(grid, cluster, prices, view.begun, done, lengths)
    if found:
        keep_lengths(grid.store, grid.settings, lengths | {name: fmean(values) for name, values in found.items()})
    if len(measured) >= ENOUGH:
        keep_prices(grid.store, grid.settings, fit(measured, prices))


def place_here(device: str) -> str:
    """Where this process holds experts while others compute: ``device`` if it has it, else main memory."""
    if not device.startswith("cuda"):
        return device
    import torch

    return device if torch.cuda.is_available() else "cpu"


def _run(pool: _Pool, tasks: Queue, workers: int, finished: Callable[[int, float, Any, Any], None]) -> None:
    """Every job once, in their order as the workers that have begun are free; again, if its worker is lost."""
    ray = pool.ray
    losses, open_, starts = [0] * len(tasks.jobs), len(tasks.jobs), 0
    while open_:
        (result,), _ = ray.wait(list(pool.waiting), num_returns=1)
        worker, number = pool.waiting.pop(result)
        try:
            answer = ray.get(result)
        except ray.exceptions.RayTaskError as error:
            raise _readable(error) from error
        except ray.exceptions.RayError as error:
            ray.kill(worker)
            if number is not None:
                losses[number] += 1
                tasks.left.append(number)
            starts += number is None
            if starts > LOSSES * workers or (number is not None and losses[number] == LOSSES):
                raise LayerswapError(
                    f"Ray lost {LOSSES} workers {'as they started' if number is None else 'at one task'}: "
                    f"{(str(error).splitlines() or [''])[0]}"
                ) from error
            pool.begin()
            continue
        if number is not None:
            tasks.note(number, answer[1])
        pool.idle.append(worker)
        while pool.idle and (following := tasks.take()):  # before what came is kept, which takes a while
            worker = pool.idle.pop()
            pool.waiting[worker.answer.remote(following[1])] = worker, following[0]
        if not tasks.left:
            pool.rest()
        if number is not None:
            finished(number, *answer)
            open_ -= 1


def needs_of(settings: Settings, weights: int, largest: int) -> dict[str, Any]:
    """What a worker takes of a node: a core; memory for experts and what is held; with a GPU, for one expert at a time.

    ``weights`` are bytes of all experts, ``largest`` of one.
    """
    if settings.device == "cpu":
        return {"num_cpus": 1, "num_gpus": 0, "memory": weights + settings.memory}
    return {"num_cpus": 1, "num_gpus": 1, "memory": largest}


def for_workers(settings: Settings, threads: int) -> Settings:
    """How a worker evaluates: by itself, on its own device, with paths that hold from anywhere."""
    profile = settings.profile
    file = profile.file.absolute() if profile.file else None
    profile = profile.model_copy(update={"folder": profile.folder.absolute(), "file": file})
    # Ray shows a worker its own GPU alone, which is then the first.
    device = settings.device.partition(":")[0]
    return replace(settings, profile=profile, threads=threads, workers=1, place="", device=device)


def _room(ray: Any, needs: Mapping[str, Any]) -> int:
    """How many workers the cluster's nodes have room for. LayerswapError if that is none."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(node.get(names[need], 0) // amount) for need, amount in needs.items() if amount) for node in nodes
    )
    if not room:
        wanted = ", ".join(f"{needs[need]:,} {name}" for need, name in names.items() if needs[need])
        found = "; ".join(", ".join(f"{node.get(name, 0):,.0f} {name}" for name in names.values()) for node in nodes)
        raise LayerswapError(f"no node of the Ray cluster has {wanted} for a worker: they have {found}")
    return room


def _weights(grid: Grid) -> tuple[int, int]:
    """Bytes of all experts that the grid's plans name, and of the largest."""
    folders = [grid.settings.profile.expert_path(name) for name in grid.digests]
    sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders]
    return sum(sizes), max(sizes)


def _readable(error: Any) -> Exception:
    """What a worker raised: an error of ours as it is."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, LayerswapError):
        return LayerswapError(str(cause))
    text = str(error).strip().splitlines()
    return LayerswapError(f"a worker of the Ray cluster failed: {text[-1] if text else error}")
