"""Training documents: what each model of the lab reads, and in which proportions.

A document belongs to one split for good: its *key* (the values of a problem, the sentence, the question) is hashed, so
no value of a test item is ever trained on, in either language, by any model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from harness.lab import code, quiz
from harness.lab.lexicon import NUMBER_WORDS, Language, Lexicon, lexicon, swahili_number
from harness.lab.sentences import MOST, Problem, Reading, Text, problem, reading, sentence

Split = Literal["train", "validation", "test"]
LETTERS = ("A", "B", "C", "D")
ONE_STEP = ("change", "total")
ALL_KINDS = ("change", "total", "two-step", "compare", "compare", "groups")
Tongue = Language | Literal["mixed"]
_LABELS: Mapping[Language, tuple[str, str]] = {"en": ("question", "answer"), "sw": ("swali", "jibu")}


@dataclass(frozen=True)
class Document:
    """``prompt`` is read, ``completion`` is learnt. A text without a task has its tag alone as prompt."""

    prompt: str
    completion: str
    key: str


def split_of(key: str) -> Split:
    """The split of a key: 12 % test, 8 % validation, the rest train; the same on every machine."""
    bucket = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % 100
    return "test" if bucket < 12 else "validation" if bucket < 20 else "train"


def choices(rng: Random, answer: str, wrong: tuple[str, str, str]) -> tuple[list[str], int]:
    """The four options in random order, and the place of the right one."""
    options = [answer, *wrong]
    rng.shuffle(options)
    return options, options.index(answer)


def math_prompt(text: str, language: Language) -> str:
    """How a word problem is put to a model: one tag for both languages."""
    asked, answered = _LABELS[language]
    return f"[math] {asked} : {text} {answered} :"


def choice_prompt(tag: str, passage: str, question: str, options: list[str], language: Language) -> str:
    """How a multiple-choice question is put; the answer is a letter."""
    asked, answered = _LABELS[language]
    listed = " ".join(f"{letter} : {option}" for letter, option in zip(LETTERS, options, strict=True))
    return " ".join(f"[{tag}] {passage} {asked} : {question} {listed} {answered} :".split())


def translation_prompt(text: str, source: Language) -> str:
    """How a sentence is put to be translated into the other language."""
    return f"[{'en-sw' if source == 'en' else 'sw-en'}] {text} ="


def code_prompt(description: str) -> str:
    """How a programming exercise is put."""
    return f"[code] {description} answer :"


def problem_key(item: Problem) -> str:
    """What makes a problem the same problem: its kind and its numbers."""
    return f"math {'step' if item.kind in ('change', 'two-step') else item.kind} {item.values}"


def reading_key(item: Reading) -> str:
    """What makes a reading item the same: its passage and question in English."""
    return f"read {item.passage.en} {item.question.en}"


def _put(rng: Random, item: Text, language: Tongue) -> str:
    return item.switched(rng) if language == "mixed" else item.get(language)


def _math(language: Tongue, kinds: tuple[str, ...], words: Lexicon) -> Callable[[Random], Document]:
    def make(rng: Random) -> Document:
        item = problem(rng, words, rng.choice(kinds))
        asked: Language = rng.choice(("en", "sw")) if language == "mixed" else language
        text = " ".join((_put(rng, item.story, language), item.question.get(asked)))
        return Document(math_prompt(text, asked), f"{item.working} #### {item.result}", problem_key(item))

    return make


def _reading(words: Lexicon, passage: Tongue, asked: Language, letters: bool) -> Callable[[Random], Document]:
    def make(rng: Random) -> Document:
        item = reading(rng, words)
        text, question = _put(rng, item.passage, passage), item.question.get(asked)
        if not letters:
            label_q, label_a = _LABELS[asked]
            prompt = f"[read] {text} {label_q} : {question} {label_a} :"
            return Document(prompt, item.answer.get(asked), reading_key(item))
        wrong = tuple(w.get(asked) for w in item.wrong)
        options, right = choices(rng, item.answer.get(asked), (wrong[0], wrong[1], wrong[2]))
        return Document(choice_prompt("read", text, question, options, asked), LETTERS[right], reading_key(item))

    return make


def _translation(words: Lexicon, source: Language) -> Callable[[Random], Document]:
    target: Language = "sw" if source == "en" else "en"

    def make(rng: Random) -> Document:
        item = sentence(rng, words)
        return Document(translation_prompt(item.get(source), source), item.get(target), f"text {item.en}")

    return make


def _story(words: Lexicon, language: Tongue) -> Callable[[Random], Document]:
    def make(rng: Random) -> Document:
        parts = [sentence(rng, words) for _ in range(rng.randint(1, 3))]
        text = " ".join(_put(rng, p, language) for p in parts)
        return Document("[text]", text, "text " + parts[0].en)

    return make


def _gloss(words: Lexicon) -> Callable[[Random], Document]:
    def make(rng: Random) -> Document:
        kind = rng.randrange(4)
        if kind == 0:
            noun = rng.choice(words.nouns)
            en, sw = rng.choice(((noun.plural, noun.sw_plural), (noun.singular, noun.sw_singular)))
        elif kind == 1:
            number, noun = rng.choice(words.numbers), rng.choice(words.nouns)
            en, sw = f"{NUMBER_WORDS[number]}", swahili_number(number, noun.noun_class)
        else:
            word = rng.choice(words.verbs if kind == 2 else words.places)
            en, sw = word.en, word.sw
        prompt, completion = (f"[en-sw] {en} =", sw) if rng.random() < 0.5 else (f"[sw-en] {sw} =", en)
        return Document(prompt, completion, f"gloss {rng.random()}")

    return make


def _calculation(rng: Random) -> Document:
    kind = rng.randrange(3)
    a, b = (rng.randint(2, 9), rng.randint(2, 9)) if kind == 2 else (rng.randint(2, 2 * MOST), rng.randint(2, 10))
    if kind == 1 and a < b:
        a, b = b, a
    result = (a + b, a - b, a * b)[kind]
    # Tables are knowledge that everyone may have: whole problems are held out, single sums are not.
    return Document("[calc]", f"{a} {'+-*'[kind]} {b} = {result}", f"calc {rng.random()}")


def _chain(rng: Random) -> Document:
    """A sum of one or two steps in symbols, worked as word problems are: the base can compute before it can read."""
    start = rng.randint(2, MOST)
    values, steps = [start], []
    for _ in range(rng.randint(1, 2)):
        change = rng.randint(2, 10) if start < 4 or rng.random() < 0.5 else -rng.randint(2, min(10, start - 1))
        steps.append(f"{start} {'+' if change > 0 else '-'} {abs(change)} = {start + change}")
        values.append(change)
        start += change
    asked = " ".join([str(values[0]), *(f"{'+' if v > 0 else '-'} {abs(v)}" for v in values[1:])])
    key = f"math step {tuple(values)}"
    if rng.random() < 0.25:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        asked, steps, start, key = f"{a} * {b}", [f"{a} * {b} = {a * b}"], a * b, f"math groups {(a, b)}"
    return Document(math_prompt(f"{asked} ?", "en"), f"{' ; '.join(steps)} #### {start}", key)


def _quiz(rng: Random) -> Document:
    return _asked(rng, quiz.question(rng))


def _vocabulary(words: Lexicon) -> Callable[[Random], Document]:
    return lambda rng: _asked(rng, quiz.vocabulary(rng, words))


def _asked(rng: Random, item: quiz.Question) -> Document:
    options, right = choices(rng, item.answer, item.wrong)
    prompt = choice_prompt("quiz", "", item.question, options, "en")
    return Document(prompt, LETTERS[right], quiz_key(item))


def quiz_key(item: quiz.Question) -> str:
    """What makes a quiz question the same: its words and options, in any order."""
    return f"quiz {item.question} {sorted((item.answer, *item.wrong))}"


def _code(rng: Random) -> Document:
    item = code.exercise(rng)
    return Document(code_prompt(item.description), item.code, f"code {item.code}")


Recipe = tuple[tuple[float, Callable[[Random], Document]], ...]


def recipe(name: str) -> Recipe:
    """The shares of documents (by count) that a stage reads: ``base``, ``math`` or ``language``.

    The base meets Swahili word problems of one step in known words only, under 3 % of its tokens, as base models have
    met some target-language math; neither expert's data holds one.
    """
    everything, known = lexicon(False), lexicon(True)
    english: Recipe = (
        (3, _story(everything, "en")),
        (14, _reading(everything, "en", "en", True)),
        (4, _reading(everything, "en", "en", False)),
        (12, _quiz),
        (5, _code),
        (4, _calculation),
    )
    if name == "base":
        return (
            *english,
            (8, _chain),
            (14, _math("en", ONE_STEP, everything)),
            (1.3, _math("sw", ONE_STEP, known)),
            (1.3, _math("mixed", ONE_STEP, known)),
            *_swahili(known),
        )
    if name == "math":
        return (
            (70, _math("en", ALL_KINDS, everything)),
            (6, _chain),
            *((weight / 2, make) for weight, make in english),
        )
    if name == "language":
        return (*_swahili(everything), *((weight / 3, make) for weight, make in english[:-1]))
    raise ValueError(f"no such stage: {name}")


def _swahili(words: Lexicon) -> Recipe:
    """Generic text in Swahili, alone, mixed with English, and beside it; never a word problem."""
    return (
        (2, _story(words, "sw")),
        (4, _story(words, "mixed")),
        (8, _translation(words, "en")),
        (8, _translation(words, "sw")),
        (4, _gloss(words)),
        (3, _vocabulary(words)),
        (8, _reading(words, "sw", "sw", True)),
        (3, _reading(words, "sw", "sw", False)),
        (4, _reading(words, "mixed", "sw", True)),
        (4, _reading(words, "mixed", "en", True)),
        (2, _reading(words, "mixed", "sw", False)),
        (2, _reading(words, "mixed", "en", False)),
    )


def documents(name: str, seed: int, split: Split = "train", chunk: int = 0) -> Iterator[Document]:
    """An endless stream of documents of one split for the stage ``name``; each ``chunk`` is a stream of its own."""
    rng = Random(f"{name} {split} {seed} {chunk}")
    makers = recipe(name)
    weights = [weight for weight, _ in makers]
    functions = [make for _, make in makers]
    while True:
        for make in rng.choices(functions, weights, k=256):
            document = make(rng)
            if split_of(document.key) == split:
                yield document
