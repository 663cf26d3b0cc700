"""One benchmark for many variants: what is asked, of whom, and what the store spares."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.benchmarks import Column, build_columns
from harness.evaluation.engine import Engine
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.sweep import Sweeper
from harness.profiles import Profile, load_profile
from harness.recipes import Expert, LayerSwap, Soup
from tests.evaluation.asking import Counting

RECIPES = (LayerSwap(), LayerSwap(top=0), Expert("math"), Soup())


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile))


@pytest.fixture(scope="module")
def columns(profile: Profile) -> dict[str, list[Column]]:
    return {name: build_columns(profile, name, 12, 64, "float32") for name in ("mmlu", "mgsm", "belebele")}


@pytest.fixture
def grid(profile: Profile, tmp_path: Path) -> Grid:
    return Grid(Settings(profile, "cpu", "float32", limit=12), tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int]]:
    """Every call of the engine: its kind, variants, requests, and drafts."""
    found: list[tuple[str, int, int, int]] = []
    score, generate = Engine.score, Engine.generate

    def scoring(self: Engine, variants: Any, requests: Any, keep: Any) -> None:
        found.append(("score", len(variants), len(requests), 0))
        score(self, variants, requests, keep)

    def generating(self: Engine, variants: Any, requests: Any, drafts: Any, keep: Any) -> None:
        found.append(("generate", len(variants), len(requests), sum(map(len, drafts.values()))))
        generate(self, variants, requests, drafts, keep)

    monkeypatch.setattr(Engine, "score", scoring)
    monkeypatch.setattr(Engine, "generate", generating)
    return found


def variants_of(grid: Grid, recipes: Sequence[Any] = RECIPES) -> list[Any]:
    grid.load(grid.settings.profile.experts)  # as a sweep does, before threads build variants
    return [grid.variants.variant(recipe.plan(4, grid.settings.profile.sizes)) for recipe in recipes]


def scores_of(
    sweeper: Sweeper, columns: Sequence[Column], variants: Sequence[Any], store: Any = None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    sweeper.scores(columns, variants, store, found.__setitem__)
    assert list(found) == [v.identity for v in variants]
    return found


@pytest.mark.parametrize("name", ["mmlu", "mgsm"])
def test_the_store_is_asked_first_and_told_each_batch(grid, columns, asked, tmp_path, name):
    store = Counting(tmp_path / "store.sqlite")
    variants, chosen = variants_of(grid), columns[name]
    requests = len({instance.args[0] + str(instance.args[1]) for column in chosen for instance in column.instances})
    first = scores_of(grid._sweeper, chosen, variants[:2], store)
    assert sum(store.added.values()) == 2 * requests
    assert [call[1] for call in asked] == [2]  # columns that are written are asked together
    asked.clear()
    assert scores_of(grid._sweeper, chosen, variants[:2], store) == first
    assert asked == []

    both = scores_of(grid._sweeper, chosen, variants, store)  # two are known, two are new
    assert {identity: both[identity] for identity in first} == first
    assert {call[1] for call in asked} == {2}
    assert set(store.added) == {v.identity for v in variants}
    assert sum(store.added.values()) == 4 * requests
    # What the others answered are drafts for the new ones.
    assert sum(call[3] for call in asked) == (2 * requests if name == "mgsm" else 0)
    other = Counting(tmp_path / "store.sqlite")
    asked.clear()
    assert scores_of(Grid(grid.settings, tmp_path / "other")._sweeper, chosen, variants, other) == both
    assert asked == []


def test_a_new_variant_is_verified_against_stored_answers(grid, columns, tmp_path, monkeypatch):
    store = Counting(tmp_path / "store.sqlite")
    same, new = variants_of(grid)[0], variants_of(grid)[1]
    chosen = columns["mgsm"]
    alone = scores_of(grid._sweeper, chosen, [new])
    scores_of(grid._sweeper, chosen, [same], store)
    begun: list[int] = []
    decode = Engine._decode

    def decoding(self: Engine, pairs: Any, *rest: Any) -> None:
        begun.extend(len(tokens) for _, first in pairs for tokens in first.values())
        decode(self, pairs, *rest)

    monkeypatch.setattr(Engine, "_decode", decoding)
    assert scores_of(grid._sweeper, chosen, [same, new], store)[new.identity] == alone[new.identity]
    assert all(begun)  # nothing is decoded from its first token on
    assert len(begun) < sum(len(column.instances) for column in chosen)


def test_what_was_lost_of_a_batch_is_asked_again_and_nothing_else(grid, columns, asked, tmp_path):
    class Losing(Counting):
        """A store that keeps every other answer, as if its process had been killed."""

        def add_responses(self, variant: str, answers: Any) -> None:
            super().add_responses(variant, dict(list(answers.items())[::2]))

    variants = variants_of(grid)[:2]
    losing = Losing(tmp_path / "store.sqlite")
    whole = scores_of(grid._sweeper, columns["mmlu"], variants, losing)
    kept = dict(losing.added)
    losing.close()
    asked.clear()
    again = Counting(tmp_path / "store.sqlite")
    total = len(columns["mmlu"][0].instances)
    assert scores_of(grid._sweeper, columns["mmlu"], variants, again) == whole
    assert {v: kept[v] + again.added[v] for v in kept} == {v.identity: total for v in variants}


def test_a_request_that_comes_twice_is_asked_once(grid, columns, asked):
    (column,) = columns["mmlu"]
    twice = [copy.copy(instance) for instance in column.instances[:8]]
    column, (variant,) = replace(column, instances=[*twice, *twice]), variants_of(grid)[:1]
    given = grid._sweeper._answers([column], [variant], None)(column, variant)
    assert given[:8] == given[8:]
    assert asked == [("score", 1, 8, 0)]


def test_columns_that_are_written_are_asked_together_and_others_by_themselves(grid, columns, asked):
    chosen, (variant,) = [*columns["belebele"], *columns["mgsm"]], variants_of(grid)[:1]
    together = scores_of(grid._sweeper, chosen, [variant])[variant.identity]
    assert [call[0] for call in asked] == [*("score" for _ in columns["belebele"]), "generate"]
    sizes = [len({(i.args[0], str(i.args[1])) for i in column.instances}) for column in columns["mgsm"]]
    assert asked[-1][2] == sum(sizes)
    for column, score in zip(chosen, together, strict=True):
        assert scores_of(grid._sweeper, [column], [variant])[variant.identity] == (score,)


def test_a_column_that_is_there_is_not_asked_again_with_another(grid, columns, asked, tmp_path):
    store, variants = Counting(tmp_path / "store.sqlite"), variants_of(grid)[:2]
    first, *_, last = columns["mgsm"]
    scores_of(grid._sweeper, [last], variants, store)
    before = dict(store.added)
    scores_of(grid._sweeper, columns["mgsm"], variants, store)
    assert asked[1][2] == len({(i.args[0], str(i.args[1])) for i in first.instances})
    assert {v: n - before[v] for v, n in store.added.items()} == dict.fromkeys(before, asked[1][2])


def with_arguments(column: Column, **arguments: Any) -> Column:
    changed = []
    for instance in column.instances[:3]:
        other = copy.copy(instance)
        other.arguments = (instance.args[0], {**instance.args[1], **arguments})
        changed.append(other)
    return replace(column, instances=changed)


def test_other_requests_are_asked_of_lm_evals_own_wrapper(grid, columns, asked):
    (column, _), variants = columns["mgsm"], variants_of(grid)[:2]
    for arguments in ({"num_beams": 2}, {"repetition_penalty": 1.3}):
        changed = with_arguments(column, **arguments)
        given = grid._sweeper._answers([changed], variants, None)
        for variant in variants:
            own = grid._sweeper.stock(variant.build()).generate_until(changed.instances, disable_tqdm=True)
            assert given(changed, variant) == own
    rolling = [copy.copy(instance) for instance in column.instances[:3]]
    for instance in rolling:
        instance.request_type, instance.arguments = "loglikelihood_rolling", (instance.args[0],)
    column = replace(column, instances=rolling)
    found = grid._sweeper._answers([column], variants[:1], None)(column, variants[0])
    assert len(found) == 3
    assert all(isinstance(chance, float) and chance < 0 for chance in found)
    assert asked == []


def test_a_generation_config_that_asks_for_more_is_left_to_lm_eval(grid, columns, asked):
    sweeper = grid._sweeper
    variants = variants_of(grid)[:1]
    plain = scores_of(sweeper, columns["mgsm"], variants)
    assert asked
    asked.clear()
    model = copy.copy(sweeper.example.model)
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.repetition_penalty = 1.0001
    other = replace(sweeper, example=replace(sweeper.example, model=model), _requests={})
    assert scores_of(other, columns["mgsm"], variants).keys() == plain.keys()
    assert asked == []


def test_a_model_that_cannot_be_wrapped_is_left_to_lm_eval(grid, columns, asked, monkeypatch):
    variants = variants_of(grid)[:1]
    plain = scores_of(grid._sweeper, columns["mmlu"], variants)
    assert asked
    asked.clear()
    monkeypatch.setattr("harness.evaluation.trials.forward", lambda *_: 1 / 0)
    other = replace(grid._sweeper, _requests={})
    (score,), (own,) = (found[variants[0].identity] for found in (scores_of(other, columns["mmlu"], variants), plain))
    assert score.values == own.values
    assert asked == []


@pytest.mark.parametrize("name", ["mmlu", "mgsm"])
def test_two_threads_give_the_scores_of_one(grid, columns, name):
    import torch

    variants = variants_of(grid)
    one = scores_of(grid._sweeper, columns[name], variants)
    torch.set_num_threads(2)
    try:
        other = replace(grid._sweeper, _requests={})
        assert scores_of(other, columns[name], variants) == one
        assert other._engine.sizes.threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_thread_that_fails_ends_the_sweep_with_its_error(grid, columns, monkeypatch):
    import torch

    torch.set_num_threads(2)
    try:
        sweeper = replace(grid._sweeper, _requests={})
        assert sweeper._engine.sizes.threads == 2
        monkeypatch.setattr("harness.evaluation.engine.forward", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scores_of(sweeper, columns["mmlu"], variants_of(grid))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
