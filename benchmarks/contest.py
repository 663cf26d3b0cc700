"""One contestant of the evaluation benchmarks, in a process: the shared sweep, or the loop a user would write.

    python -m benchmarks.contest sweep workload.json out.json
    python -m benchmarks.contest loop workload.json out.json

The file ``workload.json`` is a :class:`Workload`. The clock starts when the libraries have been imported, for both.
The loop, for each variant: write the checkpoint, load it into lm-eval's HFLM, ``simple_evaluate``, remove it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.models import float_checkpoints

ROOT = Path(__file__).parents[1]
CHOICES = ("A", "B", "C", "D")
LAYOUT = 20  # tokens of an exemplar that are no words
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man "
    "me even most made after also did many off before must well back through years much where your way down should "
    "because long each just state those people too mister how little good world make very year still see own work day"
)


@dataclass(frozen=True)
class Workload:
    """What is asked of which variants.

    ``kind`` is ``suite`` (what ``pytest ablations/`` asks of the embedded experts), ``letters`` or ``texts`` (multiple
    choice on a real small model, by letter or by the choices' own words) or ``generation`` (64 tokens). ``variants``
    are recipes; ``prompt`` is about the tokens of a prompt, all of its ``shots`` exemplars included. ``layers``
    None is the real model's depth. ``batch`` is HFLM's batch size.
    """

    kind: str
    variants: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    documents: int | None = None
    shots: int = 0
    prompt: int = 600
    layers: int | None = None
    batch: int = 16
    threads: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def run(contestant: str, workload: Workload) -> dict[str, Any]:
    """What a contestant reports, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder) / "workload.json", Path(folder) / "out.json"
        asked.write_text(json.dumps(asdict(workload)), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.contest", contestant, str(asked), str(out)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        environment["HF_HOME"] = folder
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        reported: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return reported


class Clock:
    """Wall and processor seconds since it was made, those of child processes that have ended included."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), self._processor()

    @staticmethod
    def _processor() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    def read(self) -> dict[str, float]:
        return {"wall": time.perf_counter() - self._wall, "cpu": self._processor() - self._cpu}


def sweep(workload: Workload, folder: Path) -> dict[str, Any]:
    """All variants in one sweep over each benchmark."""
    from harness.evaluation.grid import Grid, Settings

    profile = _profile(workload, folder)
    clock = Clock()
    grid = Grid(Settings(profile, "cpu", "float32", _limit(workload), workload.threads), folder / "grid")
    plans = _plans(workload, profile, grid.layers)
    for benchmark in profile.benchmarks:
        grid.expect(benchmark, plans.values())
    values: dict[str, dict[str, dict[str, float]]] = {}
    for benchmark in profile.benchmarks:
        grid._built(benchmark)
    grid.load(dict.fromkeys(expert for plan in plans.values() for expert in plan.experts))
    ready = clock.read()
    for name, plan in plans.items():
        cells = [grid.cell(plan, benchmark) for benchmark in profile.benchmarks]
        scores = [score for cell in cells for score in cell.scores]
        values[name] = {s.column: dict(zip(s.documents, s.values, strict=True)) for s in scores}
    times = clock.read()
    distinct = {grid.identity(plan) for plan in plans.values()}
    return {
        **times,
        "evaluate": times["cpu"] - ready["cpu"],
        "variants": len(distinct),
        "values": values,
        "work": grid.work,
        "stages": grid.seconds,
        "peak": max(grid.cell(plan, b).peak_bytes for plan in plans.values() for b in profile.benchmarks),
        "floor": _floor(workload, grid, plans),
    }


def loop(workload: Workload, folder: Path) -> dict[str, Any]:
    """One variant after the other, as ``lm_eval`` and a checkpoint on disk have it."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from harness.evaluation.benchmarks import digest, subset
    from harness.evaluation.grid import Grid, Settings
    from harness.merging.checkpoint import write_checkpoint

    profile = _profile(workload, folder)
    columns = [c for spec in profile.benchmarks.values() for c in spec.columns if not c.where]
    depth = Grid(Settings(profile, "cpu", "float32"), folder / "grid").layers
    plans = _plans(workload, profile, depth)
    clock = Clock()
    manager = TaskManager(include_path=str(profile.task_folder), include_defaults=False)
    limit = _limit(workload)
    samples = {c.task: subset(workload.extra["sizes"][c.task], limit) for c in columns} if limit else None
    values: dict[str, dict[str, dict[str, float]]] = {}
    spent: dict[str, list[float]] = {"write": [], "load": [], "evaluate": []}
    each: list[dict[str, float]] = []
    for name, plan in plans.items():
        begun = Clock()
        out = write_checkpoint(plan, {n: profile.expert_path(n) for n in plan.experts}, folder / "variant", flush=False)
        spent["write"].append(begun.read()["wall"])
        model = HFLM(
            pretrained=str(out),
            device="cpu",
            dtype="float32",
            batch_size=workload.batch,
            softmax_dtype="float32",
            add_bos_token=False,
        )
        spent["load"].append(begun.read()["wall"] - spent["write"][-1])
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[c.task for c in columns],
            task_manager=manager,
            samples=samples,
            bootstrap_iters=0,
            log_samples=True,
        )["samples"]
        del model
        shutil.rmtree(out)
        spent["evaluate"].append(begun.read()["wall"] - spent["write"][-1] - spent["load"][-1])
        each.append(begun.read())
        values[name] = {c.name: {digest(s["doc"]): s[c.metric] / c.scale for s in found[c.task]} for c in columns}
    return {**clock.read(), "each": each, "spent": spent, "values": values, "variants": len(plans)}


def suite_plans() -> dict[str, str]:
    """The plans of distinct weights of ``ablations/``, by their text, and the name of the first case of each."""
    import pytest

    from harness.evaluation.grid import Grid, Settings
    from harness.profiles import load_profile
    from harness.suite import METHOD

    class Collector:
        recipes: Sequence[tuple[str, Any]] = ()

        def pytest_collection_finish(self, session: pytest.Session) -> None:
            params = [getattr(item, "callspec", None) for item in session.items]
            self.recipes = [(p.id, p.params["recipe"]) for p in params if p and "recipe" in p.params]

    collector = Collector()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "ablations")], plugins=[collector])
    profile = load_profile("embedded")
    with tempfile.TemporaryDirectory() as folder:
        grid = Grid(Settings(profile, "cpu", "float32"), Path(folder))
        plans: dict[str, str] = {}
        for recipe in [METHOD, *(recipe for _, recipe in collector.recipes)]:
            plan = recipe.plan(grid.layers, profile.sizes)
            if set(plan.experts) <= set(profile.experts):
                plans.setdefault(grid.identity(plan), str(recipe))
        grid.store.close()
    return {text: identity for identity, text in plans.items()}


def _plans(workload: Workload, profile: Any, layers: int) -> dict[str, Any]:
    from harness.recipe_text import parse_recipe

    return {text: parse_recipe(text).plan(layers, profile.sizes) for text in workload.variants}


def _limit(workload: Workload) -> int | None:
    return workload.documents if workload.kind == "suite" else None


def _profile(workload: Workload, folder: Path) -> Any:
    from harness.profiles import load_profile

    if workload.kind == "suite":
        profile = load_profile("embedded")
        chosen = {k: v for k, v in profile.benchmarks.items() if not workload.benchmarks or k in workload.benchmarks}
        return profile.model_copy(update={"benchmarks": chosen})
    experts = float_checkpoints(workload.layers)
    generated = workload.kind == "generation"
    _write_task(workload, folder / "tasks")
    lines = [
        'name = "contest"',
        'tasks = "tasks"',
        "batch_size = 16",
        "[experts]",
        *(f'{name} = "{path}"' for name, path in experts.items()),
        "[benchmarks.mmlu]",
        f'columns = [{{ name = "mmlu", task = "contest", metric = "{"exact_match" if generated else "acc"}" }}]',
    ]
    (folder / "contest.toml").write_text("\n".join(lines), encoding="utf-8")
    return load_profile(str(folder / "contest.toml"))


def _write_task(workload: Workload, folder: Path) -> None:
    """Documents of random words: what they cost is what real ones of their length cost."""
    folder.mkdir()
    generator, known = random.Random(0), WORDS.split()

    def text(words: int) -> str:
        return " ".join(generator.choice(known) for _ in range(words))

    # Of a multiple choice by text every choice is some words that a reader scores; by letter they stand in the prompt.
    words = workload.prompt // (workload.shots + 1) - LAYOUT
    made = []
    for _ in range((workload.documents or 0) + workload.shots):
        choices = [text(6) for _ in CHOICES]
        listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(CHOICES, choices, strict=True))
        question = f"{text(max(4, words - 6 * len(CHOICES)))}?{listed}\nAnswer:"
        made.append({"question": question, "choices": choices, "answer": generator.randrange(len(CHOICES))})
    parts = {"dev": made[: workload.shots], "test": made[workload.shots :]}
    for part, documents in parts.items():
        lines = (json.dumps(document) for document in documents)
        (folder / f"{part}.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [
        "task: contest",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: {folder / 'test.json'}, dev: {folder / 'dev.json'}}}}}"
        if workload.shots
        else f"dataset_kwargs: {{data_files: {{test: {folder / 'test.json'}}}}}",
        "test_split: test",
        'doc_to_text: "{{question}}"',
        'target_delimiter: " "',
        f"num_fewshot: {workload.shots}",
        *(("fewshot_split: dev", "fewshot_config: {sampler: first_n}") if workload.shots else ()),
    ]
    if workload.kind == "generation":
        lines += [
            "output_type: generate_until",
            'doc_to_target: "{{choices[answer]}}"',
            'generation_kwargs: {until: ["~~~~"], do_sample: false, max_gen_toks: 64}',
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
        ]
    else:
        chosen = '["A", "B", "C", "D"]' if workload.kind == "letters" else '"{{choices}}"'
        lines += [
            "output_type: multiple_choice",
            f"doc_to_choice: {chosen}",
            "doc_to_target: answer",
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]",
        ]
    (folder / "contest.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _floor(workload: Workload, grid: Any, plans: Mapping[str, Any]) -> dict[str, Any] | None:
    """Multiply-adds that log-likelihoods cannot do without: distinct tokens through distinct layers, read positions.

    Projections and head by the weights' sizes; attention by pairs of a token and one that it sees.
    """
    from harness.evaluation.rows import Cost, pack
    from harness.evaluation.sharing import Variant, layer_calls
    from harness.identity import slot_identities

    if workload.kind == "generation":
        return None
    sweeper, requests = grid._sweeper, []
    columns = [c for b in grid.settings.profile.benchmarks for c in grid._built(b)]
    seen = [c for i, c in enumerate(columns) if not any(c.covered_by(whole) for whole in columns[:i])]
    for column in seen:
        requests += sweeper._encoder.encode(column.instances)
    if any(request.stop for request in requests):
        return None
    model = grid.experts["base"].model
    config = model.config.get_text_config()
    sequences = [request.scored for request in requests]
    rows = pack(sequences, Cost(1.0, 0.0), longest=1 << 30)
    tokens = sum(map(len, rows))
    pairs = sum(depth + 1 for row in rows for depth in row.depths)
    head = config.vocab_size * config.hidden_size
    layer = sum(p.numel() for p in model.model.layers[0].parameters() if p.dim() == 2)
    width = config.num_attention_heads * config.head_dim
    read = len({node for r in requests for node in _read(r)})
    variants = {slot_identities(plan, grid.digests): plan for plan in plans.values()}
    nodes = layer_calls([Variant("", slots, lambda: None) for slots in variants])
    total = nodes * (tokens * layer + 2 * pairs * width) + len(variants) * read * head
    return {"multiply-adds": total, "tokens": tokens, "nodes": nodes, "layers": config.num_hidden_layers}


def _read(request: Any) -> Iterator[tuple[int, ...]]:
    for i in range(len(request.continuation)):
        yield (*request.context, *request.continuation[:i])


CONTESTANTS: Mapping[str, Callable[[Workload, Path], dict[str, Any]]] = {"sweep": sweep, "loop": loop}


def main(contestant: str, asked: Path, out: Path) -> None:
    data = json.loads(asked.read_text(encoding="utf-8"))
    workload = Workload(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
    import torch
    import transformers

    importlib.import_module("lm_eval.models.huggingface")  # before the clock starts
    transformers.logging.set_verbosity_error()
    if workload.threads:
        torch.set_num_threads(workload.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = CONTESTANTS[contestant](workload, Path(folder))
    out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
