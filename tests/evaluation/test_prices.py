from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path
from random import Random

import pytest

from harness.evaluation.planning import Prices, Work
from harness.evaluation.prices import (
    LENGTHS,
    _key,
    fit,
    guessed,
    keep_lengths,
    keep_prices,
    known_lengths,
    known_prices,
)
from harness.evaluation.responses import Store
from harness.evaluation.variants import Settings
from harness.profiles import load_profile

TRUE = Prices(0.1, 0.004, 3e-6, 2e-5, 9e-6, 0.0)


def some(seed: int, count: int) -> list[Work]:
    random = Random(seed)
    return [
        Work(1, random.randint(1, 12), random.randint(10**4, 10**6), random.randint(10, 10**4), *(
            random.randint(0, 10**5), random.randint(10, 1000)
        ))
        for _ in range(count)
    ]  # fmt: skip


def test_what_tasks_take_is_foreseen_from_what_others_took():
    random = Random(0)
    prices = fit([(work, TRUE.of(work) * random.uniform(0.9, 1.1)) for work in some(1, 60)])
    assert all(price >= 0 for price in astuple(prices))
    for work in some(2, 40):
        assert prices.of(work) == pytest.approx(TRUE.of(work), rel=0.1)


def test_tasks_that_take_little_by_chance_do_not_make_prices_low():
    random = Random(4)
    tasks = some(5, 200)
    prices = fit([(work, TRUE.of(work) * random.choice((0.4, 1.6))) for work in tasks])
    assert sum(map(prices.of, tasks)) == pytest.approx(sum(map(TRUE.of, tasks)), rel=0.1)


def test_what_tasks_do_not_tell_apart_stays_in_proportion():
    guess = Prices()
    slower = Prices(*(3 * price for price in astuple(guess)))
    (work,) = some(3, 1)
    fitted = fit([(work, slower.of(work))] * 4, guess)
    assert astuple(fitted) == pytest.approx(astuple(slower))
    assert fit([], guess) == fit([(work, 0.0)], guess) == guess


def test_prices_are_kept_for_a_model_and_a_device(tiny_profile: Path, tmp_path: Path):
    store, profile = Store(tmp_path / "store.sqlite"), load_profile(str(tiny_profile))
    settings = Settings(profile, "cpu", "float32")
    guess = guessed(json.loads((profile.expert_path("base") / "config.json").read_text("utf-8")))
    assert known_prices(store, settings) == guess != TRUE
    keep_prices(store, settings, TRUE)
    assert known_prices(store, settings) == TRUE
    assert known_prices(store, Settings(profile, "cuda", "float32")) == guess
    assert known_prices(store, Settings(profile, "cpu", "float32", backend="hf")) == guess


def test_layers_and_heads_of_larger_models_are_guessed_to_cost_more():
    small = {"hidden_size": 80, "intermediate_size": 216, "vocab_size": 968}
    head = 1e-6  # as many weights as a layer has
    assert _close(guessed(small), replace(Prices(), read=1e-5 + head))
    large = guessed({"hidden_size": 160, "intermediate_size": 432, "vocab_size": 968})
    assert _close(large, replace(Prices(), layer_tokens=4e-6, written=16e-6, read=1e-5 + 2 * head))
    assert _close(guessed({"text_config": small | {"vocab_size": 1936}}), replace(Prices(), read=1e-5 + 2 * head))
    assert guessed({"n_embd": 768}) == guessed(small | {"hidden_size": None}) == Prices()


def _close(one: Prices, other: Prices) -> bool:
    return astuple(one) == pytest.approx(astuple(other))


def test_lengths_of_answers_are_kept_too_and_what_is_no_length_is_none(tiny_profile: Path, tmp_path: Path):
    store, settings = Store(tmp_path / "store.sqlite"), Settings(load_profile(str(tiny_profile)), "cpu", "float32")
    assert known_lengths(store, settings) == {}
    keep_lengths(store, settings, {"mgsm": 0.25, "flores": 1.5})
    assert known_lengths(store, settings) == {"mgsm": 0.25, "flores": 1.5}
    keep_lengths(store, settings, {"mgsm": 0.25, "none": 0.0, "all": float("inf")})
    assert known_lengths(store, settings) == {"mgsm": 0.25}
    for damaged in ("[1]", '{"mgsm": "long"}', "{", "3"):
        store.add_document(LENGTHS, _key(settings), damaged)
        assert known_lengths(store, settings) == {}
