"""The response store at size: how long a look-up takes, and how many bytes a response takes.

``pytest benchmarks/test_store.py`` measures 100,000 responses. ``python -m benchmarks.test_store --responses 10000000``
prints the table of docs/store.md; it takes about 100 bytes of disk a response, and some minutes.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from harness.evaluation.responses import Store

BAR_SECONDS = 0.001
EACH = 50_000  # responses of a variant: MMLU has 56,168 log-likelihoods
BATCH = 1_000
ROUNDS, LOOK_UPS = 7, 4_000
TEXT = " Step by step: she has 3 boxes of 12 , gives away 7 and buys 5 more . 3 * 12 = 36 ; 36 - 7 + 5 = 34 #### 34"


def digest(kind: str, number: int) -> str:
    """A digest as the grid makes them."""
    return sha256(f"{kind} {number}".encode()).hexdigest()


def batches(responses: int, texts: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Variant and answers, a batch at a time."""
    random = Random(0)
    for first in range(0, responses, BATCH):
        numbers = range(first, min(first + BATCH, responses))
        yield (
            digest("variant", first // EACH),
            {
                digest("request", number % EACH): f"{random.random()}{TEXT}"
                if texts
                else [-30 * random.random(), random.random() < 0.5]
                for number in numbers
            },
        )


def fill(path: Path, responses: int, texts: bool = False) -> float:
    """Writes that many responses; seconds it took."""
    started = time.perf_counter()
    store = Store(path)
    for variant, answers in batches(responses, texts):
        store.add_responses(variant, answers)
    store.close()
    assert not store.messages
    return time.perf_counter() - started


def look_ups(path: Path, responses: int, count: int, seed: int = 1) -> list[float]:
    """Seconds of single look-ups of random responses, in ascending order, just after the file was opened."""
    random, store, seconds = Random(seed), Store(path), []
    for _ in range(count):
        number = random.randrange(responses)
        variant, request = digest("variant", number // EACH), digest("request", number % EACH)
        started = time.perf_counter()
        found = store.responses(variant, [request])
        seconds.append(time.perf_counter() - started)
        assert request in found
    store.close()
    return sorted(seconds)


def at(share: float, ordered: list[float]) -> float:
    """The value that this share of the others does not exceed."""
    return ordered[int(share * (len(ordered) - 1))]


def vacuum(path: Path) -> None:
    """What ``cache gc`` does to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def forget(path: Path) -> None:
    """Has the system drop the file from memory, where it can."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


RESPONSES = 100_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "responses.sqlite"
    fill(path, RESPONSES)
    return path


def test_a_look_up_takes_less_than_a_millisecond_in_99_of_100(path: Path) -> None:
    assert min(at(0.99, look_ups(path, RESPONSES, 1_000, seed)) for seed in range(5)) < BAR_SECONDS


def test_a_log_likelihood_takes_less_than_100_bytes(path: Path) -> None:
    assert path.stat().st_size / RESPONSES < 100


def test_looking_up_a_batch(benchmark: Any, path: Path) -> None:
    store, requests = Store(path), [digest("request", number) for number in range(64)]
    assert len(benchmark(store.responses, digest("variant", 1), requests)) == 64


def test_keeping_a_batch(benchmark: Any, tmp_path: Path) -> None:
    store, numbers = Store(tmp_path / "responses.sqlite"), iter(range(10**9))

    def batch() -> tuple[tuple[str, dict[str, Any]], dict[str, Any]]:
        return (digest("variant", 0), {digest("request", next(numbers)): [-1.5, True] for _ in range(64)}), {}

    benchmark.pedantic(store.add_responses, setup=batch, rounds=50)
    assert not store.messages


def main(responses: int, texts: bool, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "responses.sqlite"
        seconds = fill(path, responses, texts)
        kind = "texts of about 125 characters" if texts else "log-likelihoods"
        print(f"{responses:,} {kind}, {EACH:,} a variant, {BATCH:,} a batch: written in {seconds:.0f} s")
        for state in ("as written", "after VACUUM"):
            if state != "as written":
                vacuum(path)
            print(f"{state}: {path.stat().st_size / responses:.1f} bytes a response")
            for temperature in ("cold", "warm"):
                rounds = []
                for seed in range(ROUNDS):
                    if temperature == "cold":
                        forget(path)
                    rounds.append(look_ups(path, responses, LOOK_UPS, seed))
                p50, p99 = (sorted(1e6 * at(share, found) for found in rounds) for share in (0.5, 0.99))
                print(
                    f"  {temperature}, {ROUNDS} rounds of {LOOK_UPS:,} single look-ups: p50 {median(p50):.0f} us, "
                    f"p99 {median(p99):.0f} us ({p99[0]:.0f} to {p99[-1]:.0f})"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=100_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--texts", action="store_true", help="generated texts instead of log-likelihoods")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary one)")
    options = parser.parse_args()
    main(options.responses, options.texts, options.folder)
