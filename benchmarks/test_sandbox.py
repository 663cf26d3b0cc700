"""How many programs a second are judged, by sandboxes at work at a time.

``pytest benchmarks/test_sandbox.py -s`` holds the best of some rounds with a pool of two to its bar, on two cores;
``python -m benchmarks.test_sandbox`` prints the table of docs/sandbox.md. The programs are the 500 honest ones of the
tests, three asserts each. Other work on the machine lowers the figures: the load is printed with them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.evaluation.sandbox import Sandbox, no_sandbox, sandbox_facts
from tests.evaluation.honest import honest_programs

BAR = 100.0
ROUNDS = 3
Programs = Sequence[tuple[str, list[str]]]


def rate(programs: Programs, size: int) -> float:
    """Programs a second in a pool that has been started; each must pass."""
    with Sandbox(size=size) as sandbox, ThreadPoolExecutor(size) as pool:
        warm = [(f"{source}# warm", tests) for source, tests in programs[: 10 * size]]
        assert all(outcome.passed for outcome in pool.map(lambda asked: sandbox.run(*asked), warm))
        started = time.perf_counter()
        outcomes = list(pool.map(lambda asked: sandbox.run(*asked), programs))
        seconds = time.perf_counter() - started
    assert all(outcome.passed for outcome in outcomes)
    return len(programs) / seconds


def rates(programs: Programs, size: int) -> str:
    """The rounds of one size as a line of a table."""
    found = sorted(rate(programs, size) for _ in range(ROUNDS))
    return f"| {size} | {found[-1]:.0f} | {found[0]:.0f} | {os.getloadavg()[0]:.1f} |"


@pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())
def test_a_pool_of_two_judges_a_hundred_programs_a_second() -> None:
    programs = list(honest_programs())
    found = [rate(programs, 2) for _ in range(ROUNDS)]
    print(
        f"\n{max(found):.0f} a second (of {ROUNDS} rounds, the least {min(found):.0f}), load {os.getloadavg()[0]:.1f}"
    )
    assert max(found) >= BAR


def main() -> None:
    """Prints a table."""
    programs = list(honest_programs())
    print(f"{sandbox_facts()}, {os.cpu_count()} cores\n")
    print("| sandboxes | programs a second, best of 3 | least | load |\n|---|---|---|---|")
    for size in (1, 2, 4):
        print(rates(programs, size))


if __name__ == "__main__":
    main()
