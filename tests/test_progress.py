from __future__ import annotations

import io
import time

import pytest

from harness import progress
from harness.progress import TaskView


class Writer:
    width_of_current_line = 0


class Reporter:
    """What a view needs of pytest's terminal reporter."""

    def __init__(self, isatty: bool) -> None:
        self.isatty, self.out, self._tw = isatty, io.StringIO(), Writer()

    def ensure_newline(self) -> None:
        pass

    def write_line(self, line: str) -> None:
        self.out.write(line + "\n")

    def rewrite(self, line: str, erase: bool = False) -> None:
        self.out.write("\r" + line)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(view: TaskView, clock: list[float]) -> list[str]:
    view.begun("ray: 4 tasks for 2 workers")
    for share in (0.4, 0.3, 0.2, 0.1):
        clock[0] += 20.0
        view.done(100, share, 4)
    return view._reporter.out.getvalue().replace("\r", "\n").split("\n")


def test_a_terminal_is_told_of_each_task_with_throughput_and_the_time_left(clock):
    assert time.monotonic() == 100.0
    assert run(TaskView(Reporter(True)), clock) == [
        "ray: 4 tasks for 2 workers",
        "",
        "ray: 1/4 tasks, 5 responses/s, about 0:30 left",
        "ray: 2/4 tasks, 5 responses/s, about 0:17 left",
        "ray: 3/4 tasks, 5 responses/s, about 0:07 left",
        "ray: 4/4 tasks, 5 responses/s, done in 1:20",
        "",
    ]


def test_a_log_is_told_now_and_then_and_at_the_end(clock):
    assert run(TaskView(Reporter(False)), clock) == [
        "ray: 4 tasks for 2 workers",
        "ray: 2/4 tasks, 5 responses/s, about 0:17 left",
        "ray: 4/4 tasks, 5 responses/s, done in 1:20",
        "",
    ]
