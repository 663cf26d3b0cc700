"""SIGTERM as an exception: what a service manager, a container or a CI host sends before it kills."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM  # as a shell gives the status of what a signal has ended


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. As Ctrl-C does, it passes whatever catches errors, and ends a session of pytest in order."""


@contextmanager
def stopping_well() -> Iterator[threading.Event]:
    """Meanwhile SIGTERM raises :class:`Terminated` in the main thread, so that what is half-written is removed.

    Gives an event that tells whether it has come. Does nothing in another thread, or where SIGTERM is handled already.
    """
    come = threading.Event()

    def stop(number: int, _: object) -> None:
        come.set()
        raise Terminated(f"ended by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield come
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield come
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
