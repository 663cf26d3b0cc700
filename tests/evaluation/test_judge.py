"""Which names of a test are the program's, and what is compared where."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.evaluation.sandbox import Outcome, Sandbox, no_sandbox

pytestmark = pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())

FAILED = Outcome(False, "assertion failed")
POINT = "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return {}\n"
CAUGHT = "except LookupError as error:\n    assert str(error) == '1'"
HONEST = POINT.format("isinstance(other, P) and self.x == other.x")
ALWAYS = POINT.format("True")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(size=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def sum(a, b): return a * b", "assert sum(10, 15) == 150"),
        ("def f(x): return x\ndef set(x): return 1", "assert set(f([1, 1])) == {1}"),
        ("import math\ndef f(x): return x / 3", "assert math.isclose(f(1), 0.333333, rel_tol=1e-3)"),
        ("from collections import Counter\ndef f(s): return {'a': 2}", "assert f('aa') == Counter('aa')"),
        ("def f(x):\n    yield from range(x)", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(x): return lambda y: x + y", "assert f(1)(2) == 3"),
        ("def f(x): return int", "assert f(1) is int and f(1) == int"),
        ("def f(xs, kind): return [x for x in xs if not isinstance(x, kind)]", "assert f([1, 'a'], int) == ['a']"),
        ("def f(xs, g): return g(xs)", "assert f([3, 1], sorted) == [1, 3]"),
        ("x = {'a': [1]}", "assert x['a'][0] == 1 and [y for y in x] == ['a']"),
        ("def f(x): return {'a': 1}.keys()", "assert 'a' in f(1) and len(f(1)) == 1"),
        ("def f(x): raise KeyError(x)", "try:\n    f(1)\n    assert False\n" + CAUGHT),
        (HONEST, "assert P(1) == P(1) and P(1) != P(2) and isinstance(P(1), P) and P(3).x == 3"),
        (HONEST + "def f(p): return p.x", "assert f(P(4)) == 4 and sorted([f(P(2)), f(P(1))]) == [1, 2]"),
        ("def f(x): return x", "n = 5\nassert f(n) == n and (lambda y: f(y))(2) == 2"),
        ("import datetime\ndef f(y): return datetime.date(y, 1, 1)", "assert f(2024) == datetime.date(2024, 1, 1)"),
    ],
)  # fmt: skip
def test_right(sandbox: Sandbox, program: str, test: str) -> None:
    namespace: dict[str, object] = {}
    if "def set" not in program:
        exec(f"{program}\n{test}", namespace)  # Python thinks so too
    assert sandbox.run(program, [test]) == Outcome(True, "passed")


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(x): return 0\ndef set(x): return 1", "assert set(f(2)) == set((1, 2))"),
        ("class math:\n    isclose = lambda *_, **k: True\ndef f(x): return 9.0", "assert math.isclose(f(1), 1.0)"),
        ("def isclose(*_, **k): return True\ndef f(x): return 9.0", "assert isclose(f(1), 1.0)"),
        ("def len(x): return 2\ndef f(x): return []", "assert len(f(1)) == 2"),
        (ALWAYS + "def f(x): return P(x)", "assert f(1) == 2"),
        (ALWAYS + "def f(x): return P(x)", "assert 2 == f(1)"),
        (ALWAYS + "def f(x): return [P(x)]", "assert f(1) == [2]"),
        (ALWAYS + "def f(x): return {P(x)}\nP.__hash__ = lambda self: hash(2)", "assert f(1) == {2}"),
        (ALWAYS + "def f(x): return P(x)", "assert f(1) in [1, 2]"),
        (ALWAYS + "def f(x): return P(x)", "assert f(1) == P(1) == P(2)"),
        ("class A:\n    __contains__ = lambda s, x: True\ndef f(x): return A()", "assert 2 in f(1)"),
        ("class A(list):\n    __eq__ = lambda s, o: True\ndef f(x): return A()", "assert f(1) == [2]"),
        ("class A:\n    __bool__ = lambda s: True\ndef f(x): return A()", "assert f(1) is True"),
    ],
)  # fmt: skip
def test_wrong(sandbox: Sandbox, program: str, test: str) -> None:
    assert not sandbox.run(program, [test]).passed


def test_a_name_of_the_library_must_be_imported_by_the_program(sandbox: Sandbox) -> None:
    outcome = sandbox.run("def f(x): return 1.0", ["assert math.isclose(f(1), 1.0)"])
    assert outcome.reason == "NameError: name 'math' is not defined"


def test_what_a_test_hands_over_is_data(sandbox: Sandbox) -> None:
    outcome = sandbox.run("def f(g): return g(1)", ["assert f(lambda x: x) == 1"])
    assert outcome.reason == "TypeError: a test hands the program function, which is no plain data"


def test_a_program_does_not_reach_what_tests_hold(sandbox: Sandbox) -> None:
    assert sandbox.run("def f(xs): xs.append(3)", ["xs = [1]\nf(xs)\nassert xs == [1]"]).passed
