"""Threads for a CPU: small models fill a core better with a batch each than with all cores on one batch."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Emit = Callable[..., None]
TURN = 0.0005  # seconds that a thread may run Python while another waits to; by default ten times as much


def run_all(tasks: Sequence[Callable[[Emit], None]], threads: int, keep: Emit) -> None:
    """Runs every task, ``threads`` at a time; what a task emits is given to ``keep`` in the calling thread.

    The first error of a task is raised once the others that run have come to what they emit next; no further task is
    begun.
    """
    threads = min(threads, len(tasks))
    if threads <= 1:
        for task in tasks:
            task(keep)
        return
    with _short_turns():
        _run(list(tasks), threads, keep)


@contextmanager
def _short_turns() -> Iterator[None]:
    """Threads that go from one short operation of torch to the next wait for their turn after each."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def threads_per_operation(count: int) -> Iterator[None]:
    """Lets each operation of torch use so many threads meanwhile; 0 leaves it as it is.

    On small tensors a second thread costs more than it does, and on a busy machine far more: it waits by spinning.
    """
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(tasks: list[Callable[[Emit], None]], threads: int, keep: Emit) -> None:
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = list(reversed(tasks))
    stop = threading.Event()

    def emit(*answer: Any) -> None:
        if stop.is_set():
            raise InterruptedError("another task has failed")
        said.put(answer)

    def work() -> None:
        try:
            while not stop.is_set():
                try:
                    task = left.pop()
                except IndexError:
                    break
                task(emit)
            said.put(None)
        except BaseException as error:  # raised again in the calling thread
            said.put(error)

    started = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    failed: BaseException | None = None
    try:
        for _ in started:
            while (answer := said.get()) is not None:
                if isinstance(answer, BaseException):
                    failed = failed or answer
                    stop.set()
                    break
                keep(*answer)
    finally:
        stop.set()
        for thread in started:
            thread.join()
    if failed is not None:
        raise failed
