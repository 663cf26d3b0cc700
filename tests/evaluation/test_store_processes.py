from __future__ import annotations

import signal
import sqlite3
import time
from pathlib import Path
from random import Random

import pytest

from harness.evaluation import store_schema
from harness.evaluation.responses import FILE_NAME, Store
from tests.evaluation.stores import answer, cell, child, fill, finished, request, variant, wrong_and_known


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE_NAME


def test_two_processes_write_and_read_one_store_at_once(path):
    code = """
mine, store = int(sys.argv[2]), Store(Path(sys.argv[1]), run="both")
for n in range(60):
    store.add_responses(variant(mine), {request(10 * n + i): answer(mine, 10 * n + i) for i in range(10)})
    store.add_responses(variant(7), {request(n): answer(7, n)})
    store.add_document("cell", variant(n), cell(n))
    store.responses(variant(1 - mine), [request(i) for i in range(600)])
assert wrong_and_known(store, 0, 0, 60) == (0, 60)
assert store.messages == [], store.messages
"""
    for process in [child(code, path, mine) for mine in (0, 1)]:
        finished(process)
    store = Store(path)
    assert wrong_and_known(store, 2, 600, 60) == (0, 1260)
    assert store.responses(variant(7), [request(n) for n in range(60)]) == {request(n): answer(7, n) for n in range(60)}
    assert store.messages == []


def test_a_store_that_is_damaged_before_two_processes_open_it_is_set_aside_once(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 500)
    code = "store = Store(Path(sys.argv[1])); store.add_document('cell', sys.argv[2], 'x'); print(len(store.messages))"
    said = [int(finished(process)) for process in [child(code, path, name) for name in "abc"]]
    assert sum(said) == 1
    assert len(list(path.parent.glob("*.damaged-*"))) == 1
    assert [Store(path).document("cell", name) for name in "abc"] == ["x", "x", "x"]


def test_a_process_goes_over_to_the_file_that_another_put_in_its_place(path):
    fill(path)
    first, second = Store(path), Store(path)
    assert wrong_and_known(first)[1] == wrong_and_known(second)[1] == 1212
    first._file.set_aside("a test")
    first.add_document("cell", "k", "text")
    assert second.document("cell", "k") == "text"
    second.add_document("cell", "l", "text")
    second.close()
    assert first.document("cell", "l") == "text"
    first.close()
    assert Store(path).document("cell", "l") == "text"
    assert len(list(path.parent.glob("*.damaged-?"))) == 1


def test_a_forked_process_opens_the_file_for_itself(path):
    fill(path)
    code = """
import os
store = Store(Path(sys.argv[1]))
assert wrong_and_known(store)[1] == 1212
for n in range(3):
    if not os.fork():
        store.add_responses(variant(5), {request(n): answer(5, n)})
        store.close()
        os._exit(len(store.messages))
assert [os.wait()[1] for _ in range(3)] == [0, 0, 0]
assert len(store.responses(variant(5), [request(n) for n in range(3)])) == 3
store.add_responses(variant(6), {request(0): answer(6, 0)})
store.close()
"""
    finished(child(code, path))
    assert Store(path).responses(variant(6), [request(0)]) == {request(0): answer(6, 0)}


def test_a_batch_that_waits_too_long_is_not_kept_and_said(path, monkeypatch):
    monkeypatch.setattr(store_schema, "BUSY_SECONDS", 0.05)
    fill(path)
    store = Store(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.add_responses("v", {"r": "text"})
    store.add_responses("v", {"s": "text"})
    assert wrong_and_known(store) == (0, 1212)
    assert len(Store(path).messages) == 0
    other.execute("ROLLBACK")
    other.close()
    assert len(store.messages) == 1
    assert "another process" in store.messages[0]
    store.add_responses("v", {"t": "text"})
    assert store.responses("v", ["r", "s", "t"]) == {"t": "text"}


WRITER = """
store = Store(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 100_000):
    store.add_responses(variant(n % 3), {request(50 * n + i): answer(n % 3, 50 * n + i) for i in range(50)})
    store.add_document("cell", variant(n), cell(n))
    print(n, flush=True)
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_loses_at_most_the_batch_that_was_being_written(path, seed):
    random, first = Random(seed), 0
    for _ in range(2):
        process = child(WRITER, path, first)
        assert process.stdout
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        lines = process.communicate()[0].split()
        done = max([first, *map(int, lines)])
        store = Store(path)
        for n in range(done + 2):
            asked = [request(50 * n + i) for i in range(50)]
            found = store.responses(variant(n % 3), asked)
            assert len(found) in ((50,) if n <= done else (0, 50))
            assert found == {name: answer(n % 3, 50 * n + i) for i, name in enumerate(asked) if found}
            assert store.document("cell", variant(n)) in ((cell(n),) if n <= done else (cell(n), None))
        assert store.messages == []
        store.close()
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
        first = done + 1
