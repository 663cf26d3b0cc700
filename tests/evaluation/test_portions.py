"""Portions of a column, asked apart: the answers that the whole column gets, bit for bit."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from harness.evaluation.grid import Grid, Settings
from harness.evaluation.questions import questions
from harness.evaluation.responses import Store
from harness.evaluation.rows import Cost, pack
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap, Soup

RECIPES = (LayerSwap(), LayerSwap(top=0), Expert("math"), Soup())


@pytest.fixture(scope="module")
def grid(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    profile = load_profile(str(tiny_profile)).model_copy(update={"batch_size": 8})
    return Grid(Settings(profile, "cpu", "float32", 50, threads=1), tmp_path_factory.mktemp("grid"))


@pytest.mark.parametrize("benchmark_name", ["mmlu", "belebele", "mgsm"])
def test_every_portion_asked_apart_gives_the_answers_of_the_whole(grid, tmp_path, benchmark_name):
    grid.load(grid.settings.profile.experts)
    variants = [grid.variants.variant(recipe.plan(4, grid.settings.profile.sizes)) for recipe in RECIPES]
    store, random = Store(tmp_path / "store.sqlite"), Random(1)
    columns, asker = grid.columns(benchmark_name), grid.asker
    asker.scores(columns, variants, store, lambda *_: None)
    for column in columns:
        digests, portions = asker.digests(column), asker.portions(column)
        assert len(portions) > 2
        numbers = [n for portion in portions for row in portion.rows for n in row]
        assert len(numbers) == len(set(numbers)) == len(set(digests))
        assert sum(portion.piece.rows for portion in portions) == len(numbers)
        found: dict[str, dict[str, Any]] = {}

        def keep(identity: str, answers: Any, found: Any = found, digests: Any = digests) -> None:
            found.setdefault(identity, {}).update({digests[n]: answer for n, answer in answers.items()})

        random.shuffle(portions)
        while portions:
            some = [portions.pop() for _ in range(min(len(portions), random.randint(1, 3)))]
            asker.ask(column, variants, [row for portion in some for row in portion.rows], keep)
        for variant in variants:
            kept = store.responses(variant.identity, digests)
            given = {d: list(a) if isinstance(a, tuple) else a for d, a in found[variant.identity].items()}
            assert given == kept  # floats too: not one bit differs


def test_columns_of_the_same_documents_in_part_ask_them_once(tiny_profile, tmp_path):
    """Two samples of one task: what the first asks, the second does not."""
    profile = load_profile("embedded")
    (whole, *_) = profile.benchmarks["mgsm"].columns
    parts = [
        whole.model_copy(update={"name": f"mgsm {name}", "where": name}) for name in ("new_words", "not new_words")
    ]
    spec = profile.benchmarks["mgsm"].model_copy(update={"columns": (whole, *parts)})
    profile = profile.model_copy(update={"benchmarks": {"mgsm": spec}})
    grid = Grid(Settings(profile, "cpu", "float32", 40, threads=1), tmp_path)
    grid.expect("mgsm", [Expert("base").plan(grid.layers, profile.sizes)])
    asked = [(block.digests[n]) for block in questions(grid) for p in block.portions for row in p.rows for n in row]
    every = {digest for column in grid.columns("mgsm") for digest in grid.asker.digests(column)}
    assert len(asked) == len(set(asked)) == len(every)
    assert 40 < len(every) < 120


def test_rows_are_packed_again_from_some_of_them():
    random = Random(2)
    stems = [[random.randrange(50) for _ in range(random.randint(3, 40))] for _ in range(12)]
    sequences = [
        stem + [random.randrange(50) for _ in range(random.randint(1, 30))] for stem in stems for _ in range(9)
    ]
    cost = Cost(1.0, 0.01)
    rows = pack(sequences, cost)
    assert 12 < len(rows) < len(sequences)
    for _ in range(50):
        kept = sorted(random.sample(range(len(rows)), random.randint(1, len(rows))))
        numbers = [(n, i) for i in kept for n in rows[i].paths]
        random.shuffle(numbers)
        again = pack([sequences[n] for n, _ in numbers], cost, apart=[i for _, i in numbers])
        assert [row.tokens for row in again] == [rows[i].tokens for i in kept]


def test_answers_as_long_as_they_were_are_foreseen_the_next_time(grid):
    plans = [recipe.plan(4, grid.settings.profile.sizes) for recipe in RECIPES]
    grid.expect("mgsm", plans)
    grid.expect("mmlu", plans)
    asked = questions(grid)
    (written, *_), (scored, *_) = ([a for a in asked if a.benchmark == name] for name in ("mgsm", "mmlu"))
    guessed = written.portions[0].piece.written
    answers = {"variant": dict.fromkeys("abc", "one two three"), "other": {"a": "one"}}
    tokens = [grid.asker.tokens(text) for text in ["one two three"] * 3 + ["one"]]
    assert tokens[3] < tokens[0] == len(grid.asker.tokenizer("one two three")["input_ids"]) + 1
    length = written.length(grid.asker, answers)
    assert length == pytest.approx(sum(tokens) / 4 / (guessed / written.portions[0].piece.rows))
    assert scored.length(grid.asker, {"variant": {"a": (-1.0, True)}}) is None
    assert written.length(grid.asker, {}) is None
    again = questions(grid, {written.name: 0.5, "another": 9.0})
    for before, after in zip(asked, again, strict=True):
        pieces = [(p.written, q.written) for p, q in zip(before.block.pieces, after.block.pieces, strict=True)]
        expected = 0.5 if before.name == written.name else 1.0
        assert all(q == round(expected * p) for p, q in pieces)
        assert before.with_length(expected) == after.block
    least = [a for a in questions(grid, {written.name: 1e-9}) if a.name == written.name]
    assert least
    assert all(piece.written == 1 for a in least for piece in a.block.pieces), "it stays one that is written"
