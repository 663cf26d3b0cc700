"""Runs that are killed at random moments and begun again: ``python -m benchmarks.kills --kills 200``.

Merges, reports, stores and evaluations run in processes of their own, which SIGKILL, SIGTERM or SIGINT ends at a
random moment. What they leave is looked at as a user would meet it: nothing half-written may be taken for whole. Then
the same is run again in the same place, and its result must be that of a run that nothing disturbed, to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import LayerswapError

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
BENCHMARKS, LIMIT = ("mmlu", "mgsm"), 6
BATCHES, BATCH = 40, 50


@dataclass(frozen=True)
class Subject:
    """``work`` does something in a folder, as often as it is called; ``result`` says what is there, None if nothing.

    ``sound`` raises AssertionError if what a killed run has left would be taken for what it is not. ``share`` is of the
    kills.
    """

    name: str
    share: float
    work: Callable[[Path], None]
    result: Callable[[Path], object]
    sound: Callable[[Path, Any], None]


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def quiet(*arguments: str) -> int:
    """A command of this package, run in this process."""
    from harness.cli import main

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return main(arguments)


def merge(at: Path) -> None:
    """Writes a merged model, if it is not there."""
    if not (at / "out").exists():
        status = quiet("merge", "ties(density=0.2)", "--profile", "embedded", "--out", str(at / "out"))
        assert status == 0, status


def merged(at: Path) -> object:
    return digest(at / "out") if (at / "out").exists() else None


def merge_sound(at: Path, expected: Any) -> None:
    assert merged(at) in (None, expected), "a merged model is there in part"


def report(at: Path) -> None:
    """Writes a report and accepts its scores, as the end of a session does."""
    from harness.gating.baselines import save_baselines
    from harness.reporting.report import write_report
    from tests.reporting.conftest import make_run, make_samples, make_score

    run = make_run()
    write_report(run, at / "reports" / run.name, [make_samples(run)])
    scores = {"method/layer-swap": {column: make_score(column, 0.6, 0) for column in ("mgsm sw", "flores en-sw")}}
    save_baselines(at / "reports" / run.name / "scores.json", scores, {"device": "cpu"})
    save_baselines(at / "accepted.json", scores, {"device": "cpu"})


def reported(at: Path) -> object:
    return {name: value for name, value in digest(at).items() if not name.endswith(".tmp")}


def report_sound(at: Path, expected: Any) -> None:
    from harness.reporting.compare import load_saved
    from harness.reporting.report import read_results
    from harness.reporting.samples import read_samples

    for name, value in dict(reported(at)).items():  # type: ignore[call-overload]
        assert expected[name] == value, f"{name} is there in part"
    folder = at / "reports" / "example"
    for read in (lambda: read_results(folder), lambda: read_samples(folder / "samples.jsonl.gz")):
        with suppress(LayerswapError):
            read()
    for place in (str(folder), str(at / "accepted.json")):
        with suppress(LayerswapError):
            assert load_saved(place).get("method/layer-swap", "mgsm sw") is not None
    latest = at / "reports" / "latest"
    assert not latest.exists() or (latest / "report.md").is_file(), "latest leads to a report that is there in part"


def store(at: Path) -> None:
    """Fills a store."""
    from harness.evaluation.responses import Store
    from tests.evaluation.stores import answer, cell, request, variant

    kept = Store(at / "store.sqlite")
    for batch in range(BATCHES):
        asked = {request(BATCH * batch + i): answer(batch % 3, BATCH * batch + i) for i in range(BATCH)}
        kept.add_responses(variant(batch % 3), asked)
        kept.add_document("cell", variant(batch), cell(batch))
    assert kept.messages == [], kept.messages
    kept.close()


def stored(at: Path) -> list[int]:
    """How much of every batch is there; raises if any of it is wrong."""
    from harness.evaluation.responses import Store
    from tests.evaluation.stores import answer, cell, request, variant

    kept, found = Store(at / "store.sqlite"), []
    for batch in range(BATCHES):
        asked = {request(BATCH * batch + i): answer(batch % 3, BATCH * batch + i) for i in range(BATCH)}
        there = kept.responses(variant(batch % 3), list(asked))
        assert all(asked[name] == value for name, value in there.items()), "a wrong answer is served"
        text = kept.document("cell", variant(batch))
        assert text in (None, cell(batch)), "a wrong cell is served"
        found.append(len(there) + (text is not None))
    assert kept.messages == [], kept.messages
    kept.close()
    return found


def store_sound(at: Path, expected: Any) -> None:
    assert set(stored(at)) <= {0, BATCH, BATCH + 1}, "a batch is there in part"


def evaluate(at: Path) -> None:
    """Evaluates a few variants; their scores go to a file when all are there."""
    from harness.evaluation.grid import Grid, Settings
    from harness.evaluation.responses import Store
    from harness.files import replace_text
    from harness.profiles import load_profile
    from harness.recipes import Expert, LayerSwap, Soup

    profile = load_profile("embedded").model_copy(update={"batch_size": 4})
    kept = Store(at / "store.sqlite")
    grid = Grid(Settings(profile, "cpu", "float32", LIMIT), at / f"run-{os.getpid()}", kept)
    plans = [recipe.plan(grid.layers, profile.sizes) for recipe in (LayerSwap(), Expert("math"), Soup())]
    cells = {}
    for benchmark in BENCHMARKS:
        grid.expect(benchmark, plans)
        for plan in plans:
            scores = grid.cell(plan, benchmark).scores
            cells[f"{plan.drawing} {benchmark}"] = [(s.values, [x.answer for x in s.samples]) for s in scores]
    assert kept.messages == [], kept.messages
    kept.close()
    replace_text(at / "scores.json", json.dumps(cells, sort_keys=True))


def evaluated(at: Path) -> object:
    return (at / "scores.json").read_text("utf-8") if (at / "scores.json").exists() else None


def evaluate_sound(at: Path, expected: Any) -> None:
    assert evaluated(at) in (None, expected), "scores are there in part"


SUBJECTS = (
    Subject("merge", 0.35, merge, merged, merge_sound),
    Subject("report", 0.2, report, reported, report_sound),
    Subject("store", 0.25, store, stored, store_sound),
    Subject("evaluation", 0.2, evaluate, evaluated, evaluate_sound),
)


def begun(work: Callable[[Path], None], at: Path) -> int:
    """A process that does ``work``; forked, since importing torch anew would take longer than all the rest."""
    if process := os.fork():
        return process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 1
    try:
        sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        work(at)
        status = 0
    except BaseException:
        status = 1
    finally:
        os._exit(status)


def disturbed(subject: Subject, at: Path, most: float, random: Random) -> bool:
    """Kills the work in ``at`` at a random moment; whether it was still at it."""
    process = begun(subject.work, at)
    time.sleep(random.uniform(0, most))
    with suppress(ProcessLookupError):
        os.kill(process, random.choice(SIGNALS))
    _, status = os.waitpid(process, 0)
    return status != 0


def campaign(kills: int, seed: int, names: list[str], say: Callable[[str], None]) -> bool:
    """So many kills that met a run in its midst, spread over the subjects; False if any did harm."""
    random, counts, harm = Random(seed), Counter[str](), []
    chosen = [subject for subject in SUBJECTS if subject.name in names]
    with tempfile.TemporaryDirectory(prefix="layerswap-kills-") as place:
        os.environ["LAYERSWAP_CACHE"] = str(Path(place, "cache"))
        expected, seconds = {}, {}
        for subject in chosen:
            for name in ("warm", "undisturbed"):
                at = Path(place, subject.name, name)
                at.mkdir(parents=True)
                started = time.monotonic()
                subject.work(at)
                expected[subject.name], seconds[subject.name] = subject.result(at), time.monotonic() - started
            say(f"{subject.name}: {seconds[subject.name]:.2f} s undisturbed")
        total = sum(subject.share for subject in chosen)
        left = {subject.name: round(kills * subject.share / total) for subject in chosen}
        number = 0
        while any(left.values()):
            subject = random.choice([subject for subject in chosen if left[subject.name]])
            at, number = Path(place, "killed"), number + 1
            at.mkdir()
            for _ in range(random.randint(1, 3)):  # one run may be killed more than once before it ends
                if not disturbed(subject, at, 1.1 * seconds[subject.name], random):
                    counts[f"{subject.name}, ended before"] += 1
                    break
                counts[subject.name] += 1
                left[subject.name] = max(0, left[subject.name] - 1)
                try:
                    subject.sound(at, expected[subject.name])
                except AssertionError as error:
                    harm.append(f"{subject.name}, run {number}: {error}")
            _, status = os.waitpid(begun(subject.work, at), 0)
            if status or subject.result(at) != expected[subject.name]:
                harm.append(f"{subject.name}, run {number}: another result than that of an undisturbed run")
            shutil.rmtree(at)
            if number % 10 == 0:
                say(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    met = sum(count for name, count in counts.items() if "before" not in name)
    say(f"{met} kills in the midst of {number} runs ({', '.join(f'{n} {c}' for n, c in sorted(counts.items()))})")
    say("\n".join(harm) or "every result as that of an undisturbed run, nothing half-written taken for whole")
    return not harm


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--of", nargs="+", default=[subject.name for subject in SUBJECTS], help="(default: all)")
    options = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch

    torch.set_num_threads(1)
    return int(not campaign(options.kills, options.seed, options.of, lambda text: print(text, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
