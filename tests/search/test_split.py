from __future__ import annotations

import json

import pytest

from harness.errors import LayerswapError
from harness.evaluation.benchmarks import build_columns
from harness.profiles import load_profile, part_of
from harness.search.split import split
from tests.evaluation.published import lines

REAL = """
name = "real"
tasks = "real"
data = "data"
[experts]
base = "embedded:base"
math = "embedded:math"
language = "embedded:language"
[benchmarks.mgsm]
columns = [
  { name = "mgsm sw", task = "real_mgsm_direct_sw", metric = "exact_match", filter = "answer" },
  { name = "mgsm te", task = "real_mgsm_direct_te", metric = "exact_match", filter = "answer", part = "held-out" },
]
"""


def documents(profile, benchmark: str) -> dict[str, list[dict[str, object]]]:
    """The documents of every column."""
    columns = build_columns(profile, benchmark, None, 8, "float32")
    return {column.spec.name: [instance.doc for instance in column.instances] for column in columns}


@pytest.mark.parametrize("tasks", ["embedded", "small"])
def test_embedded_tuning_items_are_new(tasks):
    profile = load_profile("embedded").model_copy(update={"tasks": tasks})
    if tasks == "small":
        profile = load_profile("smollm2-135m")
    parts = split(profile, ["mgsm sw", "flores en-sw"])
    assert parts.tuning.columns == parts.held_out.columns == ("mgsm sw", "flores en-sw")
    assert parts.held_out.tasks == tasks
    for benchmark, column, field in (
        ("mgsm", "mgsm sw", "question"),
        ("flores", "flores en-sw", "sentence_eng_Latn"),
    ):
        new, shipped = ({doc[field] for doc in documents(p, benchmark)[column]} for p in (parts.tuning, parts.held_out))
        assert len(new) >= 200
        assert not new & shipped
    assert split(profile, ["mgsm sw", "flores en-sw"]) == parts  # made once


def test_published_documents_are_parted_for_good_a_problem_with_its_translations(tmp_path):
    for language in ("sw", "te"):
        lines(tmp_path / "data" / "mgsm" / f"mgsm_{language}.tsv", [f"Q{n} {language}\t{n}" for n in range(90)])
    (tmp_path / "real.toml").write_text(REAL, encoding="utf-8")
    profile = load_profile(str(tmp_path / "real.toml"))
    parts = split(profile, ["mgsm sw", "mgsm te"])
    assert 'The floors of mgsm sw read both: write part = "held-out"' in parts.sentence
    tuning, held_out = documents(parts.tuning, "mgsm"), documents(parts.held_out, "mgsm")
    numbers = {
        name: {column: [doc["answer_number"] for doc in docs] for column, docs in found.items()}
        for name, found in (("tuning", tuning), ("held out", held_out))
    }
    for found in numbers.values():
        assert found["mgsm sw"] == found["mgsm te"]
    assert not set(numbers["tuning"]["mgsm sw"]) & set(numbers["held out"]["mgsm sw"])
    assert len(numbers["tuning"]["mgsm sw"]) + len(numbers["held out"]["mgsm sw"]) == 90
    assert 20 <= len(numbers["tuning"]["mgsm sw"]) <= 40
    gate = documents(profile, "mgsm")
    assert len(gate["mgsm sw"]) == 90
    assert [doc["answer_number"] for doc in gate["mgsm te"]] == numbers["held out"]["mgsm te"]


def test_documents_without_a_number_are_parted_by_their_content():
    rows = [{"question": f"q {n}"} for n in range(300)]
    tuning = [row for row in rows if part_of(row) == "tuning"]
    assert 70 <= len(tuning) <= 130
    assert [part_of(json.loads(json.dumps(row))) for row in tuning] == ["tuning"] * len(tuning)


def test_an_average_is_nothing_of_its_own_to_maximise():
    parts = split(load_profile("llama-3.1-8b"), ["mgsm sw", "mgsm te"])
    assert parts.tuning.columns == parts.held_out.columns == ("mgsm sw", "mgsm te")
    assert [column.pair for column in parts.tuning.benchmarks["mgsm"].columns] == ["", "te"]


def test_columns_that_will_not_do_are_named():
    profile = load_profile("embedded")
    with pytest.raises(LayerswapError, match="profile embedded has no column 'mgsm xx': it has mgsm sw, "):
        split(profile, ["mgsm xx"])
    with pytest.raises(LayerswapError, match="too few items for tuning on mbpp: search on columns of mgsm"):
        split(profile, ["mbpp"])
