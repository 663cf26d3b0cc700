"""The process of one program: it runs the source that it is sent, then does what the judge asks of its names.

Nothing in here is trusted once the program has begun. All that it can say is what a name, a call or an attribute
gives, as data; whether that is right is decided where the expected values are, in another process.
"""

from __future__ import annotations

import gc
import mmap
import operator
import random
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from .plain import builtin_named, decode, described, encode, receive, send

RESERVE = 4 * 1024**2  # bytes set free when a program has used up its memory, to say so


def serve(channel: socket.socket) -> None:
    """Runs the first message, a program's source, and answers every other; returns when the judge is gone."""
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    random.seed(0)  # the same program gets the same verdict every time
    namespace = module.__dict__
    objects: list[Any] = []

    def reference(value: Any) -> list[Any]:
        objects.append(value)
        return ["object", len(objects) - 1]

    def referred(kind: str, content: Any) -> Any:
        return objects[content] if kind == "object" else builtin_named(content)

    def run(source: str) -> None:
        try:
            code = compile(source, "<program>", "exec", dont_inherit=True, optimize=0)
        except (ValueError, RecursionError) as error:  # NUL bytes and lone surrogates are ValueErrors
            raise SyntaxError(described(error)) from None
        exec(code, namespace)

    def name(text: str) -> Any:
        if text not in namespace:
            raise NameError(f"name {text!r} is not defined")
        return namespace[text]

    def call(function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
        return function(*arguments, **keywords)

    actions: dict[str, Callable[..., Any]] = {
        "run": run,
        "name": name,
        "has": lambda text: text in namespace,
        "call": call,
        # Of two of its own objects a program may say what it likes, but not that one equals just anything.
        "equal": lambda one, other: bool(one == other) and not bool(one == object()),
        "attribute": getattr,
        "item": operator.getitem,
        "instance": lambda kind, value: isinstance(value, kind),
        **{f.__name__: f for f in (len, bool, str, repr, iter, next)},
    }
    gc.freeze()
    while True:
        try:
            action, arguments = receive(channel)
        except EOFError:
            return
        reserve = mmap.mmap(-1, RESERVE)
        try:
            values = [decode(argument, referred) for argument in arguments]
            answer: list[Any] = ["value", encode(actions[action](*values), reference)]
        except BaseException as error:
            reserve.close()
            names = [kind.__name__ for kind in type(error).__mro__]
            answer = ["raised", names, described(error)]
            del error
        else:
            reserve.close()
        send(channel, answer)
