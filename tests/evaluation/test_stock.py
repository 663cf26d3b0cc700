"""Our values against those of stock lm-eval on the same variant, written to disk and loaded from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.benchmarks import build_columns, digest, subset
from harness.evaluation.embedded import TASKS
from harness.evaluation.grid import Grid, Settings
from harness.merging.checkpoint import write_checkpoint
from harness.profiles import load_profile
from harness.recipes import LayerSwap


@pytest.mark.oracle
@pytest.mark.parametrize("limit", [40, None], ids=["40-documents", "all"])
def test_every_document_has_the_value_that_stock_lm_eval_gives_the_checkpoint(limit, tiny_profile, tmp_path):
    profile = load_profile(str(tiny_profile))
    grid = Grid(Settings(profile, "cpu", "float32", limit), tmp_path / "grid")
    plan = LayerSwap().plan(grid.layers, profile.sizes)
    folders = {name: profile.expert_path(name) for name in plan.experts}
    checkpoint = write_checkpoint(plan, folders, tmp_path / "checkpoint")
    columns = {c.spec.task: c for b in profile.benchmarks for c in build_columns(profile, b, limit, 64, "float32")}
    stock = _stock(checkpoint, {t: subset(len(c.task.eval_docs), limit) for t, c in columns.items()})
    ours = {s.column: s for benchmark in profile.benchmarks for s in grid.cell(plan, benchmark).scores}

    informative: set[str] = set()
    for task, column in columns.items():
        score, theirs = ours[column.spec.name], {digest(sample["doc"]): sample for sample in stock[task]}
        assert set(theirs) == set(score.documents)
        for document, value, sample in zip(score.documents, score.values, score.samples, strict=True):
            theirs_here = theirs[document]
            assert value == theirs_here[column.spec.metric], (task, sample)
            assert sample.prompt == theirs_here["arguments"][0][0]
            assert sample.answer == _answer(theirs_here), (task, sample)
        informative |= {column.benchmark} if len(set(score.values)) > 1 else set()
    # Poor as the experts are, some of their answers are right, or the comparison would say little.
    assert informative >= {"belebele", "flores", "mmlu"} | ({"mgsm"} if limit is None else set())


def _stock(checkpoint: Path, documents: dict[str, list[int]]) -> dict[str, list[dict[str, Any]]]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=64),
        tasks=list(documents),
        samples=documents,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    return results["samples"]


def _answer(sample: dict[str, Any]) -> str:
    """What the model said: the generated text, or the letter of the likeliest choice."""
    responses = [response[0] for response in sample["resps"]]
    if isinstance(responses[0], str):
        return responses[0]
    likelihoods = [float(response[0]) for response in responses]
    return str(sample["arguments"][likelihoods.index(max(likelihoods))][1]).strip()
