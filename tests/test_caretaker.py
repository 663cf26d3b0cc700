from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from random import Random

import pytest

from harness import caretaker as cache
from harness.cli import main
from harness.evaluation import store_schema
from harness.evaluation.responses import FILE_NAME, Store
from tests.evaluation.stores import answer, cell, child, fill, request, variant, wrong_and_known

DAY = 86400


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAYERSWAP_CACHE", str(tmp_path))
    return tmp_path / FILE_NAME


def at_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    monkeypatch.setattr(time, "time", lambda: DAY * (20_000.5 + day))


def test_a_store_that_is_not_there_is_not_made(path, capsys):
    for action in ("ls", "gc", "verify"):
        assert main(["cache", action]) == 0
        assert f"no store at {path}" in capsys.readouterr().out
    assert not path.exists()


def test_ls_shows_what_the_store_holds(path, capsys, monkeypatch):
    at_day(monkeypatch, 0)
    fill(path)
    at_day(monkeypatch, 3)
    Store(path).add_document("slots", "k", "text")
    path.with_name(f"{path.name}.damaged-1").write_bytes(b"x")
    assert main(["cache", "ls"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["store"] == str(path)
    assert lines["size"].endswith(" MB")
    assert (lines["variants"], lines["responses"], lines["documents"]) == ("3", "1,200", "12 cell, 1 slots")
    assert "today; the longest unused: 3 days ago" in " ".join(lines.values())
    assert "damaged-1" in " ".join(lines.values())


def test_ls_of_an_empty_store(path, capsys):
    Store(path).close()
    assert main(["cache", "ls"]) == 0
    assert "never" in capsys.readouterr().out


def test_gc_drops_what_was_not_used_for_some_days(path, capsys, monkeypatch):
    at_day(monkeypatch, 0)
    fill(path)
    at_day(monkeypatch, 100)
    store = Store(path)
    assert len(store.responses(variant(1), [request(5)])) == 1
    assert store.document("cell", variant(2)) == cell(2)
    store.close()
    assert main(["cache", "gc", "--days", "100"]) == 0
    assert "dropped 0 variants" in capsys.readouterr().out
    assert main(["cache", "gc"]) == 0
    assert "dropped 2 variants with 800 responses, 11 documents" in capsys.readouterr().out
    store = Store(path)
    assert wrong_and_known(store) == (0, 401)
    assert store.document("cell", variant(2)) == cell(2)


def test_gc_drops_the_longest_unused_until_the_file_is_small(path, capsys, monkeypatch):
    for day in range(10):
        at_day(monkeypatch, day)
        store = Store(path)
        store.add_responses(variant(day), {request(n): answer(day, n) for n in range(2000)})
        store.close()
    before = path.stat().st_size
    limit = before / 2e6
    assert main(["cache", "gc", "--size", str(limit)]) == 0
    capsys.readouterr()
    assert path.stat().st_size <= before / 2
    store = Store(path)
    kept = [len(store.responses(variant(day), [request(n) for n in range(2000)])) for day in range(10)]
    assert kept == sorted(kept)
    assert set(kept) == {0, 2000}
    assert kept.count(2000) >= 4


def test_gc_removes_old_set_aside_files_and_keeps_new_ones(path, capsys):
    fill(path)
    old, new = (path.with_name(f"{path.name}.damaged-{n}") for n in (1, 2))
    for file in (old, Path(f"{old}-wal"), new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert main(["cache", "gc"]) == 0
    assert "1 set-aside files" in capsys.readouterr().out
    assert [file.exists() for file in (old, Path(f"{old}-wal"), new)] == [False, False, True]


@pytest.mark.parametrize("options", [["--days", "-1"], ["--size", "-1"]])
def test_gc_takes_no_negative_numbers(path, capsys, options):
    assert main(["cache", "gc", *options]) == 2
    assert "from 0 up" in capsys.readouterr().err


def test_gc_beside_a_writer_that_does_not_end_says_so(path, capsys, monkeypatch):
    fill(path)
    monkeypatch.setattr(store_schema, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert main(["cache", "gc"]) == 2
    assert "is in use" in capsys.readouterr().err
    other.close()
    assert wrong_and_known(Store(path)) == (0, 1212)


def test_gc_while_runs_read_and_write(path):
    code = """
store = Store(Path(sys.argv[1]))
print("open", flush=True)
for n in range(60):
    store.add_responses(variant(n), {request(i): answer(n, i) for i in range(20)})
    assert len(store.responses(variant(n), [request(i) for i in range(20)])) == 20
assert store.messages == [], store.messages
"""
    process = child(code, path)
    assert process.stdout
    process.stdout.readline()
    while process.poll() is None:
        cache.collect(path, 10)
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    assert cache.verify(path) == cache.Found(f"{path}: 1,200 rows, all as they were written", True)


def test_verify_of_a_sound_store(path, capsys):
    fill(path)
    assert main(["cache", "verify"]) == 0
    assert "1,212 rows, all as they were written" in capsys.readouterr().out


def test_verify_finds_and_removes_damaged_rows(path, capsys, monkeypatch):
    monkeypatch.setattr(cache, "AT_ONCE", 70)
    fill(path)
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE responses SET body = zeroblob(17) WHERE variant = 1")
        other.execute("UPDATE documents SET kind = 'cel' WHERE id = 2")
        other.execute("DELETE FROM variants WHERE id = 2")
    other.close()
    assert main(["cache", "verify"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "801 damaged of 1,212 rows were found and removed" in said.err
    assert main(["cache", "verify"]) == 0
    assert wrong_and_known(Store(path)) == (0, 411)


def test_verify_finds_rows_whose_key_is_none(path, capsys):
    fill(path)
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE responses SET request = 'text' WHERE request = (SELECT max(request) FROM responses)")
        other.execute("UPDATE documents SET key = 7 WHERE id = 1")
    other.close()
    assert main(["cache", "verify"]) == 1
    assert "4 damaged of 1,212" in capsys.readouterr().err
    assert main(["cache", "verify"]) == 0


def test_verify_sets_a_file_aside_that_sqlite_cannot_read(path, capsys):
    fill(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2)
    assert main(["cache", "verify"]) == 1
    assert "set aside as" in capsys.readouterr().err
    assert path.with_name(f"{path.name}.damaged-1").stat().st_size == size // 2
    assert main(["cache", "verify"]) == 0


def test_verify_finds_damage_outside_rows(path, capsys):
    fill(path)
    other = sqlite3.connect(path)
    with other:
        other.execute("DELETE FROM responses WHERE variant = 1")
    free = int(other.execute("PRAGMA freelist_count").fetchone()[0])
    other.close()
    assert free
    with path.open("r+b") as file:
        file.seek(32)
        file.write((10**6).to_bytes(4, "big"))  # the first free page
    assert main(["cache", "verify"]) == 1
    assert "set aside as" in capsys.readouterr().err


def test_a_file_of_something_else_is_said(path, capsys):
    path.write_text("notes")
    assert main(["cache", "ls"]) == 2
    assert "set aside as" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_gc_may_be_killed(path, monkeypatch, seed):
    at_day(monkeypatch, 0)
    fill(path, 20, 400, 60)
    at_day(monkeypatch, 200)
    store = Store(path)
    assert len(store.responses(variant(1), [request(5)])) == 1
    store.close()
    code = """
import time
from harness.caretaker import collect
time.time = lambda: 86400 * 20_200.5
print("begun", flush=True)
collect(Path(sys.argv[1]), 90)
"""
    process = child(code, path)
    assert process.stdout
    process.stdout.readline()
    time.sleep(Random(seed).uniform(0, 0.1))
    process.kill()
    process.communicate()
    store = Store(path)
    for owner in range(20):
        found = store.responses(variant(owner), [request(n) for n in range(400)])
        assert len(found) in ((400,) if owner == 1 else (0, 400))
        assert all(found[request(n)] == answer(owner, n) for n in range(400) if found)
    assert store.messages == []
    store.close()
    assert cache.verify(path).sound
