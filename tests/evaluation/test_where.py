"""Columns that keep a part of a task's documents."""

from __future__ import annotations

import json

import pytest

from harness.errors import LayerswapError
from harness.evaluation.benchmarks import build_columns
from harness.evaluation.embedded import TASKS
from harness.profiles import ColumnSpec, load_profile
from harness.suite import BENCHMARKS


def spec(where: str) -> ColumnSpec:
    return ColumnSpec(name="mgsm part", task="embedded_mgsm_sw", metric="exact_match", filter="answer", where=where)


def profile_with(*columns: ColumnSpec):
    shipped = load_profile("embedded")
    mgsm = shipped.benchmarks["mgsm"].model_copy(update={"columns": columns})
    return shipped.model_copy(update={"benchmarks": {**shipped.benchmarks, "mgsm": mgsm}})


@pytest.mark.parametrize(("where", "kept"), [("", True), ("new", True), ("not new", False), ("old", False)])
def test_a_column_keeps_documents_by_a_field_or_its_negation(where, kept):
    assert spec(where).keeps({"new": True, "old": 0}) is kept


def test_a_field_that_documents_lack_is_named():
    with pytest.raises(LayerswapError, match=r"mgsm part: where = 'news'.*embedded_mgsm_sw have no field 'news'.*new"):
        spec("news").keeps({"new": True})


def test_the_parts_of_the_embedded_profile_are_the_whole():
    assert "mgsm" in BENCHMARKS
    columns = {c.spec.name: c for c in build_columns(load_profile("embedded"), "mgsm", None, 8, "float32")}
    new, known = columns["mgsm sw new"], columns["mgsm sw known"]
    rows = [json.loads(line) for line in (TASKS / "data" / "mgsm_sw.jsonl").read_text("utf-8").splitlines()]
    assert len(new.documents) == sum(row["new_words"] for row in rows)
    assert not set(new.documents) & set(known.documents)
    assert set(new.documents) | set(known.documents) == set(columns["mgsm sw"].documents)


def test_a_limit_counts_the_documents_that_are_kept():
    columns = build_columns(
        profile_with(spec("new_words"), spec("").model_copy(update={"name": "mgsm"})), "mgsm", 5, 8, "float32"
    )
    assert [len(c.documents) for c in columns] == [5, 5]
    assert all(i.doc["new_words"] for i in columns[0].instances)


def test_a_part_shares_the_score_of_the_whole_only_if_that_has_all_its_documents():
    from harness.evaluation.scores import Score

    whole, part, other = build_columns(
        profile_with(spec("").model_copy(update={"name": "mgsm"}), spec("new_words"), spec("not new_words")),
        "mgsm",
        None,
        8,
        "float32",
    )
    values = tuple(float(i % 3 == 0) for i in range(len(whole.documents)))
    score = Score("mgsm", "mgsm", "exact_match", False, whole.documents, values, whole.fingerprint)
    shared = part.share(whole, score)
    assert shared is not None
    assert shared.column == "mgsm part"
    assert (
        dict(zip(shared.documents, shared.values, strict=True)).items()
        <= dict(zip(score.documents, values, strict=True)).items()
    )
    assert other.share(part, shared) is None
