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
    """The same text in English and Swahili, in aligned segments of space-separated tokens."""

    segments: tuple[tuple[str, str], ...]

    @property
    def en(self) -> str:
        """The text in English."""
        return " ".join(en for en, _ in self.segments)

    @property
    def sw(self) -> str:
        """The text in Swahili."""
        return " ".join(sw for _, sw in self.segments)

    def get(self, language: Language) -> str:
        """The text in one language."""
        return self.en if language == "en" else self.sw

    def switched(self, rng: Random) -> str:
        """The text with each segment in a random language, as people who share two languages mix them."""
        return " ".join(rng.choice(segment) for segment in self.segments)

    def __add__(self, other: Text) -> Text:
        return Text(self.segments + other.segments)


def text(en: str, sw: str) -> Text:
    """A text of one segment."""
    return Text(((en, sw),))


def count(noun: Noun, number: int, in_words: bool) -> Text:
    """*3 books* / *vitabu 3*, or *three books* / *vitabu vitatu*."""
    if in_words:
        return text(
            f"{NUMBER_WORDS[number]} {noun.plural}", f"{noun.sw_plural} {swahili_number(number, noun.noun_class)}"
        )
    return text(f"{number} {noun.plural}", f"{noun.sw_plural} {number}")


def _quantity(rng: Random, words: Lexicon, noun: Noun) -> Text:
    if rng.random() < 0.4:
        return count(noun, rng.choice(words.numbers), True)
    return count(noun, rng.randint(2, MOST), False)


def fact(name: str, verb: Word, thing: Text, place: Word | None = None) -> Text:
    """*asha buys 3 books at the market .*"""
    where = ((place.en, place.sw),) if place else ()
    return Text(((name, name), (verb.en, verb.sw), *thing.segments, *where, (".", ".")))


# Largest count that a text mentions: small sums are learnt by a small model, and skill here is in the story.
MOST = 20

HAS = Word("has", "ana", True)
SEES = Word("sees", "anaona", True)
LIKES = Word("likes", "anapenda", True)


def is_at(name: str, place: Word) -> Text:
    """*asha is at the market .*"""
    return Text(((name, name), ("is", "yuko"), (place.en, place.sw), (".", ".")))


def has_more(name: str, other: str, thing: Text) -> Text:
    """*asha has 3 more cups than tom .*; in Swahili: asha exceeds tom by 3 cups."""
    number, what = thing.en.split(" ", 1)
    return text(f"{name} has {number} more {what} than {other} .", f"{name} amemzidi {other} kwa {thing.sw} .")


def each_has(container: Noun, has: str, thing: Text) -> Text:
    """*each basket has 3 eggs .*"""
    each, holds = (f"each {container.singular}", f"kila {container.sw_singular}"), ("has", has)
    return Text((each, holds, *thing.segments, (".", ".")))


def how_many(noun: Noun, name: str, now: bool = False) -> Text:
    """*how many cups does asha have now ?*"""
    en = f"how many {noun.plural} does {name} have{' now' if now else ''} ?"
    return text(en, f"{'sasa ' if now else ''}{name} ana {noun.sw_plural} {HOW_MANY[noun.noun_class]} ?")


def how_many_more(noun: Noun, name: str, other: str) -> Text:
    """*how many more cups does asha have than tom ?*"""
    return text(
        f"how many more {noun.plural} does {name} have than {other} ?",
        f"{name} amemzidi {other} kwa {noun.sw_plural} {HOW_MANY[noun.noun_class]} ?",
    )


def sentence(rng: Random, words: Lexicon) -> Text:
    """One plain sentence of the world."""
    name, other = rng.sample(NAMES, 2)
    noun = rng.choice(words.nouns)
    kind = rng.randrange(8)
    if kind == 0:
        return fact(name, HAS, _quantity(rng, words, noun))
    if kind == 1:
        return is_at(name, rng.choice(words.places))
    if kind == 2:
        adjective, forms, _ = rng.choice(words.adjectives)
        thing = text(f"{adjective} {noun.plural}", f"{noun.sw_plural} {forms[noun.noun_class]}")
        return fact(name, rng.choice((HAS, SEES, LIKES)), thing)
    if kind == 3:
        return has_more(name, other, _quantity(rng, words, noun))
    if kind == 4:
        return each_has(*rng.choice(CONTAINERS), _quantity(rng, words, noun))
    place_or_none = rng.choice(words.places) if rng.random() < 0.5 else None
    return fact(name, rng.choice(words.verbs), _quantity(rng, words, noun), place_or_none)


@dataclass(frozen=True)
class Reading:
    """A passage, a question about it, the answer and the wrong options."""

    passage: Text
    question: Text
    answer: Text
    wrong: tuple[Text, Text, Text]


DIRECTIONS = (text("more", "zaidi"), text("fewer", "pungufu"), text("the same", "sawa"), text("none", "hakuna"))


def reading(rng: Random, words: Lexicon) -> Reading:
    """A short passage with one question that asks for something it says: what, where, who or how many, or whether
    there are more or fewer now. No number is ever to be computed."""
    first, second, *others = rng.sample(NAMES, 5)
    kind = rng.randrange(6)
    if kind == 0:
        nouns = rng.sample(words.nouns, 4)
        passage = fact(first, HAS, _quantity(rng, words, nouns[0])) + fact(second, HAS, _quantity(rng, words, nouns[1]))
        question = text(f"what does {first} have ?", f"{first} ana nini ?")
        return _reading(passage, question, [text(n.plural, n.sw_plural) for n in nouns])
    if kind == 1:
        places = rng.sample(words.places, 4)
        passage = is_at(first, places[0]) + is_at(second, places[1])
        question = text(f"where is {first} ?", f"{first} yuko wapi ?")
        return _reading(passage, question, [text(p.en, p.sw) for p in places])
    if kind == 2:
        nouns = rng.sample(words.nouns, 2)
        verb = rng.choice((HAS, *words.verbs))
        passage = fact(first, verb, _quantity(rng, words, nouns[0])) + fact(
            second, verb, _quantity(rng, words, nouns[1])
        )
        question = text(f"who {verb.en} {nouns[0].plural} ?", f"nani {verb.sw} {nouns[0].sw_plural} ?")
        return _reading(passage, question, [text(n, n) for n in (first, second, *others[:2])])
    noun = rng.choice(words.nouns)
    if kind == 3:
        verb = rng.choice(words.verbs)
        passage = fact(first, HAS, _quantity(rng, words, noun)) + fact(first, verb, _quantity(rng, words, noun))
        question = text(
            f"does {first} now have more or fewer {noun.plural} ?",
            f"sasa {first} ana {noun.sw_plural} zaidi au pungufu ?",
        )
        answer = DIRECTIONS[0 if verb.effect > 0 else 1]
        return _reading(passage, question, [answer, *(d for d in DIRECTIONS if d != answer)])
    numbers = rng.sample(range(2, (max(NUMBER_WORDS) if rng.random() < 0.5 else MOST) + 1), 4)
    amounts = [_amount(rng, words, noun, number)[0] for number in numbers[:2]]
    options = [text(str(k), str(k)) for k in numbers]
    if kind == 4:
        passage = fact(first, HAS, amounts[0]) + fact(second, HAS, amounts[1])
        return _reading(passage, how_many(noun, first), options)
    passage = has_more(first, second, amounts[0]) + fact(second, HAS, amounts[1])
    return _reading(passage, how_many_more(noun, first, second), options)


def _reading(passage: Text, question: Text, options: list[Text]) -> Reading:
    answer, *wrong = options
    return Reading(passage, question, answer, (wrong[0], wrong[1], wrong[2]))


@dataclass(frozen=True)
class Problem:
    """A word problem with its worked answer. ``values`` identify it for splitting; ``new_words``: its Swahili
    needs a verb, noun or numeral that the base never met."""

    kind: str
    story: Text
    question: Text
    working: str
    result: int
    values: tuple[int, ...]
    new_words: bool

    @property
    def text(self) -> Text:
        """The story and its question."""
        return self.story + self.question


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
        story, steps, values, new = fact(name, HAS, thing), [], [start], new or new_number
        for _ in range(1 if kind == "change" else 2):
            sentence_, step, value, start, new_word = _change(rng, words, name, noun, start)
            story, new = story + sentence_, new or new_word
            steps.append(step)
            values.append(value)
        return Problem(kind, story, how_many(noun, name, now=True), " ; ".join(steps), start, tuple(values), new)
    if kind == "groups":
        (container, has), a, b = rng.choice(CONTAINERS), rng.randint(2, 9), rng.randint(2, 9)
        boxes, new_a = _amount(rng, words, container, a)
        things, new_b = _amount(rng, words, noun, b)
        story = fact(name, HAS, boxes) + each_has(container, has, things)
        return Problem(kind, story, how_many(noun, name), f"{a} * {b} = {a * b}", a * b, (a, b), new or new_a or new_b)
    a, b = rng.randint(3, MOST), rng.randint(2, 10)
    if kind == "compare" and a <= b:
        a = b + rng.randint(1, 10)
    thing_a, new_a = _amount(rng, words, noun, a)
    thing_b, new_b = _amount(rng, words, noun, b)
    story = fact(name, HAS, thing_a) + fact(other, HAS, thing_b)
    new = new or new_a or new_b
    if kind == "compare":
        return Problem(kind, story, how_many_more(noun, name, other), f"{a} - {b} = {a - b}", a - b, (a, b), new)
    question = text(
        f"how many {noun.plural} do {name} and {other} have in all ?",
        f"{name} na {other} wana {noun.sw_plural} {many} kwa jumla ?",
    )
    return Problem("total", story, question, f"{a} + {b} = {a + b}", a + b, (a, b), new)
