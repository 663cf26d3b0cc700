from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from harness.evaluation.teamwork import Part, Team


def noting(folder: Path, name: str, after: tuple[Part, ...] = (), seconds: float = 0.0) -> Part:
    """Work that leaves a line in a file."""

    def work() -> None:
        time.sleep(seconds)
        with (folder / "noted").open("a") as file:
            file.write(f"{name} {os.getpid()}\n")

    return Part(name, work, after)


def noted(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "noted").read_text().splitlines()]


def all_of(folder: Path) -> list[Part]:
    first = [noting(folder, f"first {i}".replace(" ", "-"), seconds=0.02) for i in range(6)]
    return first + [noting(folder, f"then-{i}", tuple(first), 0.02) for i in range(6)]


def work_through(folder: Path) -> None:
    parts, team = all_of(folder), Team(folder / "parts")
    while left := team.left(parts):
        if not team.attempt(left):
            team.wait(left)


def die_at_the_first(folder: Path) -> None:
    Team(folder / "parts").attempt([Part("first-0", lambda: os.kill(os.getpid(), signal.SIGKILL))])


def test_processes_do_each_part_once_and_those_that_others_need_before(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=work_through, args=(tmp_path,)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    lines = noted(tmp_path)
    assert sorted(lines) == sorted(part.name for part in all_of(tmp_path))
    assert all(line.startswith("first") for line in lines[:6])
    team = Team(tmp_path / "parts")
    assert all(0.02 <= (team.seconds(part) or 0) < 60 for part in all_of(tmp_path))


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=die_at_the_first, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    work_through(tmp_path)
    assert noted(tmp_path).count("first-0") == 1


def test_what_fails_is_not_done(tmp_path):
    def fail() -> None:
        raise ValueError("no")

    team = Team(tmp_path / "parts")
    with pytest.raises(ValueError, match="no"):
        team.attempt([Part("a", fail)])
    assert team.left([Part("a", fail)])
    assert team.attempt([noting(tmp_path, "a")])
    assert not team.attempt([noting(tmp_path, "a")])


def test_a_part_that_another_is_at_is_waited_for_and_not_done_again(tmp_path):
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.3)

    other = threading.Thread(target=Team(tmp_path).attempt, args=([Part("a", slow)],))
    other.start()
    begun.wait()
    team = Team(tmp_path)
    assert not team.attempt([Part("a", slow)])
    team.wait([noting(tmp_path, "a")])
    other.join()
    assert not (tmp_path / "noted").exists()
    assert (team.seconds(Part("a", slow)) or 0) >= 0.3


def test_all_have_what_the_first_made(tmp_path):
    assert Team(tmp_path).agreed("plan", lambda: "one") == "one"
    assert Team(tmp_path).agreed("plan", lambda: "two") == "one"
