"""Readers of strangers' files, given files that are nearly sound: ``python -m benchmarks.fuzz yaml --seconds 600``.

Mutants of small sound files, and of mutants that said something new, go through the real reader in this process, which
may hold 1 GB beyond what importing took and take 5 seconds of processor time for each. A reader may return or raise
:class:`LayerswapError`; everything else is a find: the input goes to ``tests/damage/corpus``, whose files the tests
replay. Several readers have each a process of its own, ``--jobs`` of them at a time. Seconds are of processor time, so
that other work on the machine takes nothing from a reader.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from harness.errors import LayerswapError
from tests.damage.readers import READERS, Reader, put
from tests.damage.workshop import build

CORPUS = Path(__file__).parents[1] / "tests" / "damage" / "corpus"
MEMORY, SECONDS, LONGEST = 1 << 30, 5, 1 << 20
WORDS = [
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1.5", b'"x"', b"'", b'"'),
    *(
        b"9" * 30,
        b"9" * 5000,
        b"[" * 2000,
        b"{" * 2000,
        b'{"a":' * 2000,
        b"(" * 500,
        b"- " * 500,
        b"\xff",
        b"\0",
        b"\n",
    ),
    *(
        b"\xed\xa0\x80",
        b"\\ud800",
        "\u2028".encode(),
        b"\t",
        b",",
        b":",
        b"=",
        b"&a ",
        b"*a",
        b"!!python/name:os.system",
    ),
    *(
        b"<<: *a",
        b"../",
        b"/",
        b"18446744073709551615",
        b"9223372036854775808",
        b"__import__('os')",
        b"\r\n",
        b"#",
        b"%",
    ),
    *(b"2000-01-01", b"0x10", b"1_0", b".nan", b"~", b"---", b"...", b"?", b"|", b">"),
]


class Hang(Exception):
    """A reader took too long."""


def mutant(reader: Reader, pool: list[bytes], random: Random) -> bytes:
    """A changed copy of one of the pool; inside of compressed and length-prefixed formats mostly what they hold."""
    data = random.choice(pool)
    inner = random.random() < 0.8
    if reader.name == "samples" and inner:
        try:
            return gzip.compress(changed(gzip.decompress(data), pool, random), 1)
        except (OSError, EOFError, zlib.error):
            return changed(data, pool, random)
    if reader.name == "safetensors" and inner and len(data) > 8:
        (size,) = struct.unpack("<Q", data[:8])
        head = changed(data[8 : 8 + size], pool, random)
        return struct.pack("<Q", len(head)) + head + data[8 + size :]
    return changed(data, pool, random)


def changed(data: bytes, pool: list[bytes], random: Random) -> bytes:
    """One to four changes: bits, bytes, words, stretches, values of JSON, parts of other inputs."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((0, 1, 1, 2, 4, 16, 200)))
        kind = random.randrange(8)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:at] + data[at:to] * 2 + data[to:]
        elif kind == 3:
            data = data[:at] + random.choice(WORDS) + data[to:]
        elif kind == 4 and (values := list(re.finditer(rb'"[^"\n]{0,40}"|-?[\d.]+|true|false|null|\[|\{|\w+', data))):
            found = random.choice(values)
            data = data[: found.start()] + random.choice(WORDS) + data[found.end() :]
        elif kind == 5 and (values := list(re.finditer(rb'"[^"\n]{0,40}"|-?[\d.]+|\w+', data))):
            found, other = random.choice(values), random.choice(values)
            data = data[: found.start()] + other.group() + data[found.end() :]
        elif kind == 6:
            other_data = random.choice(pool)
            data = data[:at] + other_data[random.randrange(len(other_data) + 1) :]
        else:
            data = data[:at]
    return data[:LONGEST]


def fuzz(reader: Reader, seconds: float, seed: int) -> int:
    """Runs the reader for so long; prints what came of it and returns how many finds there were."""
    random, finds, runs, read, slowest = Random(seed), 0, 0, 0, 0.0

    def hang(*_: object) -> None:
        raise Hang(f"longer than {SECONDS} s")

    with tempfile.TemporaryDirectory(prefix="layerswap-fuzz-") as place:
        workshop = Path(place, "workshop")
        workshop.mkdir()
        build(workshop)
        pool = [(workshop / reader.seeds[0]).read_bytes()]
        pool += [path.read_bytes() for path in sorted((CORPUS / reader.name).glob("*"))]
        known: set[str] = set()
        reader.read(workshop / reader.seeds[0])  # imports all that it needs
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.signal(signal.SIGPROF, hang)
        begin = time.process_time()
        while time.process_time() - begin < seconds:
            data = mutant(reader, pool, random)
            path, runs = put(reader, workshop, data), runs + 1
            started, said = time.process_time(), ""
            try:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                reader.read(path)
                read += 1
                said = f"read {read % 50}"
            except LayerswapError as error:
                said = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "", str(error))[-80:]
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                finds += _keep(reader, data, error, known)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - started)
            if said not in known and len(known) < 3000:  # says something new: worth changing further
                known.add(said)
                pool.append(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{reader.name}: {seconds:.0f} s of processor time, {runs:,} inputs, "
        f"{read:,} of them read, {len(pool):,} kept to change further, {finds} finds; slowest {slowest:.2f} s, "
        f"most memory {peak:.0f} MB with all libraries",
        flush=True,
    )
    return finds


def _keep(reader: Reader, data: bytes, error: BaseException, known: set[str]) -> int:
    """Writes an input that was survived badly, one for each place that it failed at."""
    frames = [f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__) if "harness" in f.filename]
    where = f"{type(error).__name__} at {frames[-1] if frames else '?'}"
    if where in known:
        return 0
    known.add(where)
    folder = CORPUS / reader.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(f"{reader.name}: {where}: {str(error)[:200]!r}", flush=True)
    return 1


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600, help="for each (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="readers at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options = parser.parse_args()
    names = options.readers or list(READERS)
    if len(names) == 1:
        return int(fuzz(READERS[names[0]], options.seconds, options.seed) > 0)
    command = [sys.executable, "-m", "benchmarks.fuzz", "--seconds", str(options.seconds), "--seed", str(options.seed)]
    with ThreadPoolExecutor(options.jobs) as pool:
        return int(any(pool.map(lambda name: subprocess.call([*command, name]), names)))


if __name__ == "__main__":
    sys.exit(main())
