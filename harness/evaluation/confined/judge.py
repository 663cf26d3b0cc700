"""The process that judges one program: it evaluates the asserts, and asks the program's process only for values.

Expected values never leave this process. A name of a test that is neither Python's own nor made by the tests is the
program's; calling it sends plain data there and brings plain data back, and the comparison is made here.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import socket
from collections.abc import Sequence
from typing import Any

from .plain import MOST, decode, described, encode, receive, send

# What tests may use of the standard library: the judge's own, if the program has imported it.
MODULES = (
    *("bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools"),
    *("json", "math", "operator", "re", "statistics", "string"),
)
MEMBERS = {
    **dict.fromkeys(("Counter", "OrderedDict", "defaultdict", "deque"), "collections"),
    **dict.fromkeys(("isclose", "isnan", "isinf", "sqrt", "floor", "ceil", "pi", "inf", "nan"), "math"),
    **{"Fraction": "fractions", "Decimal": "decimal", "date": "datetime", "timedelta": "datetime"},
}
EXITED = "exited before the asserts"


class Exited(BaseException):
    """The program has asked to leave."""


class Lost(BaseException):
    """The program's process has ended."""


class Remote:
    """Something of the program's that is no data: a function, an object, an iterator.

    It never equals data; whether two of them are equal is asked of the program, which cannot equal everything.
    """

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._link.ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        return self._link.ask("attribute", self, name)

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask("item", self, key)

    def __instancecheck__(self, value: Any) -> bool:
        return bool(self._link.ask("instance", self, value))

    def __iter__(self) -> Any:
        return self._link.ask("iter", self)

    def __next__(self) -> Any:
        return self._link.ask("next", self)

    def __len__(self) -> Any:
        return self._link.ask("len", self)

    def __bool__(self) -> Any:
        return self._link.ask("bool", self)

    def __str__(self) -> Any:
        return self._link.ask("str", self)

    def __repr__(self) -> Any:
        return self._link.ask("repr", self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        return self._number == other._number or self._link.ask("equal", self, other) is True

    def __hash__(self) -> int:
        return self._number


class Link:
    """The judge's side of the channel to the program."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ask(self, action: str, *arguments: Any) -> Any:
        """What the program gives for it. Raises what the program raised, Exited, or Lost."""
        request = [action, [encode(argument, self._reference) for argument in arguments]]
        try:
            send(self._channel, request)
            kind, *answer = receive(self._channel, MOST)
        except (EOFError, OSError):
            raise Lost from None
        if kind == "value":
            return decode(answer[0], self._referred)
        raise _exception(*answer)

    @staticmethod
    def _reference(value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return ["object", value._number]
        name = getattr(value, "__name__", "")
        if getattr(builtins, name, None) is value:
            return ["builtin", name]
        raise TypeError(f"a test hands the program {type(value).__name__}, which is no plain data")

    def _referred(self, kind: str, content: Any) -> Remote:
        if kind != "object" or type(content) is not int:
            raise ValueError("no data of a program")
        return Remote(self, content)


def _exception(names: Sequence[str], text: str) -> BaseException:
    """An exception of the first builtin class among ``names``, with the name and text that the program gave."""
    for name in names:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            if not issubclass(kind, Exception):
                return Exited()
            members = {"__init__": lambda self: None, "__str__": lambda self: str(text)[:200]}
            own = str(names[0])[:100]
            made: BaseException = type(own if own.isidentifier() else kind.__name__, (kind,), members)()
            return made
    return Exited()


class _Names(ast.NodeTransformer):
    """Turns every use of one of the program's names into a question to the program."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._names or not isinstance(node.ctx, ast.Load):
            return node
        return ast.Call(ast.Name("__of_program__", ast.Load()), [ast.Constant(node.id)], [])


def judge(source: str, tests: Sequence[str], channel: socket.socket) -> str:
    """'' if the program and then every test ran to its end, otherwise the reason. Raises Lost."""
    try:
        trees = [ast.parse(test, "<test>") for test in tests]
    except (SyntaxError, ValueError) as error:
        return f"unreadable test: {type(error).__name__}: {described(error)}"
    link = Link(channel)
    try:
        link.ask("run", source)
        theirs, namespace = _names(trees, link)
        namespace["__of_program__"] = lambda name: link.ask("name", name)
        for tree in trees:
            tree = ast.fix_missing_locations(_Names(theirs).visit(tree))
            exec(compile(tree, "<test>", "exec", dont_inherit=True, optimize=0), namespace)
    except AssertionError:
        return "assertion failed"
    except MemoryError:
        return "memory"
    except Exited:
        return EXITED
    except Exception as error:
        name = "SyntaxError" if isinstance(error, SyntaxError) else type(error).__name__
        return f"{name}: {described(error)}"[:200]
    return ""


def _names(trees: Sequence[ast.AST], link: Link) -> tuple[frozenset[str], dict[str, Any]]:
    """Which names of the tests are the program's, and what the others of the standard library are.

    Python's own names stay Python's, whatever the program makes of them, unless the tests use no other name: then
    one of them is what the program was asked to write (``assert sum(10, 15) == 6``).
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    made = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    made |= {node.name or "" for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)}
    made |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)} - made
    library = {name for name in used if name in MODULES or name in MEMBERS}
    pythons = {name for name in used if hasattr(builtins, name)}
    theirs = used - library - pythons
    if not theirs:
        theirs = {name for name in sorted(used) if link.ask("has", name) is True}
    given: dict[str, Any] = {}
    for name in sorted(library - theirs):
        if link.ask("has", name) is not True:
            raise NameError(f"name {name!r} is not defined")
        module = importlib.import_module(MEMBERS.get(name, name))
        given[name] = module if name in MODULES else getattr(module, name)
    return frozenset(theirs), given
