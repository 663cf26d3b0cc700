"""How many programs a second are judged, and what one takes of the processors.

``pytest benchmarks/test_sandbox.py -s`` holds a pool of two to its bar. ``python -m benchmarks.test_sandbox`` prints
the figures of docs/sandbox.md. The programs are the 500 honest ones of the tests, three asserts each. Wall time is the
machine's too: beside other work (a load above the number of cores) the bar holds what two processors could do at the
processor time that a program takes, in this process and all that it starts.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from harness.evaluation.sandbox import Sandbox, no_sandbox, sandbox_facts
from tests.evaluation.honest import honest_programs

BAR = 100.0
ROUNDS = 3
Programs = Sequence[tuple[str, list[str]]]


@dataclass(frozen=True)
class Rate:
    """Programs a second by the clock, processor milliseconds of one, and the machine's load meanwhile."""

    wall: float
    processor: float
    load: float

    @property
    def on_two(self) -> float:
        """Programs a second that two processors could do."""
        return 2000 / self.processor

    def __str__(self) -> str:
        return f"{self.wall:.0f} | {self.processor:.1f} | {self.on_two:.0f} | {self.load:.1f}"


def rate(programs: Programs, size: int) -> Rate:
    """Of a pool that has been started; each program must pass."""
    used = _used()
    with Sandbox(size=size) as sandbox, ThreadPoolExecutor(size) as pool:
        warm = [(f"{source}# warm", tests) for source, tests in programs[: 10 * size]]
        assert all(outcome.passed for outcome in pool.map(lambda asked: sandbox.run(*asked), warm))
        started = time.perf_counter()
        outcomes = list(pool.map(lambda asked: sandbox.run(*asked), programs))
        seconds = time.perf_counter() - started
    assert all(outcome.passed for outcome in outcomes)
    # Starting and the programs that warm up are in it: an upper bound.
    return Rate(len(programs) / seconds, 1000 * (_used() - used) / len(programs), os.getloadavg()[0])


def _used() -> float:
    """Processor seconds of this process and of all that it has started and that has ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())
def test_a_pool_of_two_judges_a_hundred_programs_a_second() -> None:
    programs = list(honest_programs())
    found = [rate(programs, 2) for _ in range(ROUNDS)]
    print("\n", *(f"| {each} |\n" for each in found))
    busy = min(each.load for each in found) > (os.cpu_count() or 1)
    assert max(each.on_two if busy else each.wall for each in found) >= BAR


def main() -> None:
    """Prints a table."""
    programs = list(honest_programs())
    print(f"{sandbox_facts()}, {os.cpu_count()} cores\n")
    print("| sandboxes | programs a second | processor ms each | on two processors | load |\n|---|---|---|---|---|")
    for size in (1, 2, 4):
        for _ in range(ROUNDS):
            print(f"| {size} | {rate(programs, size)} |")


if __name__ == "__main__":
    main()
