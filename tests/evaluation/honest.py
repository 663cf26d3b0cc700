"""Honest programs of many kinds with asserts that they pass, the same ones every time."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORDS = ("abacus", "banana", "kitabu", "swali", "zebra", "q")


def honest_programs(number: int = 500, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """So many programs, each with three tests; what is right is what this very interpreter says."""
    random = Random(seed)
    kinds = list(tomllib.loads(Path(__file__).with_name("honest.toml").read_text("utf-8")).values())
    for i in range(number):
        kind = kinds[i % len(kinds)]
        values = {"N": random.randint(2, 9), "M": random.randint(2, 30), "W": random.choice(WORDS)}
        program = f"{_filled(kind['program'], values)}# {i}\n"
        tests = []
        for _ in range(3):
            call = f"f({_filled(kind['with'], {**values, 'K': random.randint(1, 40)})})"
            namespace: dict[str, object] = {"__name__": __name__}
            with redirect_stdout(StringIO()):
                exec(program, namespace)
                value = eval(call, namespace)
                tests.append(f"assert {call} == {_written(value)}")
                exec(tests[-1], namespace)
        yield program, tests


def _filled(text: str, values: dict[str, object]) -> str:
    return re.sub("@([NMKW])", lambda found: str(values[found[1]]), text)


def _written(value: object) -> str:
    """What equals a value, in names that Python has or the program imports."""
    text = repr(dict(value) if isinstance(value, defaultdict) else value)
    return re.sub(r"\binf\b", "float('inf')", text)
