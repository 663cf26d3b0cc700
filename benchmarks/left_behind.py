"""What sessions of the commands leave, without what the clock makes of it: for :mod:`benchmarks.kill_sessions`.

Every reader takes the folder of a session and gives None where there is no result yet.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.reporting.compare import load_saved
from harness.reporting.report import read_results
from harness.reporting.samples import read_samples

# Seconds and dates, bytes of memory, and how much work there was left to do.
TIMED = {"seconds", "merge_seconds", "peak_bytes", "name", "wall seconds", "date", "layer calls", "work"}
TIMED_LINES = re.compile(r"^\| (run|wall seconds|seconds|date|layer calls) .*\n", re.MULTILINE)
COST = re.compile(r"\n## Cost\n.*?(?=\n## )", re.DOTALL)
FILES = {"report.md", "report.html", "results.json", "results.csv", "scores.json", "samples.jsonl.gz"}


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below a folder but the hidden ones, which are nobody's result."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    shown = {name: path for name, path in found.items() if not any(part.startswith(".") for part in Path(name).parts)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in shown.items()}


def timeless(value: Any) -> Any:
    """JSON without what the clock decides."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in TIMED}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def suite(at: Path) -> object:
    """The newest report with its JUnit file; the page for browsers has the clock in many places, and must be whole."""
    folder = at / "reports" / "latest"
    if not folder.exists() or not (at / "junit.xml").exists():
        return None
    found: dict[str, Any] = digest(folder.resolve())
    found["report.html"] = (folder / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    text = COST.sub("", (folder / "report.md").read_text("utf-8"))
    found["report.md"] = re.sub(r"[ -]+", " ", TIMED_LINES.sub("", text))  # columns are as wide as the clock's words
    found["results.json"] = timeless(json.loads((folder / "results.json").read_text("utf-8")))
    found["results.csv"] = timeless(list(csv.DictReader(io.StringIO((folder / "results.csv").read_text("utf-8")))))
    found["junit.xml"] = sorted(map(_case, ElementTree.parse(at / "junit.xml").getroot().iter("testcase")))
    scores = json.loads((folder / "scores.json").read_text("utf-8"))["cases"]
    found["values"] = {case: {name: s["values"] for name, s in columns.items()} for case, columns in scores.items()}
    return found


def suite_whole(at: Path, expected: Any) -> None:
    """Every report that can be seen has all files, and no score but those of an undisturbed run."""
    folders = [path for path in (at / "reports").glob("*") if not path.name.startswith(".") and not path.is_symlink()]
    for folder in folders:
        missing = FILES - {path.name for path in folder.iterdir()}
        assert not missing, f"a report is there without {', '.join(sorted(missing))}"
        scores = json.loads((folder / "scores.json").read_text("utf-8"))["cases"]
        for case, columns in scores.items():
            for column, score in columns.items():
                assert expected["values"][case][column] == score["values"], f"another score of {case} on {column}"
        assert load_saved(str(folder)).scores
        assert read_results(folder).cases
        assert read_samples(folder / "samples.jsonl.gz")
    latest = at / "reports" / "latest"
    assert not latest.is_symlink() or latest.resolve() in map(Path.resolve, folders), "latest leads nowhere"


def accepted(at: Path) -> object:
    """The accepted results."""
    return _text(at / "accepted.json")


def trials(at: Path) -> object:
    """What a search tried, without the layers it had to call."""
    text = _text(at / "trials.json")
    return text and timeless(json.loads(text))


def model(at: Path) -> object:
    """A merged model, or an expert that was tuned, without the seconds that tuning took."""
    folder = at / "out"
    if not folder.exists():
        return None
    found: dict[str, Any] = digest(folder)
    if record := _text(folder / "training.json"):
        found["training.json"] = timeless(json.loads(record))
    return found


def run(at: Path) -> object:
    """A report that is written anew in its place, or only read."""
    return digest(at / "run")


def _case(case: ElementTree.Element) -> tuple[str, ...]:
    """A case of JUnit's XML: its name, what came of it, and its properties."""
    properties = (f"{entry.get('name')}={entry.get('value')}" for entry in case.iter("property"))
    return (f"{case.get('classname')}::{case.get('name')}", *(child.tag for child in case), *properties)


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None
