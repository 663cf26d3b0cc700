"""Four-option questions over several subjects, in English; one subject is the words of Swahili."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from harness.lab.lexicon import NOUNS, NUMBER_WORDS, Lexicon, lexicon

GENERAL = ("kinds", "colours", "opposites", "numerals", "counting", "arithmetic")
SUBJECTS = (*GENERAL, "swahili")

_COLOURS = {
    "banana": "yellow",
    "orange": "orange",
    "mango": "yellow",
    "stone": "grey",
    "tree": "green",
    "egg": "white",
    "loaf": "brown",
    "potato": "brown",
    "coin": "silver",
    "knife": "silver",
    "plate": "white",
    "lamp": "black",
    "book": "blue",
    "pen": "black",
    "ball": "red",
    "flower": "red",
}
_OPPOSITES = (
    ("buys", "sells"),
    ("gets", "loses"),
    ("receives", "gives"),
    ("adds", "removes"),
    ("collects", "throws"),
    ("big", "small"),
    ("more", "fewer"),
    ("first", "last"),
    ("larger", "smaller"),
)


@dataclass(frozen=True)
class Question:
    """A question, its answer and three wrong options."""

    subject: str
    question: str
    answer: str
    wrong: tuple[str, str, str]


def question(rng: Random, subject: str | None = None) -> Question:
    """A question on ``subject``, or on a general one drawn at random."""
    subject = subject or rng.choice(GENERAL)
    if subject == "swahili":
        return vocabulary(rng, lexicon(False))
    if subject == "kinds":
        kind = rng.choice(sorted({n.kind for n in NOUNS}))
        answer = rng.choice([n.singular for n in NOUNS if n.kind == kind])
        wrong = rng.sample([n.singular for n in NOUNS if n.kind != kind], 3)
        return _made(subject, f"which of these belongs to {kind} ?", answer, wrong)
    if subject == "colours":
        thing = rng.choice(sorted(_COLOURS))
        return _made(
            subject,
            f"what is the colour of the {thing} ?",
            _COLOURS[thing],
            rng.sample(sorted(set(_COLOURS.values()) - {_COLOURS[thing]}), 3),
        )
    if subject == "opposites":
        pair = rng.choice(_OPPOSITES)
        asked, answer = pair if rng.random() < 0.5 else pair[::-1]
        others = [word for other in _OPPOSITES if other != pair for word in other]
        return _made(subject, f"what is the opposite of {asked} ?", answer, rng.sample(others, 3))
    if subject == "numerals":
        number = rng.choice(sorted(NUMBER_WORDS))
        wrong_numbers = [k for k in NUMBER_WORDS if k != number]
        return _made(
            subject,
            f"which number is {NUMBER_WORDS[number]} ?",
            str(number),
            [str(k) for k in rng.sample(wrong_numbers, 3)],
        )
    if subject == "counting":
        numbers = rng.sample(range(2, 41), 4)
        which = rng.choice(("largest", "smallest"))
        answer_ = max(numbers) if which == "largest" else min(numbers)
        numbers.remove(answer_)
        return _made(subject, f"which number is the {which} ?", str(answer_), [str(k) for k in numbers])
    a, b = rng.randint(2, 20), rng.randint(2, 10)
    plus = rng.random() < 0.5 or b >= a
    right = a + b if plus else a - b
    near = [k for k in range(max(0, right - 5), right + 6) if k != right]
    return _made(
        "arithmetic", f"what is {a} {'+' if plus else '-'} {b} ?", str(right), [str(k) for k in rng.sample(near, 3)]
    )


def vocabulary(rng: Random, words: Lexicon) -> Question:
    """What a noun or verb among ``words`` is called in the other language."""
    pairs = (
        [(n.plural, n.sw_plural) for n in words.nouns] if rng.random() < 0.6 else [(v.en, v.sw) for v in words.verbs]
    )
    asked, *others = rng.sample(pairs, 4)
    into_swahili = rng.random() < 0.5
    name = "swahili" if into_swahili else "english"
    return _made(
        "swahili",
        f"what is {asked[not into_swahili]} in {name} ?",
        asked[into_swahili],
        [pair[into_swahili] for pair in others],
    )


def _made(subject: str, text: str, answer: str, wrong: list[str]) -> Question:
    return Question(subject, text, answer, (wrong[0], wrong[1], wrong[2]))
