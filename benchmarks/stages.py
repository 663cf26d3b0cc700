"""Where the seconds of a run of the suite go: start-up, items, and the end of the run.

    python -m benchmarks.stages                    # pytest ablations/, twice: the second run finds what the first kept
    python -m benchmarks.stages --runs 3 ablations/ -k transition
    python -m benchmarks.stages --runs 1 ablations/ --collect-only

Everything after the options goes to pytest. For each run: seconds of wall time and of processor time from the start of
the interpreter to the end of collection, in the items, from the last item to the end of the report, and after it; and
which of the large libraries were imported. Compiled files of the package are written before, so that they cost nothing.
"""

from __future__ import annotations

import argparse
import compileall
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LARGE = ("torch", "transformers", "lm_eval", "numpy", "scipy", "pandas", "matplotlib", "sacrebleu", "pydantic")
STAGES = ("start", "items", "end of run", "exit")


class Clock:
    """A plugin that notes wall and processor time at the borders between stages."""

    def __init__(self, started: float) -> None:
        self.times = [(started, 0.0)]

    def _note(self) -> None:
        self.times.append((time.time(), time.process_time()))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._note()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        self._note()
        yield
        self._note()


def main() -> None:
    """Runs pytest as often as asked for, each time in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2)
    options, rest = parser.parse_known_args()
    compileall.compile_dir(ROOT / "harness", quiet=1)
    print(f"{'':8}" + "".join(f"{stage:>22}" for stage in (*STAGES, "all")) + "   (wall, processor seconds)")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, options.runs + 1):
            notes = Path(folder) / f"{number}.json"
            code = f"from benchmarks.stages import measure; measure({str(notes)!r}, {rest or ['ablations/']!r})"
            # CPython's own setting would make every run compile the package and pytest's rewritten modules anew.
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
            environment["LAYERSWAP_STARTED"] = str(time.time())
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False, stdout=sys.stderr)
            _show(f"run {number}", json.loads(notes.read_text(encoding="utf-8")), time.time())


def measure(notes: str, arguments: list[str]) -> None:
    """One run in this process; leaves its times in the file ``notes``."""
    clock = Clock(float(os.environ["LAYERSWAP_STARTED"]))
    status = pytest.main(arguments, plugins=[clock])
    clock._note()
    known = [name for name in LARGE if name in sys.modules]
    Path(notes).write_text(json.dumps({"times": clock.times, "imported": known}), encoding="utf-8")
    raise SystemExit(status)


def _show(name: str, noted: dict[str, Any], ended: float) -> None:
    times = noted["times"]
    spans = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(times)]
    spans.append((ended - times[0][0], times[-1][1]))
    cells = "".join(f"{f'{wall:.2f} {cpu:.2f}':>22}" for wall, cpu in spans)
    print(f"{name:8}{cells}   imported: {', '.join(noted['imported'])}")


if __name__ == "__main__":
    main()
