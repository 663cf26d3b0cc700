"""The words of the small world, in English and Swahili, with the agreement that Swahili nouns ask for.

Swahili nouns fall into classes; numerals, adjectives and question words agree with the class of their noun
(*vitabu viwili vipya*, "two new books"; *maembe mawili mapya*, "two new mangoes").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NounClass = Literal["ki", "n", "ma", "mi"]
Language = Literal["en", "sw"]


@dataclass(frozen=True)
class Noun:
    """A thing that can be counted. ``known``: the base model meets its Swahili name in pretraining."""

    singular: str
    plural: str
    sw_singular: str
    sw_plural: str
    noun_class: NounClass
    kind: str
    known: bool


@dataclass(frozen=True)
class Word:
    """A verb, place or adjective; ``effect`` is what a verb does to the number of things one has."""

    en: str
    sw: str
    known: bool
    effect: int = 0


NAMES = ("asha", "juma", "neema", "baraka", "zawadi", "amani", "tom", "anna", "peter", "mary", "david", "ruth")

NOUNS = (
    Noun("book", "books", "kitabu", "vitabu", "ki", "school", True),
    Noun("cup", "cups", "kikombe", "vikombe", "ki", "kitchen", True),
    Noun("chair", "chairs", "kiti", "viti", "ki", "furniture", True),
    Noun("knife", "knives", "kisu", "visu", "ki", "kitchen", False),
    Noun("shoe", "shoes", "kiatu", "viatu", "ki", "clothes", False),
    Noun("potato", "potatoes", "kiazi", "viazi", "ki", "food", False),
    Noun("banana", "bananas", "ndizi", "ndizi", "n", "fruit", True),
    Noun("pen", "pens", "kalamu", "kalamu", "n", "school", True),
    Noun("plate", "plates", "sahani", "sahani", "n", "kitchen", True),
    Noun("lamp", "lamps", "taa", "taa", "n", "furniture", False),
    Noun("hat", "hats", "kofia", "kofia", "n", "clothes", False),
    Noun("coin", "coins", "sarafu", "sarafu", "n", "money", False),
    Noun("mango", "mangoes", "embe", "maembe", "ma", "fruit", True),
    Noun("orange", "oranges", "chungwa", "machungwa", "ma", "fruit", True),
    Noun("egg", "eggs", "yai", "mayai", "ma", "food", True),
    Noun("stone", "stones", "jiwe", "mawe", "ma", "nature", False),
    Noun("flower", "flowers", "ua", "maua", "ma", "nature", False),
    Noun("shirt", "shirts", "shati", "mashati", "ma", "clothes", False),
    Noun("loaf", "loaves", "mkate", "mikate", "mi", "food", True),
    Noun("ball", "balls", "mpira", "mipira", "mi", "toys", True),
    Noun("tree", "trees", "mti", "miti", "mi", "nature", True),
    Noun("arrow", "arrows", "mshale", "mishale", "mi", "toys", False),
)

# Containers carry the group problems; their verb "has" agrees: kila kikapu kina, kila mfuko una, ...
CONTAINERS = (
    (Noun("basket", "baskets", "kikapu", "vikapu", "ki", "container", True), "kina"),
    (Noun("bag", "bags", "mfuko", "mifuko", "mi", "container", True), "una"),
    (Noun("box", "boxes", "sanduku", "masanduku", "ma", "container", True), "lina"),
)

VERBS = (
    Word("buys", "ananunua", True, +1),
    Word("gets", "anapata", True, +1),
    Word("collects", "anakusanya", False, +1),
    Word("receives", "anapokea", False, +1),
    Word("borrows", "anakopa", False, +1),
    Word("adds", "anaongeza", False, +1),
    Word("sells", "anauza", True, -1),
    Word("loses", "anapoteza", False, -1),
    Word("gives", "anatoa", True, -1),
    Word("throws", "anatupa", False, -1),
    Word("uses", "anatumia", False, -1),
    Word("removes", "anaondoa", False, -1),
)

PLACES = (
    Word("at the market", "sokoni", True),
    Word("at school", "shuleni", True),
    Word("at home", "nyumbani", True),
    Word("in town", "mjini", True),
    Word("at the shop", "dukani", False),
    Word("at the river", "mtoni", False),
    Word("on the farm", "shambani", False),
    Word("in the room", "chumbani", False),
)

# Swahili adjective -> its plural form for each noun class.
ADJECTIVES: tuple[tuple[str, dict[NounClass, str], bool], ...] = (
    ("red", {"ki": "vyekundu", "n": "nyekundu", "ma": "mekundu", "mi": "myekundu"}, True),
    ("new", {"ki": "vipya", "n": "mpya", "ma": "mapya", "mi": "mipya"}, True),
    ("big", {"ki": "vikubwa", "n": "kubwa", "ma": "makubwa", "mi": "mikubwa"}, True),
    ("white", {"ki": "vyeupe", "n": "nyeupe", "ma": "meupe", "mi": "myeupe"}, False),
    ("small", {"ki": "vidogo", "n": "ndogo", "ma": "madogo", "mi": "midogo"}, False),
    ("good", {"ki": "vizuri", "n": "nzuri", "ma": "mazuri", "mi": "mizuri"}, False),
)

HOW_MANY: dict[NounClass, str] = {"ki": "vingapi", "n": "ngapi", "ma": "mangapi", "mi": "mingapi"}

NUMBER_WORDS = {
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    7: "seven",
    8: "eight",
    9: "nine",
    10: "ten",
}
KNOWN_NUMBERS = frozenset({2, 3, 4})
_AGREEING_STEMS = {2: "wili", 3: "tatu", 4: "nne", 5: "tano", 8: "nane"}
_INVARIABLE = {6: "sita", 7: "saba", 9: "tisa", 10: "kumi"}
_AGREEMENT: dict[NounClass, str] = {"ki": "vi", "n": "", "ma": "ma", "mi": "mi"}


def swahili_number(number: int, noun_class: NounClass) -> str:
    """The numeral 2 to 10 in agreement with a plural noun of ``noun_class``: *mawili*, *viwili*, *mbili*."""
    if number in _INVARIABLE:
        return _INVARIABLE[number]
    if number == 2 and noun_class == "n":
        return "mbili"
    return _AGREEMENT[noun_class] + _AGREEING_STEMS[number]


@dataclass(frozen=True)
class Lexicon:
    """The part of the world's words that a text may use in Swahili."""

    nouns: tuple[Noun, ...]
    verbs: tuple[Word, ...]
    places: tuple[Word, ...]
    adjectives: tuple[tuple[str, dict[NounClass, str], bool], ...]
    numbers: tuple[int, ...]


def lexicon(known_only: bool) -> Lexicon:
    """All words, or only those whose Swahili the base model meets."""
    keep = (lambda known: known) if known_only else (lambda known: True)
    return Lexicon(
        tuple(n for n in NOUNS if keep(n.known)),
        tuple(v for v in VERBS if keep(v.known)),
        tuple(p for p in PLACES if keep(p.known)),
        tuple(a for a in ADJECTIVES if keep(a[2])),
        tuple(k for k in NUMBER_WORDS if keep(k in KNOWN_NUMBERS)),
    )


def new_words() -> frozenset[str]:
    """Swahili nouns, verbs, places and numerals that the base never meets: only the language expert reads them."""

    def forms(words: Lexicon) -> set[str]:
        nouns = {form for noun in words.nouns for form in (noun.sw_singular, noun.sw_plural)}
        numerals = {swahili_number(k, noun_class) for k in words.numbers for noun_class in HOW_MANY}
        return nouns | numerals | {word.sw for word in (*words.verbs, *words.places)}

    return frozenset(forms(lexicon(False)) - forms(lexicon(True)))
