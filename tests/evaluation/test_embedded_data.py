"""The data of the embedded benchmarks: complete, distinct, in the real schemas, and unseen in training."""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harness.evaluation.embedded import TASKS
from harness.evaluation.sandbox import Sandbox, no_sandbox
from harness.lab import benchmarks as lab
from harness.lab.build import BENCHMARK_SEED
from harness.lab.corpus import (
    LETTERS,
    choice_prompt,
    code_prompt,
    documents,
    math_prompt,
    split_of,
    translation_prompt,
)

# file: number of items, fields of the real benchmark, fields that make an item the same
FILES = {
    "mgsm_sw.jsonl": (500, {"question", "answer", "answer_number", "equation_solution"}, ("question",)),
    "mgsm_en.jsonl": (250, {"question", "answer", "answer_number", "equation_solution"}, ("question",)),
    "belebele_sw.jsonl": (
        200,
        {"flores_passage", "question", "mc_answer1", "mc_answer4", "correct_answer_num", "question_number", "dialect"},
        ("flores_passage", "question"),
    ),
    "belebele_sw-en.jsonl": (
        200,
        {"flores_passage", "question", "mc_answer1", "mc_answer4", "correct_answer_num", "question_number", "dialect"},
        ("flores_passage", "question"),
    ),
    "flores.jsonl": (200, {"id", "sentence_eng_Latn", "sentence_swh_Latn"}, ("sentence_eng_Latn",)),
    "mbpp.jsonl": (200, {"task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list"}, ("text",)),
    "mmlu.jsonl": (200, {"question", "subject", "choices", "answer"}, ("question", "choices")),
}
Row = dict[str, Any]


@cache
def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (TASKS / "data" / name).read_text("utf-8").splitlines()]


@cache
def trained_prompts() -> frozenset[str]:
    """Prompts of many training documents of every stage."""
    return frozenset(d.prompt for stage in ("base", "math", "language") for d in islice(documents(stage, 3), 15_000))


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_enough_distinct_items_in_the_real_schema(name):
    least, fields, identity = FILES[name]
    items = rows(name)
    assert len(items) >= least
    assert all(fields <= set(item) for item in items)
    assert len({json.dumps([item[field] for field in identity]) for item in items}) == len(items)


def test_there_is_no_other_data_file():
    assert {path.name for path in (TASKS / "data").iterdir()} == set(FILES)


def test_the_files_are_what_the_lab_writes_today(tmp_path: Path):
    lab.write(tmp_path, BENCHMARK_SEED)
    different = [name for name in FILES if (tmp_path / name).read_bytes() != (TASKS / "data" / name).read_bytes()]
    assert not different


def prompts(name: str) -> list[str]:
    """How the items of a file are put to a model."""
    stem, _, language = name.removesuffix(".jsonl").partition("_")
    language = language.removeprefix("sw-")  # a Swahili passage that is asked about in English
    if stem == "mgsm":
        return [math_prompt(item["question"], language) for item in rows(name)]
    if stem == "belebele":
        return [
            choice_prompt(
                "read", i["flores_passage"], i["question"], [i[f"mc_answer{k}"] for k in (1, 2, 3, 4)], language
            )
            for i in rows(name)
        ]
    if stem == "flores":
        return [
            translation_prompt(item[f"sentence_{code}_Latn"], side)
            for item in rows(name)
            for code, side in (("eng", "en"), ("swh", "sw"))
        ]
    if stem == "mbpp":
        return [code_prompt(item["text"]) for item in rows(name)]
    return [choice_prompt("quiz", "", item["question"], item["choices"], "en") for item in rows(name)]


@pytest.mark.parametrize("name", FILES)
def test_no_item_is_among_the_training_prompts(name):
    assert len(trained_prompts()) > 10_000
    assert not trained_prompts() & set(prompts(name))


def test_the_keys_of_the_items_belong_to_the_test_split():
    keys = [f"text {item['sentence_eng_Latn']}" for item in rows("flores.jsonl")]
    keys += [f"code {item['code']}" for item in rows("mbpp.jsonl")]
    keys += [f"read {item['passage_eng_Latn']} {item['question']}" for item in rows("belebele_sw-en.jsonl")]
    keys += [f"quiz {item['question']} {sorted(item['choices'])}" for item in rows("mmlu.jsonl")]
    assert {split_of(key) for key in keys} == {"test"}


def test_the_numbers_of_a_problem_are_its_key_and_belong_to_the_test_split():
    one_step = [i for i in rows("mgsm_en.jsonl") if i["kind"] in ("total", "compare", "groups")]
    assert len(one_step) > 50
    assert {split_of(f"math {i['kind']} {tuple(_numbers(i['question']))}") for i in one_step} == {"test"}


def _numbers(text: str) -> list[int]:
    words = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
    found = [int(word) if word.isdecimal() else words.get(word) for word in text.split()]
    return [number for number in found if number is not None]


def test_both_languages_ask_the_same_and_the_answers_agree():
    swahili = {item["question_number"]: item for item in rows("belebele_sw.jsonl")}
    for item in rows("belebele_sw-en.jsonl"):
        other = swahili[item["question_number"]]
        assert all(
            item[field] == other[field] for field in ("flores_passage", "passage_eng_Latn", "correct_answer_num")
        )
    english, both = rows("mgsm_en.jsonl"), rows("mgsm_sw.jsonl")
    for kind in lab.MGSM_KINDS:
        numbers = [item["answer_number"] for item in both if item["kind"] == kind]
        assert [item["answer_number"] for item in english if item["kind"] == kind] == numbers[::2]


def test_reading_turns_on_a_word_that_the_base_never_met():
    known = {word for document in islice(documents("base", 3), 15_000) for word in document.prompt.split()}
    for item in rows("belebele_sw.jsonl"):
        first = item["flores_passage"].split(" . ")[0].split()
        assert set(first) & lab.NEW_WORDS, first
        assert not item["question"].startswith("nani")  # who: names are the same in both languages
    assert lab.NEW_WORDS
    assert not lab.NEW_WORDS & known


def test_arithmetic_answers_are_right():
    for item in rows("mgsm_en.jsonl"):
        if item["kind"] in ("total", "compare", "groups"):
            a, b = _numbers(item["question"])
            assert item["answer_number"] == {"total": a + b, "compare": a - b, "groups": a * b}[item["kind"]]


@pytest.mark.parametrize("name", ["belebele_sw.jsonl", "belebele_sw-en.jsonl", "mmlu.jsonl"])
def test_options_are_four_different_ones_and_no_letter_is_favoured(name):
    right = []
    for item in rows(name):
        options = item.get("choices") or [item[f"mc_answer{k}"] for k in (1, 2, 3, 4)]
        assert len(set(options)) == 4
        right.append(item["answer"] if "answer" in item else int(item["correct_answer_num"]) - 1)
    assert all(0.15 < right.count(k) / len(right) < 0.35 for k in range(len(LETTERS)))


@pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())
def test_the_given_programs_pass_their_asserts_and_no_constant_does():
    with Sandbox() as sandbox:
        for item in rows("mbpp.jsonl")[::4]:
            assert sandbox.run(item["code"], item["test_list"]).passed, item["text"]
            assert not sandbox.run("def f ( x ) : return None", item["test_list"]).passed
