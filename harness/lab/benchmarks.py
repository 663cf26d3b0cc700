"""Test items of the embedded benchmarks, in the schemas of the real ones, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from harness.lab import code, quiz
from harness.lab.corpus import Split, choices, problem_key, quiz_key, reading_key, split_of
from harness.lab.lexicon import Language, lexicon, new_words
from harness.lab.sentences import Problem, Reading, problem, reading, sentence

Row = dict[str, Any]

# How many word problems of each kind; the English half of the benchmark takes every second one.
MGSM_KINDS = {"change": 120, "total": 80, "two-step": 100, "compare": 150, "groups": 50}
ITEMS = 200
NEW_WORDS = new_words()
# Subjects that every model has learnt get few items: they tell no two models apart.
MMLU_SUBJECTS = {
    "kinds": 20,
    "colours": 20,
    "opposites": 40,
    "numerals": 20,
    "counting": 40,
    "arithmetic": 100,
    "swahili": 100,
}


def _unique(make: Callable[[], tuple[str, str, Row]], count: int, split: Split) -> list[Row]:
    """``count`` rows whose key is in ``split`` and whose text is new; ``make`` gives (key, text, row)."""
    rows: dict[str, Row] = {}
    for _ in range(1000 * count):
        if len(rows) == count:
            return list(rows.values())
        key, text, row = make()
        if split_of(key) == split:
            rows.setdefault(text, row)
    raise RuntimeError(f"the world has only {len(rows)} distinct items where {count} were asked for")


def mgsm(seed: int, split: Split, language: Language, scale: int = 1) -> list[Row]:
    """Word problems in the MGSM schema, with ``kind`` and ``new_words`` (see ``sentences.Problem``) beside it.

    ``scale`` times as many of each kind as the shipped benchmark has.
    """
    rng, words = Random(f"mgsm {seed}"), lexicon(False)

    rows: list[Row] = []
    for kind, count in MGSM_KINDS.items():
        found: dict[str, Problem] = {}
        while len(found) < count * scale:
            item = problem(rng, words, kind)
            if split_of(problem_key(item)) == split:
                found.setdefault(item.text.en, item)
        for item in list(found.values())[:: 2 if language == "en" else 1]:
            rows.append(
                {
                    "question": item.text.get(language),
                    "answer": None,
                    "answer_number": item.result,
                    "equation_solution": None,
                    "kind": kind,
                    "new_words": item.new_words,
                }
            )
    return rows


def belebele(seed: int, split: Split, asked: Language) -> list[Row]:
    """Reading comprehension in the BELEBELE schema: Swahili passages, question and options in the language ``asked``.

    The sentence that answers holds a word that only the language expert knows (see :func:`turns_on_a_new_word`).
    Both languages ask the same items. ``passage_eng_Latn`` is the passage in English, which no model is shown.
    """
    rng, words = Random(f"belebele {seed}"), lexicon(False)

    def reading_of_new_words() -> Reading:
        while not turns_on_a_new_word(item := reading(rng, words)):
            pass
        return item

    def make() -> tuple[str, str, Row]:
        item = reading_of_new_words()
        wrong = tuple(w.get(asked) for w in item.wrong)
        options, right = choices(rng, item.answer.get(asked), (wrong[0], wrong[1], wrong[2]))
        row = {
            "flores_passage": item.passage.sw,
            "question": item.question.get(asked),
            **{f"mc_answer{i + 1}": option for i, option in enumerate(options)},
            "correct_answer_num": str(right + 1),
            "dialect": "swh_Latn",
            "passage_eng_Latn": item.passage.en,
        }
        return reading_key(item), item.passage.en + item.question.en, row

    return _numbered(_unique(make, ITEMS, split), "question_number")


def turns_on_a_new_word(item: Reading) -> bool:
    """Whether the passage's first sentence, which is what every question asks about, has a Swahili word that the base
    never met. Not for *who*: names are the same in both languages, and every model finds them."""
    if item.question.en.startswith("who "):
        return False
    return bool(NEW_WORDS & set(item.passage.sw.split(" . ")[0].split()))


def flores(seed: int, split: Split) -> list[Row]:
    """Parallel sentences in the FLORES schema."""
    rng, words = Random(f"flores {seed}"), lexicon(False)

    def make() -> tuple[str, str, Row]:
        item = sentence(rng, words)
        return f"text {item.en}", item.en, {"sentence_eng_Latn": item.en, "sentence_swh_Latn": item.sw}

    return _numbered(_unique(make, ITEMS, split), "id")


def mbpp(seed: int, split: Split) -> list[Row]:
    """Programming exercises in the MBPP schema."""
    rng = Random(f"mbpp {seed}")

    def make() -> tuple[str, str, Row]:
        item = code.exercise(rng, code.TESTED_CONSTANTS)
        row = {
            "text": item.description,
            "code": item.code,
            "test_list": list(item.tests),
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        return f"code {item.code}", item.description, row

    return _numbered(_unique(make, ITEMS, split), "task_id")


def mmlu(seed: int, split: Split) -> list[Row]:
    """Four-option questions in the MMLU schema, by subject."""
    rng = Random(f"mmlu {seed}")
    rows: list[Row] = []
    for subject, count in MMLU_SUBJECTS.items():

        def make(subject: str = subject) -> tuple[str, str, Row]:
            item = quiz.question(rng, subject)
            options, right = choices(rng, item.answer, item.wrong)
            row = {"question": item.question, "subject": subject, "choices": options, "answer": right}
            return quiz_key(item), quiz_key(item), row

        rows += _unique(make, count, split)
    return rows


def _numbered(rows: list[Row], name: str) -> list[Row]:
    return [{name: number, **row} for number, row in enumerate(rows, 1)]


def files(seed: int, split: Split) -> Iterator[tuple[str, list[Row]]]:
    """Every data file of the embedded benchmarks, by name."""
    languages: tuple[Language, ...] = ("sw", "en")
    for language in languages:
        yield f"mgsm_{language}.jsonl", mgsm(seed, split, language)
    yield "belebele_sw.jsonl", belebele(seed, split, "sw")
    yield "belebele_sw-en.jsonl", belebele(seed, split, "en")
    yield "flores.jsonl", flores(seed, split)
    yield "mbpp.jsonl", mbpp(seed, split)
    yield "mmlu.jsonl", mmlu(seed, split)


def write(folder: Path, seed: int, split: Split = "test") -> None:
    """Writes every file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files(seed, split):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
