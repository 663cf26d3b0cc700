from __future__ import annotations

import difflib
import json
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.files import replace_text
from harness.gating.baselines import load_baselines, save_baselines
from harness.gating.floors import Verdict, no_worse
from harness.gating.pairing import pair


def build(values, graded=False, **other) -> Score:
    fields = {
        "benchmark": "mgsm",
        "column": "mgsm sw",
        "metric": "exact_match",
        "documents": tuple(f"d{i:04}" for i in range(len(values))),
        "fingerprint": {"task": "1", "dtype": "float32"},
    }
    return Score(graded=graded, values=tuple(map(float, values)), **(fields | other))


@st.composite
def scores(draw) -> Score:
    documents = draw(st.lists(st.text(max_size=5), min_size=1, max_size=30))
    graded = draw(st.booleans())
    value = st.floats(0, 1) if graded else st.sampled_from([0.0, 1.0])
    values = draw(st.lists(value, min_size=len(documents), max_size=len(documents)))
    return build(
        values,
        graded,
        documents=tuple(documents),
        column=draw(st.text(max_size=8)),
        fingerprint=draw(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)),
        corpus=draw(st.dictionaries(st.sampled_from(["bleu", "chrf"]), st.floats(0, 100), max_size=2)),
    )


@given(st.dictionaries(st.text(max_size=6), st.dictionaries(st.text(max_size=6), scores(), min_size=1, max_size=3)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_is_read_back_differs_by_exactly_nothing(tmp_path, cases):
    path = tmp_path / "p.json"
    path.unlink(missing_ok=True)
    save_baselines(path, cases, {"device": "cpu"})
    first = path.read_text()
    read = load_baselines(path)
    for case, columns in cases.items():
        for column, score in columns.items():
            accepted = read.get(case, column)
            assert not any(pair(score, accepted).differences)
            assert accepted.column == score.column
            assert accepted.fingerprint == score.fingerprint
            assert accepted.corpus == pytest.approx(score.corpus, abs=1e-6)
            assert read.provenance[case][column] == {"device": "cpu"}
    assert len(read.scores) == len(cases)
    # Saving what was read changes no byte, and neither does saving it again in another order.
    save_baselines(path, read.scores, {"device": "cpu"})
    assert path.read_text() == first
    save_baselines(path, dict(reversed(cases.items())), {"device": "cpu"})
    assert path.read_text() == first


def test_the_direction_of_a_metric_is_kept_and_written_where_less_is_better(tmp_path):
    path = tmp_path / "p.json"
    save_baselines(path, {"a": {"m": build([1, 0])}, "b": {"m": build([1, 0], higher_is_better=False)}}, {})
    read = load_baselines(path)
    assert read.get("a", "m").higher_is_better
    assert not read.get("b", "m").higher_is_better
    assert path.read_text().count("higher_is_better") == 1


def test_the_order_of_documents_is_no_change(tmp_path):
    rows = [(f"d{i}", i % 3 == 0) for i in range(50)]
    texts = []
    for seed in range(2):
        random.Random(seed).shuffle(rows)
        path = tmp_path / f"{seed}.json"
        save_baselines(path, {"c": {"m": build([r[1] for r in rows], documents=tuple(r[0] for r in rows))}}, {})
        texts.append(path.read_text())
    assert texts[0] == texts[1]


def test_an_unchanged_graded_case_passes_a_floor_without_margin(tmp_path):
    score = build([1 / 3, 0.123456789, 2 / 7], graded=True)
    save_baselines(tmp_path / "p.json", {"c": {"flores": score}}, {})
    outcome = no_worse(0.0).verdict(score, load_baselines(tmp_path / "p.json").get("c", "flores"))
    assert outcome.verdict is Verdict.PASS
    assert outcome.comparison.difference == 0.0


def full_grid() -> dict[str, dict[str, Score]]:
    rng = random.Random(0)
    digests = [[f"{rng.getrandbits(256):064x}" for _ in range(500)] for _ in range(8)]
    return {
        f"family/case-{case:02}": {
            f"column {c}": build(
                [rng.random() if c < 2 else rng.random() < 0.5 for _ in range(500)],
                graded=c < 2,
                column=f"column {c}",
                documents=tuple(digests[c]),
                corpus={"bleu": 12.3456789},
            )
            for c in range(8)
        }
        for case in range(40)
    }


def test_a_full_file_is_small_and_one_case_changes_only_its_lines(tmp_path):
    path, grid = tmp_path / "p.json", full_grid()
    save_baselines(path, grid, {"torch": "2.13"})
    before = path.read_text()
    assert len(before.encode()) < 1_000_000
    started = time.perf_counter()
    load_baselines(path)
    assert time.perf_counter() - started < 2  # about 0.1 s; the margin is for busy machines
    changed = {
        c: build([1] * 500, column=c, documents=s.documents) for c, s in grid["family/case-07"].items() if not s.graded
    }
    save_baselines(path, {"family/case-07": changed}, {"torch": "2.13"})
    diff = [
        line
        for line in difflib.unified_diff(before.splitlines(), path.read_text().splitlines(), n=0, lineterm="")
        if line[0] in "+-" and not line.startswith(("+++", "---"))
    ]
    added = [line for line in diff if line[0] == "+"]
    # The six lines of the case; everything they refer to was there already.
    assert len(added) == 6
    assert all('"value": 1.0' in line for line in added)
    assert load_baselines(path).get("family/case-07", "column 0").graded


def test_provenance_belongs_to_what_was_saved_with_it(tmp_path):
    path = tmp_path / "p.json"
    save_baselines(path, {"a": {"m": build([1, 0])}, "b": {"m": build([1, 1])}}, {"torch": "2.12"})
    save_baselines(path, {"b": {"m": build([0, 1])}}, {"torch": "2.13"})
    read = load_baselines(path)
    assert read.provenance["a"]["m"] == {"torch": "2.12"}
    assert read.provenance["b"]["m"] == {"torch": "2.13"}
    assert read.get("a", "m").values == (1, 0)
    assert read.get("b", "m").values == (0, 1)


def test_one_case_may_be_on_other_documents(tmp_path):
    path = tmp_path / "p.json"
    save_baselines(path, {"a": {"m": build([1, 0])}}, {})
    save_baselines(path, {"b": {"m": build([1, 0, 1])}}, {})
    read = load_baselines(path)
    assert (read.get("a", "m").n, read.get("b", "m").n) == (2, 3)
    assert no_worse(0.0).verdict(read.get("b", "m"), read.get("a", "m")).verdict is Verdict.INCOMPARABLE
    save_baselines(path, {"a": {"m": build([1, 0, 1])}}, {})
    assert len(json.loads(path.read_text())["documents"]) == 1  # what nothing refers to is dropped


def test_without_a_file(tmp_path):
    assert load_baselines(tmp_path / "none.json", missing_ok=True).get("a", "m") is None
    with pytest.raises(LayerswapError, match=r"none\.json: no such file"):
        load_baselines(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text[:-10], "not JSON"),
        (lambda text: "[]", "expected a JSON object"),
        (lambda text: "{}", "'schema'"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "written in schema 99, this version reads 1"),
        (lambda text: text.replace('"values": "b"', '"values": "bb"'), "damaged values"),
        (lambda text: text.replace('"values": "b"', '"values": "x"'), "damaged values"),
        (lambda text: text.replace('"values": "b"', '"values": "3"'), "do not average"),
        (lambda text: text.replace('"set": "', '"set": "0'), "referred to"),
        (lambda text: text.replace('"cases"', '"casks"'), "'cases'"),
    ],
)
def test_a_damaged_file_is_named_with_its_problem(tmp_path, damage, problem):
    path = tmp_path / "p.json"
    save_baselines(path, {"a": {"m": build([1, 0, 1, 1])}}, {})
    path.write_text(damage(path.read_text()))
    with pytest.raises(LayerswapError) as error:
        load_baselines(path)
    assert str(path) in str(error.value)
    assert problem in str(error.value)
    with pytest.raises(LayerswapError):
        save_baselines(path, {}, {})  # never written over what cannot be read


def test_nothing_to_accept_is_an_error(tmp_path):
    with pytest.raises(LayerswapError, match="no documents"):
        save_baselines(tmp_path / "p.json", {"a": {"m": build([])}}, {})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    replace_text(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]
