"""The number that a model gives as its answer, in the digits and the words of the paper's languages."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

# What comes before the answer in MGSM's worked examples, and variants of it; English and GSM8K's mark count in all.
PREFIXES = {
    "en": (),
    "sw": ("jibu ni", "jibu"),
    "te": ("సమాధానం",),
    "bn": ("উত্তর হলো", "উত্তর হল", "উত্তর"),
    "ja": ("答えは", "答え"),
}
_COMMON = ("the answer is", "####")
# Signs of other scripts for those that a number is written with in ASCII.
_SIGNS = str.maketrans({"，": ",", "٬": ",", "．": ".", "－": "-", "−": "-", "–": "-"})
# Groups of three, or of two as in 1,00,000; a minus after a digit or a letter is none.
_NUMBER = r"(?:(?<![\w)])-)?(?:[0-9]{1,3}(?:,[0-9]{2,3})+|[0-9]+)(?:\.[0-9]+)?"


def ascii_digits(text: str) -> str:
    """``text`` with the digits of every script (১৮, ౧౮, １８) as ASCII ones, and full-width signs likewise."""
    return "".join(
        str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text.translate(_SIGNS)
    )


def canonical(number: str) -> str:
    """One spelling of a number: ``1,200.50`` is ``1200.5``, ``18.0`` is ``18``, ``-0`` is ``0``."""
    text = ascii_digits(number).strip().replace(",", "")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.lstrip("0") or "0"
    digits = f"0{digits}" if digits.startswith(".") else digits
    return digits if digits == "0" else sign + digits


def reasoned(text: str, language: str) -> str:
    """The number after the last answer prefix, or else the last number of all; empty if there is none."""
    plain = ascii_digits(text)
    found = _marked(language).findall(plain) or re.findall(_NUMBER, plain)
    return canonical(found[-1]) if found else ""


def direct(text: str, language: str) -> str:
    """As :func:`reasoned`, of the first line that says anything."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return reasoned(line, language)


@cache
def _marked(language: str) -> re.Pattern[str]:
    prefixes = "|".join(re.escape(prefix) for prefix in (*PREFIXES[language], *_COMMON))
    return re.compile(rf"(?:{prefixes})[\s:：=*$¥₹৳]*({_NUMBER})", re.IGNORECASE)


def reasoned_answers(responses: Sequence[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:
    """lm-eval's filter for worked answers; a document says its language."""
    return [[reasoned(text, doc["language"]) for text in texts] for texts, doc in zip(responses, docs, strict=True)]


def direct_answers(responses: Sequence[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:
    """lm-eval's filter for bare answers."""
    return [[direct(text, doc["language"]) for text in texts] for texts, doc in zip(responses, docs, strict=True)]


def without_punctuation(responses: Sequence[str], docs: Sequence[Any]) -> list[str]:
    """lm-eval's filter for answers as its ``exact_match`` compares them when it ignores case and punctuation."""
    return [text.lower().translate(str.maketrans("", "", string.punctuation)) for text in responses]
