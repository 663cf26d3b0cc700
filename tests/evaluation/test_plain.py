from __future__ import annotations

import json
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.confined.plain import decode, encode

KEYS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9)
KEYS |= (
    st.complex_numbers()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
)
VALUES = st.recursive(
    KEYS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.dictionaries(KEYS, inner).map(OrderedDict)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
        | st.lists(inner).map(deque)
    ),
    max_leaves=20,
)


class Anything(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Level(IntEnum):
    LOW = 1


def no_reference(value: Any) -> list[Any]:
    raise TypeError(type(value).__name__)


def there_and_back(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, no_reference))), no_reference)


def seen(value: Any) -> Any:
    """All that can be seen of a value: its type and its parts, in which NaN is NaN and -0.0 is not 0.0."""
    if isinstance(value, dict):
        return type(value), sorted(repr((seen(k), seen(v))) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(seen(item)) for item in value)
    return type(value), [seen(item) for item in value] if isinstance(value, list | tuple | deque) else repr(value)


def same(one: Any, other: Any) -> bool:
    return bool(seen(one) == seen(other))


@settings(max_examples=50)
@given(VALUES)
def test_data_comes_back_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value", [10**1000, -(2**62), 2**62 - 1, "\ud800", range(1, 9, 2), math.inf, -0.0, bytearray(3), {True: 1}]
)
def test_odd_data_comes_back_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_what_a_class_overrides_is_left_behind() -> None:
    assert type(there_and_back(Anything(7))) is int
    assert there_and_back(Anything(7)) != 42
    assert there_and_back(Level.LOW) == 1
    assert type(there_and_back(defaultdict(list, {1: [2]}))) is dict
    assert there_and_back(Counter("aab")) == Counter("aab")
    point = there_and_back(namedtuple("Point", "x y")(1, 2))
    assert (point.x, point) == (1, (1, 2))


def test_types_of_data_are_data_and_others_are_not() -> None:
    assert there_and_back([int, dict, Decimal, Fraction, date, timedelta]) == [
        int,
        dict,
        Decimal,
        Fraction,
        date,
        timedelta,
    ]
    for value in (Anything, object(), print, datetime(2024, 1, 1, tzinfo=timezone.utc), iter([]), {}.keys()):
        with pytest.raises(TypeError):
            encode(value, no_reference)


OTHER = """
[] | ["list"] | ["list", [], 1] | [1, 2] | {} | ["eval", "1"] | ["type", "object"] | ["int", "0x"]
["set", [["list", []]]] | ["dict", [[1]]]
["named", ["a b", ["x"], [1]]] | ["range", [1, 2, 0]] | ["Decimal", ["x"]]
"""


@pytest.mark.parametrize("text", re.split(r" \| |\n", OTHER.strip()))
def test_other_data_is_refused(text: str) -> None:
    with pytest.raises((TypeError, ValueError, KeyError, ArithmeticError)):
        decode(json.loads(text), no_reference)


def test_integers_of_any_size() -> None:
    assert there_and_back(-(10**10000)) == -(10**10000)
