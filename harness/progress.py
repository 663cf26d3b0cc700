"""What a run prints while it goes on: a line for every case that is done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Tally:
    """How many of a session's items are done; ``left`` counts those of each case that are not."""

    started: float = field(default_factory=time.monotonic)
    total: int = 0
    done: int = 0
    left: dict[str, int] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def expect(self, names: list[tuple[str, str]]) -> None:
        """Notes the (family, case) of every item that was selected."""
        self.total = len(names)
        for family, case in names:
            self.left[f"{family}/{case}"] = self.left.get(f"{family}/{case}", 0) + 1


class Progress:
    """Prints a line when the last item of a case is done: its values, and on a terminal the time that is left."""

    def __init__(self, tally: Tally, reporter: Any, quiet: bool) -> None:
        self._tally = tally
        self._reporter = reporter
        self._quiet = quiet

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called in the controller for every phase of every item."""
        if "ablation" not in report.keywords or (report.when != "call" and report.passed) or report.when == "teardown":
            return
        tally, properties = self._tally, dict(report.user_properties)
        family, case = names_of_id(report.nodeid)
        name = str(properties.get("ablation", f"{family}/{case}"))
        tally.done += 1
        tally.left[name] = tally.left.get(name, 1) - 1
        tally.shown.setdefault(name, []).append(_shown(report, properties))
        if tally.left[name] == 0 and not self._quiet:
            write_line(self._reporter, f"  {name:<28} {'  '.join(filter(None, tally.shown[name]))}{self._time_left()}")

    def _time_left(self) -> str:
        tally = self._tally
        share = f"   [{tally.done}/{tally.total}"
        if not self._reporter.isatty or tally.done == tally.total:
            return share + "]"
        seconds = (time.monotonic() - tally.started) / tally.done * (tally.total - tally.done)
        return f"{share}, about {seconds // 60:.0f}:{seconds % 60:02.0f} left]"


class TaskView:
    """A line about the tasks of a cluster: how many are done, responses a second, and about how long the rest takes.

    On a terminal it is renewed in place; elsewhere a line is written now and then.
    """

    EVERY = 30.0  # seconds, where the output is no terminal

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._started = self._said = time.monotonic()
        self._tasks = self._responses = 0
        self._share = 0.0

    def begun(self, text: str) -> None:
        """Says what is about to be done; the time is counted from here."""
        self._started = self._said = time.monotonic()
        write_line(self._reporter, text)

    def done(self, responses: int, share: float, tasks: int) -> None:
        """Counts a task of ``tasks``, which was ``share`` of the work."""
        self._tasks, self._responses, self._share = self._tasks + 1, self._responses + responses, self._share + share
        now, last = time.monotonic(), self._tasks == tasks
        seconds = max(now - self._started, 1e-6)
        left = seconds / max(self._share, 1e-9) * max(0.0, 1 - self._share)
        text = f"ray: {self._tasks}/{tasks} tasks, {self._responses / seconds:,.0f} responses/s"
        text += f", done in {_clock(seconds)}" if last else f", about {_clock(left)} left"
        if getattr(self._reporter, "isatty", False):
            self._reporter.rewrite(text, erase=True)
            if last:
                self._reporter.write_line("")
        elif last or now - self._said >= self.EVERY:
            self._said = now
            write_line(self._reporter, text)


def _clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def names_of_id(nodeid: str) -> tuple[str, str]:
    """Family and case of an item from its id alone, which is all that an xdist controller has."""
    function, _, rest = nodeid.rpartition("::")[2].partition("[")
    return function.removeprefix("test_").replace("_", "-"), rest.removesuffix("]").rpartition("-")[0]


def write_line(reporter: Any, line: str) -> None:
    """A line of its own; under xdist the reporter does not know that its line of dots has begun."""
    if reporter is not None:
        reporter.ensure_newline()
        if reporter._tw.width_of_current_line:
            reporter.write_line("")
        reporter.write_line(line)


def _shown(report: pytest.TestReport, properties: dict[str, object]) -> str:
    """*mgsm 43.2 55.0*, with the verdict behind it if it is not a plain pass."""
    benchmark = str(properties.get("benchmark", ""))
    values = " ".join(f"{100 * v:.1f}" for k, v in properties.items() if isinstance(v, float) and k.endswith(" value"))
    verdict = str(properties.get("verdict", report.outcome.upper()))
    return f"{benchmark} {values}".strip() + ("" if verdict in ("PASS", "NEW") else f" {verdict}")
