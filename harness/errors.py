"""The one exception that a user's mistake raises, and what those of others say."""

from __future__ import annotations


class LayerswapError(Exception):
    """A request that cannot be carried out, in one sentence for the person who made it.

    The message names the thing, says what was expected and what to do. Command line and plugin print it
    without a traceback.
    """


LONGEST = 1000


def one_line(error: object) -> str:
    """What an exception says in a line: texts of libraries have several, those of files may hold anything."""
    return " ".join(plain(str(error)).split()) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, of Python or of the C library says that memory has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    return isinstance(error, (RuntimeError, OSError)) and any(word in str(error).lower() for word in words)


def refused(error: OSError) -> str:
    """What the system has refused, as *place: reason*."""
    return (f"{error.filename}: " if error.filename else "") + (error.strerror or str(error))


def plain(text: str) -> str:
    """``text`` as a terminal may show it: no control characters but line breaks, and not longer than a person reads."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} …"
