"""Values as JSON between a program and its judge: exact builtin types, rebuilt as data and nothing else.

An instance of a class derived from a builtin type is sent as that type's data, so what the class overrides (such as an
``__eq__`` that always says yes) does not reach the judge. What is no data gets a number; see ``judge.Remote``.
"""

from __future__ import annotations

import builtins
import json
import socket
import struct
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST = 8 * 1024**2  # bytes of one message that a judge reads
SMALL = 1 << 62  # integers from here on are sent in hexadecimal: decimal digits are limited, and slow
SEQUENCES: dict[str, type] = {t.__name__: t for t in (list, tuple, set, frozenset, deque)}
MAPPINGS: dict[str, type] = {t.__name__: t for t in (Counter, OrderedDict, dict)}
# What is rebuilt by calling its type with some arguments, themselves plain.
RECORDS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    complex: lambda v: (v.real, v.imag),
    range: lambda v: (v.start, v.stop, v.step),
    bytes: lambda v: (list(v),),
    bytearray: lambda v: (list(v),),
    Fraction: lambda v: (v.numerator, v.denominator),
    Decimal: lambda v: (Decimal.__str__(v),),
    datetime: lambda v: (v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
    date: lambda v: (v.year, v.month, v.day),
    timedelta: lambda v: (v.days, v.seconds, v.microseconds),
}
NAMED_RECORDS = {t.__name__: t for t in RECORDS}
DATA_TYPES = (bool, int, float, str, *SEQUENCES.values(), *MAPPINGS.values(), *RECORDS)
TYPES = {t.__name__: t for t in DATA_TYPES}


def encode(value: Any, reference: Callable[[Any], list[Any]]) -> Any:
    """``value`` as JSON-like data; ``reference`` encodes what is no data, or raises."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, type):
        return ["type", value.__name__] if TYPES.get(value.__name__) is value else reference(value)
    kinds = type(value).__mro__
    if int in kinds:
        number = int.__index__(value)
        return number if -SMALL < number < SMALL else ["int", format(number, "x")]
    if float in kinds:
        return float.__float__(value)
    if str in kinds:
        return str.__str__(value)
    for name, kind in SEQUENCES.items():
        if kind in kinds:
            items = [encode(item, reference) for item in kind.__iter__(value)]  # type: ignore[attr-defined]
            fields = getattr(value, "_fields", None) if kind is tuple else None
            return ["named", [type(value).__name__, list(fields), items]] if fields else [name, items]
    for name, kind in MAPPINGS.items():
        if kind in kinds:
            pairs = (OrderedDict if kind is OrderedDict else dict).items(value)
            return [name, [[encode(k, reference), encode(v, reference)] for k, v in pairs]]
    record = next((kind for kind in RECORDS if kind in kinds), None)
    if record is None or getattr(value, "tzinfo", None) is not None:
        return reference(value)
    return [record.__name__, [encode(part, reference) for part in RECORDS[record](value)]]


def decode(data: Any, referred: Callable[[str, Any], Any]) -> Any:
    """The value that :func:`encode` made ``data`` of; ``referred`` decodes the kinds that are no data.

    Data that :func:`encode` would not make is a ValueError or TypeError.
    """
    if data is None or type(data) in (bool, int, float, str):
        return data
    if type(data) is not list or len(data) != 2 or type(data[0]) is not str:
        raise ValueError("no data of a program")
    kind, content = data
    if kind == "int":
        return int(content, 16)
    if kind == "type":
        return TYPES[content]
    if kind == "named":
        name, fields, items = content
        return namedtuple(name, fields)(*(decode(item, referred) for item in items))
    if kind in SEQUENCES:
        return SEQUENCES[kind](decode(item, referred) for item in content)
    if kind in MAPPINGS:
        pairs = ((decode(k, referred), decode(v, referred)) for k, v in content)
        return MAPPINGS[kind](dict(pairs))
    if kind in NAMED_RECORDS:
        return NAMED_RECORDS[kind](*(decode(part, referred) for part in content))
    return referred(kind, content)


def builtin_named(name: str) -> Any:
    """The builtin of a name, such as a function that a test hands to the program."""
    return getattr(builtins, name)


def send(channel: socket.socket, message: Any) -> None:
    """One message: its length in four bytes, then JSON."""
    text = json.dumps(message).encode()
    channel.sendall(struct.pack(">I", len(text)) + text)


def receive(channel: socket.socket, most: int = 1 << 31) -> Any:
    """The next message. EOFError if the other side is gone, ValueError if it is longer than ``most`` or no JSON."""
    (size,) = struct.unpack(">I", _exactly(channel, 4))
    if size > most:
        raise ValueError(f"a value of more than {most} bytes")
    return json.loads(_exactly(channel, size))


def _exactly(channel: socket.socket, size: int) -> bytes:
    text = bytearray()
    while len(text) < size:
        try:
            piece = channel.recv(min(size - len(text), 1 << 20))
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise EOFError
        text += piece
    return bytes(text)


def described(error: BaseException) -> str:
    """The text of an exception in one line; it may come from a program, so it is not trusted to be printable."""
    try:
        return " ".join(str(error).split())[:200]
    except BaseException:
        return "?"
