"""Whole sessions of the real commands, killed and begun again: ``python -m benchmarks.kill_sessions --kills 60``.

Where :mod:`benchmarks.kills` ends functions in forked processes, here the commands of the README run as a user runs
them: the suite in one process and in two, with report, JUnit XML and accepted results, and ``layerswap`` merge, train,
search, report and compare. SIGKILL and SIGTERM go to the process, SIGINT, as Ctrl-C does, to its group. Did it then end
with the status and the words that it should; is anything of it still running; is what it left absent or whole; and
does the same command, run again, come to what an undisturbed run comes to?
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import left_behind
from tests.evaluation.processes import below

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SET_CHILD_SUBREAPER = 36
PATIENCE = 30.0  # seconds until a session that was told to end, or what a killed one started, counts as hanging
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
RECORDS = "\n".join(f'{{"prompt": "[math] question : asha has {n} books . ", "completion": "{n}"}}' for n in range(40))


@dataclass(frozen=True)
class Session:
    """``words`` follow the interpreter; ``result`` is what was made in the session's folder, None if it is not there.

    ``whole`` raises AssertionError if what a killed session has left would be taken for what it is not; without it,
    that must be None or the result of an undisturbed run. ``once``: the command refuses to make it again. ``says``:
    standard output is part of the result.
    """

    name: str
    share: float
    words: Sequence[str]
    result: Callable[[Path], object]
    whole: Callable[[Path, object], None] | None = None
    given: tuple[str, ...] = ()
    once: bool = False
    says: bool = False


SUITE = ("-m", "pytest", "ablations/", "-q", "-p", "no:cacheprovider", "--ablation-profile=embedded")
PICKED = (*SUITE, "-k", "(removed or soup) and (mgsm or mbpp)", "--ablation-limit=10", "--ablation-baseline=none")
REPORTED = (*PICKED, "--ablation-report={at}/reports", "--junitxml={at}/junit.xml")
ACCEPTING = (*SUITE, "-k", "soup and mmlu", "--ablation-save-baseline={at}/accepted.json", "--ablation-report=none")
MERGE = ("merge", "ties(density=0.2)", "--profile", "embedded", "--out", "{at}/out")
TUNED = ("--steps", "40", "--max-length", "64", "--batch-size", "2", "--evaluations", "10")
TRAIN = ("train", "embedded", "math", "--data", "{given}/data.jsonl", "--out", "{at}/out", *TUNED)
SEARCH = ("search", "--budget", "4", "--limit", "10", "--out", "{at}/trials.json")
COMMAND = ("-m", "harness")
SESSIONS = (
    Session("suite", 0.3, REPORTED, left_behind.suite, left_behind.suite_whole),
    Session("suite -n 2", 0.1, (*REPORTED, "-n", "2"), left_behind.suite, left_behind.suite_whole),
    Session("suite, accepting", 0.15, ACCEPTING, left_behind.accepted),
    Session("merge", 0.1, (*COMMAND, *MERGE), left_behind.model, once=True),
    Session("train", 0.1, (*COMMAND, *TRAIN), left_behind.model, once=True),
    Session("search", 0.1, (*COMMAND, *SEARCH), left_behind.trials, says=True),
    Session("report", 0.05, (*COMMAND, "report", "{at}/run"), left_behind.run, given=("run",), says=True),
    Session(
        "compare",
        0.05,
        (*COMMAND, "compare", "{at}/run", "{given}/other", "--all"),
        left_behind.run,
        given=("run",),
        says=True,
    ),
)


def start(session: Session, at: Path, given: Path) -> subprocess.Popen[bytes]:
    """A session whose files, temporary ones too, are all below ``at``; it has a process group of its own."""
    shutil.rmtree(at / "tmp", ignore_errors=True)  # what SIGKILL has left there is nobody's
    for name in ("tmp", "cache"):
        (at / name).mkdir(parents=True, exist_ok=True)
    settings = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(at / "tmp"),
        "LAYERSWAP_CACHE": str(at / "cache"),
    }
    words = [word.format(at=at, given=given) for word in session.words]
    with (at / "stdout").open("wb") as out, (at / "stderr").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS")}, **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def said(at: Path) -> str:
    """Standard output and error of the last session in ``at``."""
    return (at / "stdout").read_text("utf-8", "replace") + (at / "stderr").read_text("utf-8", "replace")


def left_running(seconds: float = PATIENCE) -> set[int]:
    """What is still below this process after so many seconds; the ended ones are waited for."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not (left := below(os.getpid()) - {os.getpid()}) or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def ended(session: Session, process: subprocess.Popen[bytes], by: signal.Signals, at: Path) -> Iterator[str]:
    """Ends a session by a signal; yields what is wrong with how it ended."""
    with suppress(ProcessLookupError):
        (os.killpg if by is signal.SIGINT else os.kill)(process.pid, by)
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        yield f"still runs {PATIENCE:.0f} s after {by.name}"
        process.kill()
        process.wait()
        return
    if by is signal.SIGKILL or status in (0, -by):  # it was done, or had only begun: Python's own end
        return
    pytest = "pytest" in session.words
    if status != (2 if pytest and by is signal.SIGINT else STATUS[by]):
        yield f"status {status} after {by.name}"
    if "Traceback (most recent call last)" in said(at) or "INTERNALERROR" in said(at):
        yield f"a traceback after {by.name}"
    if left := [path.name for path in (at / "tmp").glob("layerswap-*")]:
        yield f"{by.name} leaves {', '.join(left)} among the temporary files"


def again(session: Session, at: Path, given: Path, expected: tuple[object, str]) -> Iterator[str]:
    """Runs a session to its end where a killed one was; yields what is wrong with what it comes to."""
    there = session.once and session.result(at) is not None
    status = start(session, at, given).wait()
    if there:
        lines = said(at).strip().splitlines()
        if status != 2 or len(lines) != 1 or "exists" not in lines[0]:
            yield f"status {status} and {lines[-1:]} where the output was there already"
    elif status:
        yield f"status {status} when it was run again: {said(at)[-300:]}"
    if outcome(session, at) != expected:
        yield "another result than that of an undisturbed run"


def outcome(session: Session, at: Path) -> tuple[object, str]:
    """What a session that has ended made, and said if that counts."""
    return session.result(at), (at / "stdout").read_text("utf-8").replace(str(at), "") if session.says else ""


def check_whole(session: Session, at: Path, expected: object) -> None:
    """Raises AssertionError if something is there that is neither nothing nor whole."""
    if session.whole:
        session.whole(at, expected)
    else:
        assert session.result(at) in (None, expected), "the result is there in part"


def killed(
    session: Session, at: Path, place: Path, expected: object, most: float, random: Random
) -> tuple[str, list[str]]:
    """Ends a session at a random moment: by what, with which words (none if it was done before), and what is wrong."""
    if session.once and session.result(at) is not None:
        return "", []
    process, by = start(session, at, place), random.choice(SIGNALS)
    moment = random.uniform(0, most)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
        return "", []
    found = list(ended(session, process, by, at))
    if running := left_running():
        found.append(f"{len(running)} processes still run")
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    try:
        check_whole(session, at, expected)
    except AssertionError as error:
        found.append(str(error))
    if not process.returncode:
        return "", found
    end = f"{by.name} {process.returncode} {last_words(at)!r}"
    return end, [f"{by.name} after {moment:.2f} s: {wrong}" for wrong in found]


def campaign(options: argparse.Namespace, say: Callable[[str], None]) -> bool:
    """So many kills of sessions in their midst; False if any did harm."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whatever a killed session leaves becomes our child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has sessions ignore it
    random, counts, harm, ends = Random(options.seed), Counter[str](), list[str](), Counter[str]()
    chosen = [session for session in SESSIONS if session.name in options.of]
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="layerswap-kills-") as name:
        place = Path(name)
        expected, seconds = undisturbed(chosen, place, say)
        total = sum(session.share for session in chosen)
        left = {session.name: max(1, round(options.kills * session.share / total)) for session in chosen}
        number = 0
        while any(left.values()) and time.monotonic() < until:
            session = random.choice([session for session in chosen if left[session.name]])
            at, number = place / "killed", number + 1
            fresh(session, at, place)
            found, met = list[str](), list[str]()
            for _ in range(random.randint(1, 2)):
                most = 1.05 * seconds[session.name]
                end, wrong = killed(session, at, place, expected[session.name][0], most, random)
                found += wrong
                if not end:
                    break
                met.append(end)
                if wrong and options.keep:
                    shutil.copytree(at, options.keep / f"{options.seed}-{number}-{len(met)}", symlinks=True)
            counts[session.name] += len(met)
            ends.update(met)
            left[session.name] = max(0, left[session.name] - len(met))
            found += again(session, at, place, expected[session.name])
            harm += [f"{session.name}, run {number}: {wrong}" for wrong in found]
            say("\n   ".join([f"{number}: {session.name}", *met, *(f"WRONG {wrong}" for wrong in found)]))
            shutil.rmtree(at)
    say("\n".join(f"{count:4d}  {end}" for end, count in sorted(ends.items())))
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    say(f"{sum(counts.values())} kills in the midst of {number} runs ({listed})")
    say("\n".join(harm) or "every result as that of an undisturbed run, nothing half-written, nothing left running")
    return not harm


def last_words(at: Path) -> str:
    """The last line that a session wrote, without numbers, folders and the lines of characters around it."""
    lines = [line for line in said(at).splitlines() if line.strip()]
    return re.sub(r"/\S+|\d+(\.\d+)?", "_", lines[-1]).strip("!= ") if lines else ""


def undisturbed(
    chosen: Sequence[Session], place: Path, say: Callable[[str], None]
) -> tuple[dict[str, tuple[object, str]], dict[str, float]]:
    """What every session comes to, and how many seconds it takes; makes what sessions are given in ``place``."""
    (place / "data.jsonl").write_text(RECORDS, "utf-8")
    for name in ("run", "other") if any(session.given for session in chosen) else ():
        at = place / f"made-{name}"
        assert start(SESSIONS[0], at, place).wait() == 0, said(at)
        (at / "reports" / "latest").resolve().rename(place / name)
    expected: dict[str, tuple[object, str]] = {}
    seconds: dict[str, float] = {}
    for session in chosen:
        at = place / "undisturbed"
        fresh(session, at, place)
        started = time.monotonic()
        assert start(session, at, place).wait() == 0, said(at)
        seconds[session.name] = time.monotonic() - started
        expected[session.name] = outcome(session, at)
        assert not left_running(), f"{session.name} leaves processes"
        say(f"{session.name}: {seconds[session.name]:.1f} s undisturbed")
        shutil.rmtree(at)
    return expected, seconds


def fresh(session: Session, at: Path, place: Path) -> None:
    """An empty folder with what the session is given."""
    at.mkdir()
    for name in session.given:
        shutil.copytree(place / name, at / name)


def main() -> int:
    """The command."""
    names = [session.name for session in SESSIONS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--of", nargs="+", default=names, choices=names, help="(default: all)")
    parser.add_argument("--minutes", type=float, default=240.0, help="then it begins no other (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="a folder for what harmed sessions left")
    options = parser.parse_args()
    return int(not campaign(options, lambda text: print(text, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
