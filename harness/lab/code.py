"""Descriptions of short Python functions, the functions, and asserts that tell right from wrong."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Exercise:
    """One programming exercise; ``code`` is tokens separated by spaces, and valid Python as it stands."""

    description: str
    code: str
    tests: tuple[str, ...]


# description, expression in x (k and m are constants), True if x is a list
_TEMPLATES: tuple[tuple[str, str, bool], ...] = (
    ("adds {k} to x", "x + {k}", False),
    ("subtracts {k} from x", "x - {k}", False),
    ("multiplies x by {k}", "x * {k}", False),
    ("returns the larger of x and {k}", "max ( x , {k} )", False),
    ("returns the smaller of x and {k}", "min ( x , {k} )", False),
    ("checks if x is greater than {k}", "x > {k}", False),
    ("checks if x equals {k}", "x == {k}", False),
    ("adds {k} to x and multiplies by {m}", "( x + {k} ) * {m}", False),
    ("multiplies x by {k} and adds {m}", "x * {k} + {m}", False),
    ("multiplies x by {k} and subtracts {m}", "x * {k} - {m}", False),
    ("returns the first {k} items of the list x", "x [ : {k} ]", True),
    ("drops the first {k} items of the list x", "x [ {k} : ]", True),
    ("counts {k} in the list x", "x . count ( {k} )", True),
    ("checks if {k} is in the list x", "{k} in x", True),
    ("adds {k} to each item of the list x", "[ y + {k} for y in x ]", True),
    ("multiplies each item of the list x by {k}", "[ y * {k} for y in x ]", True),
    ("keeps items greater than {k} of the list x", "[ y for y in x if y > {k} ]", True),
    ("keeps items smaller than {k} of the list x", "[ y for y in x if y < {k} ]", True),
    ("adds {k} to the sum of the list x", "sum ( x ) + {k}", True),
    ("multiplies the sum of the list x by {k}", "sum ( x ) * {k}", True),
    ("adds {k} to the largest item of the list x", "max ( x ) + {k}", True),
    ("multiplies the smallest item of the list x by {k}", "min ( x ) * {k}", True),
    ("adds {k} to the length of the list x", "len ( x ) + {k}", True),
)


TRAINED_CONSTANTS, TESTED_CONSTANTS = 12, 24


def exercise(rng: Random, most: int = TRAINED_CONSTANTS) -> Exercise:
    """A function of one argument with constants from 2 to ``most``; test items reach beyond what is trained on.

    The asserts are computed from the solution on arguments that differ.
    """
    description, expression, takes_list = rng.choice(_TEMPLATES)
    k, m = rng.randint(2, most), rng.randint(2, most)
    solution = expression.format(k=k, m=m)
    arguments: list[object] = (
        [[*(rng.randint(0, most + 3) for _ in range(most + 2)), k] for _ in range(3)]
        if takes_list
        else [k, k + rng.randint(1, 9), rng.randint(-20, 0)]
    )
    # Template and constants are this repository's own, so evaluating the solution here is safe.
    tests = tuple(f"assert f({x!r}) == {eval(solution, {}, {'x': x})!r}" for x in arguments)
    return Exercise(
        f"write a function that {description.format(k=k, m=m)} .", f"def f ( x ) : return {solution}", tests
    )
