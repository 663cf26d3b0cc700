"""How the response store writes a value to a row: short, exact, and with a checksum over all that says what it is."""

from __future__ import annotations

import json
import struct
import zlib
from hashlib import blake2b
from typing import Any

KEY_BYTES = 16
SUM_BYTES = 8
RUN_BYTES = 5
SHORT = 64  # bytes under which compressing never pays
FALSE, TRUE, TEXT, JSON, SMALL_TEXT, SMALL_JSON = b"F", b"T", b"t", b"j", b"u", b"k"  # the first byte of a body


def key_of(text: str) -> bytes:
    """What stands for a digest, or for any other text, in the store: 16 bytes, equal for equal texts only."""
    return blake2b(_bytes(text), digest_size=KEY_BYTES, person=b"layerswap key").digest()


def run_of(name: str) -> int:
    """What stands for a run's name: 40 bits, so that a run hardly ever counts as one of those before it."""
    return int.from_bytes(blake2b(_bytes(name), digest_size=RUN_BYTES, person=b"layerswap run").digest(), "big")


def pack(value: Any) -> bytes:
    """A JSON value in bytes; floats come back bit for bit, NaN and infinities too, and tuples as lists.

    TypeError or ValueError for what JSON does not know.
    """
    if isinstance(value, (list, tuple)) and [type(part) for part in value] == [float, bool]:
        return (TRUE if value[1] else FALSE) + struct.pack("<d", value[0])
    if isinstance(value, str):
        return _shortest(TEXT, SMALL_TEXT, _bytes(value))
    return _shortest(JSON, SMALL_JSON, json.dumps(value, separators=(",", ":")).encode())


def unpack(body: bytes) -> Any:
    """The value that :func:`pack` made ``body`` of."""
    kind, rest = body[:1], body[1:]
    if kind in (TRUE, FALSE):
        return [struct.unpack("<d", rest)[0], kind == TRUE]
    if kind in (SMALL_TEXT, SMALL_JSON):
        rest = zlib.decompress(rest, wbits=-15)
    text = rest.decode("utf-8", "surrogatepass")
    return text if kind in (TEXT, SMALL_TEXT) else json.loads(text)


def seal(place: bytes, run: int, body: bytes) -> bytes:
    """``body`` behind a checksum of itself, of the keys that it is stored under, and of the run that wrote it."""
    return _sum(place, run, body) + body


def unseal(place: bytes, run: Any, sealed: Any) -> bytes | None:
    """The body, or None if any of the three is not what was written: columns of a damaged file may hold anything."""
    if not isinstance(run, int) or not isinstance(sealed, bytes) or not 0 <= run < 1 << 8 * RUN_BYTES:
        return None
    body = sealed[SUM_BYTES:]
    return body if body and sealed[:SUM_BYTES] == _sum(place, run, body) else None


def response_place(variant: bytes, request: bytes) -> bytes:
    """Where a response stands, for its checksum; both are keys."""
    return b"r" + variant + request


def document_place(kind: str, key: bytes) -> bytes:
    """Where a document stands, for its checksum."""
    return b"d" + key_of(kind) + key


def _sum(place: bytes, run: int, body: bytes) -> bytes:
    head = run.to_bytes(RUN_BYTES, "big") + place
    return blake2b(head + body, digest_size=SUM_BYTES, person=b"layerswap sum").digest()


def _shortest(kind: bytes, small_kind: bytes, data: bytes) -> bytes:
    if len(data) > SHORT:
        squeezer = zlib.compressobj(wbits=-15)
        small = squeezer.compress(data) + squeezer.flush()
        if len(small) < len(data):
            return small_kind + small
    return kind + data


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
