from __future__ import annotations

import json
import sys

import pytest

from harness.cli import main
from harness.commands.searching import default_columns
from harness.errors import LayerswapError
from harness.evaluation.responses import Store
from harness.notebook import evaluate, load
from harness.profiles import load_profile
from harness.search.run import search, table
from harness.search.split import split

COLUMNS = ["mgsm sw", "belebele sw"]


@pytest.fixture(scope="module")
def parts(tiny_profile):
    return split(load_profile(str(tiny_profile)), COLUMNS)


@pytest.fixture(scope="module")
def found(parts, tmp_path_factory):
    """A search, and the store that it filled."""
    path = tmp_path_factory.mktemp("search") / "store.sqlite"
    store = Store(path)
    try:
        return search(parts, 6, limit=12, store=store, say=lambda line: None), path
    finally:
        store.close()


def beats(one, other) -> bool:
    return all(one[c] >= other[c] for c in COLUMNS) and any(one[c] > other[c] for c in COLUMNS)


def test_the_budget_is_spent_on_different_weights_in_shared_sweeps(found):
    result, _ = found
    assert len({trial.recipe for trial in result.trials}) == 6
    assert 0 < result.work["layer calls"] < result.work["layer calls unshared"]


def test_what_is_shown_is_what_nothing_beats(found):
    result, _ = found
    rivals = [result.reference.tuning, *(trial.tuning for trial in result.trials)]
    expected = {t.recipe for t in result.trials if not any(beats(rival, t.tuning) for rival in rivals)}
    assert {chosen.recipe for chosen in result.pareto} == expected
    shown = table(result)
    assert all(f"`{chosen.recipe}`" in shown for chosen in (result.reference, *result.pareto))
    assert "mgsm sw, held out (n=12)" in shown


def test_held_out_scores_are_those_of_the_suite(found, tiny_profile):
    result, _ = found
    chosen = [result.reference, *result.pareto]
    recipes = list(dict.fromkeys(c.recipe for c in chosen))
    frame = evaluate(
        load(str(tiny_profile)), {r: r for r in recipes}, benchmarks=["mgsm", "belebele"], limit=12
    ).set_index(["recipe", "column"])
    for c in chosen:
        for column in COLUMNS:
            assert c.held_out[column].value == frame.loc[(c.recipe, column), "value"]


def test_the_same_search_again_computes_nothing(found, parts):
    result, path = found
    store = Store(path)
    try:
        again = search(parts, 6, limit=12, store=store, say=lambda line: None)
    finally:
        store.close()
    assert again.work["layer calls"] == 0
    assert (again.trials, again.pareto, again.reference) == (result.trials, result.pareto, result.reference)


def test_the_command_prints_a_table_and_writes_every_trial(tiny_profile, tmp_path, capsys):
    arguments = ["--budget", "2", "--limit", "6", "--columns", "belebele sw", "--out", str(tmp_path / "found.json")]
    assert main(["search", "--profile", str(tiny_profile), *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("| recipe")
    assert "tuned on new items of the validation split" in shown.err
    data = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert len(data["trials"]) == 2
    assert data["reference"]["held_out"]["belebele sw"]["n"] == 6
    assert main(["search", "--profile", str(tiny_profile), *arguments[:-1], str(tmp_path)]) == 2  # a folder
    again = capsys.readouterr()
    assert again.out == shown.out
    assert again.err.endswith(f"error: {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_that_keeps_nothing_is_one_sentence(limit, tiny_profile, capsys):
    assert main(["search", "--profile", str(tiny_profile), "--budget", "1", "--limit", limit]) == 2
    said = capsys.readouterr().err.splitlines()[1:]  # below what is tuned on
    assert said == [f"error: the limit is {limit}: expected a whole number of documents, 1 or more"]


def test_mistakes_are_one_sentence(parts, monkeypatch, capsys):
    with pytest.raises(LayerswapError, match="--budget is 0: expected a number of swaps"):
        search(parts, 0)
    assert main(["search", "--columns", "mgsm xx"]) == 2
    assert capsys.readouterr().err.startswith("error: profile embedded has no column 'mgsm xx'")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LayerswapError, match="search needs optuna: pip install"):
        search(parts, 1)


def test_math_in_the_target_language_and_in_english_is_searched_unless_told():
    assert default_columns(load_profile("embedded")) == ["mgsm sw", "mgsm en"]
    assert default_columns(load_profile("llama-3.1-8b-te")) == ["mgsm te", "mgsm en"]
