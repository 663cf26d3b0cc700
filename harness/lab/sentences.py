"""Sentences, reading passages and word problems, each in both languages at once.

Everything takes its own ``random.Random`` so that a seed gives the same text on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from harness.lab.lexicon import (
    CONTAINERS,
    HOW_MANY,
    KNOWN_NUMBERS,
    NAMES,
    NUMBER_WORDS,
    Language,
    Lexicon,
    Noun,
    Word,
    swahili_number,
)


@dataclass(frozen=True)
class Text:
    """The same text in English and Swahili, as space-separated tokens."""

    en: str
    sw: str

    def get(self, language: Language) -> str:
        """The text in one language."""
        return self.en if language == "en" else self.sw

    def __add__(self, other: Text) -> Text:
        return Text(f"{self.en} {other.en}", f"{self.sw} {other.sw}")


def count(noun: Noun, number: int, in_words: bool) -> Text:
    """*3 books* / *vitabu 3*, or *three books* / *vitabu vitatu*."""
    if in_words:
        return Text(
            f"{NUMBER_WORDS[number]} {noun.plural}", f"{noun.sw_plural} {swahili_number(number, noun.noun_class)}"
        )
    return Text(f"{number} {noun.plural}", f"{noun.sw_plural} {number}")


def _quantity(rng: Random, words: Lexicon, noun: Noun) -> Text:
    if rng.random() < 0.4:
        return count(noun, rng.choice(words.numbers), True)
    return count(noun, rng.randint(2, MOST), False)


def fact(name: str, verb: Word, thing: Text, place: Word | None = None) -> Text:
    """*asha buys 3 books at the market .*"""
    where = Text(f" {place.en}", f" {place.sw}") if place else Text("", "")
    return Text(f"{name} {verb.en} {thing.en}{where.en} .", f"{name} {verb.sw} {thing.sw}{where.sw} .")


# Largest count that a text mentions: small sums are learnt by a small model, and skill here is in the story.
MOST = 20

HAS = Word("has", "ana", True)
SEES = Word("sees", "anaona", True)
LIKES = Word("likes", "anapenda", True)


def sentence(rng: Random, words: Lexicon) -> Text:
    """One plain sentence of the world."""
    name, noun = rng.choice(NAMES), rng.choice(words.nouns)
    kind = rng.randrange(6)
    if kind == 0:
        return fact(name, HAS, _quantity(rng, words, noun))
    if kind == 1:
        place = rng.choice(words.places)
        return Text(f"{name} is {place.en} .", f"{name} yuko {place.sw} .")
    if kind == 2:
        adjective, forms, _ = rng.choice(words.adjectives)
        thing = Text(f"{adjective} {noun.plural}", f"{noun.sw_plural} {forms[noun.noun_class]}")
        return fact(name, rng.choice((HAS, SEES, LIKES)), thing)
    place_or_none = rng.choice(words.places) if rng.random() < 0.5 else None
    return fact(name, rng.choice(words.verbs), _quantity(rng, words, noun), place_or_none)


@dataclass(frozen=True)
class Reading:
    """A passage, a question about it, the answer and the wrong options."""

    passage: Text
    question: Text
    answer: Text
    wrong: tuple[Text, Text, Text]


DIRECTIONS = (Text("more", "zaidi"), Text("fewer", "pungufu"), Text("the same", "sawa"), Text("none", "hakuna"))


def reading(rng: Random, words: Lexicon) -> Reading:
    """A short passage with one question: what, where, who, or whether there are more or fewer now."""
    first, second, *others = rng.sample(NAMES, 5)
    kind = rng.randrange(4)
    if kind == 0:
        nouns = rng.sample(words.nouns, 4)
        passage = fact(first, HAS, _quantity(rng, words, nouns[0])) + fact(second, HAS, _quantity(rng, words, nouns[1]))
        question = Text(f"what does {first} have ?", f"{first} ana nini ?")
        options = [Text(n.plural, n.sw_plural) for n in nouns]
        return Reading(passage, question, options[0], (options[1], options[2], options[3]))
    if kind == 1:
        places = rng.sample(words.places, 4)
        passage = Text(f"{first} is {places[0].en} .", f"{first} yuko {places[0].sw} .") + Text(
            f"{second} is {places[1].en} .", f"{second} yuko {places[1].sw} ."
        )
        question = Text(f"where is {first} ?", f"{first} yuko wapi ?")
        options = [Text(p.en, p.sw) for p in places]
        return Reading(passage, question, options[0], (options[1], options[2], options[3]))
    if kind == 2:
        nouns = rng.sample(words.nouns, 2)
        verb = rng.choice((HAS, *words.verbs))
        passage = fact(first, verb, _quantity(rng, words, nouns[0])) + fact(
            second, verb, _quantity(rng, words, nouns[1])
        )
        question = Text(f"who {verb.en} {nouns[0].plural} ?", f"nani {verb.sw} {nouns[0].sw_plural} ?")
        names = [Text(n, n) for n in (first, second, *others[:2])]
        return Reading(passage, question, names[0], (names[1], names[2], names[3]))
    noun, verb = rng.choice(words.nouns), rng.choice(words.verbs)
    passage = fact(first, HAS, _quantity(rng, words, noun)) + fact(first, verb, _quantity(rng, words, noun))
    question = Text(
        f"does {first} now have more or fewer {noun.plural} ?", f"sasa {first} ana {noun.sw_plural} zaidi au pungufu ?"
    )
    answer = DIRECTIONS[0 if verb.effect > 0 else 1]
    wrong = [d for d in DIRECTIONS if d != answer]
    return Reading(passage, question, answer, (wrong[0], wrong[1], wrong[2]))


@dataclass(frozen=True)
class Problem:
    """A word problem with its worked answer. ``values`` identify it for splitting; ``new_words``: its Swahili
    needs a verb, noun or numeral that the base never met."""

    kind: str
    text: Text
    working: str
    result: int
    values: tuple[int, ...]
    new_words: bool


def _amount(rng: Random, words: Lexicon, noun: Noun, value: int) -> tuple[Text, bool]:
    in_words = value in words.numbers and rng.random() < 0.4
    return count(noun, value, in_words), in_words and value not in KNOWN_NUMBERS


def _change(rng: Random, words: Lexicon, name: str, noun: Noun, start: int) -> tuple[Text, str, int, int, bool]:
    verb = rng.choice([v for v in words.verbs if v.effect > 0 or start > 3])
    value = rng.randint(2, 10) if verb.effect > 0 else rng.randint(2, min(10, start - 1))
    thing, new_number = _amount(rng, words, noun, value)
    end = start + verb.effect * value
    step = f"{start} {'+' if verb.effect > 0 else '-'} {value} = {end}"
    return fact(name, verb, thing), step, value * verb.effect, end, new_number or not verb.known


def problem(rng: Random, words: Lexicon, kind: str) -> Problem:
    """A word problem of one ``kind``: ``change`` or ``total`` (one step), ``two-step``, ``compare``, ``groups``."""
    name, other = rng.sample(NAMES, 2)
    noun = rng.choice(words.nouns)
    many = HOW_MANY[noun.noun_class]
    new = not noun.known
    if kind in ("change", "two-step"):
        start = rng.randint(2, MOST)
        thing, new_number = _amount(rng, words, noun, start)
        text, steps, values, new = fact(name, HAS, thing), [], [start], new or new_number
        for _ in range(1 if kind == "change" else 2):
            sentence_, step, value, start, new_word = _change(rng, words, name, noun, start)
            text, new = text + sentence_, new or new_word
            steps.append(step)
            values.append(value)
        question = Text(f"how many {noun.plural} does {name} have now ?", f"sasa {name} ana {noun.sw_plural} {many} ?")
        return Problem(kind, text + question, " ; ".join(steps), start, tuple(values), new)
    if kind == "groups":
        (container, has), a, b = rng.choice(CONTAINERS), rng.randint(2, 9), rng.randint(2, 9)
        boxes, new_a = _amount(rng, words, container, a)
        things, new_b = _amount(rng, words, noun, b)
        text = fact(name, HAS, boxes) + Text(
            f"each {container.singular} has {things.en} .", f"kila {container.sw_singular} {has} {things.sw} ."
        )
        question = Text(f"how many {noun.plural} does {name} have ?", f"{name} ana {noun.sw_plural} {many} ?")
        return Problem(kind, text + question, f"{a} * {b} = {a * b}", a * b, (a, b), new or new_a or new_b)
    a, b = rng.randint(3, MOST), rng.randint(2, 10)
    if kind == "compare" and a <= b:
        a = b + rng.randint(1, 10)
    thing_a, new_a = _amount(rng, words, noun, a)
    thing_b, new_b = _amount(rng, words, noun, b)
    text = fact(name, HAS, thing_a) + fact(other, HAS, thing_b)
    new = new or new_a or new_b
    if kind == "compare":
        question = Text(
            f"how many more {noun.plural} does {name} have than {other} ?",
            f"{name} amemzidi {other} kwa {noun.sw_plural} {many} ?",
        )
        return Problem(kind, text + question, f"{a} - {b} = {a - b}", a - b, (a, b), new)
    question = Text(
        f"how many {noun.plural} do {name} and {other} have in all ?",
        f"{name} na {other} wana {noun.sw_plural} {many} kwa jumla ?",
    )
    return Problem("total", text + question, f"{a} + {b} = {a + b}", a + b, (a, b), new)
