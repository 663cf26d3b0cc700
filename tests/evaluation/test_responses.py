from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluation import store_schema
from harness.evaluation.responses import FILE_NAME, Store, default_path
from harness.evaluation.stored import key_of, pack, run_of, seal, unpack, unseal

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@cache
def request(number: int) -> str:
    return sha256(f"request {number}".encode()).hexdigest()


@cache
def variant(number: int) -> str:
    return sha256(f"variant {number}".encode()).hexdigest()


@cache
def answer(owner: int, number: int) -> Any:
    """What a variant answers: the keys make it, so that a wrong one is seen for what it is."""
    random = Random(f"{owner} {number}")
    if number % 5 == 0:
        return f"{owner} {number} " + " ".join(
            random.choice(["moja", "mbili", "tatu"]) for _ in range(random.randint(0, 80))
        )
    return [random.gauss(-10, 5), random.random() < 0.5]


@cache
def cell(number: int) -> str:
    return json.dumps({"cell": number, "values": [Random(number).random() for _ in range(200)]})


def fill(path: Path, variants: int = 3, requests: int = 400, documents: int = 12, **options: Any) -> None:
    store = Store(path, **options)
    for owner in range(variants):
        store.add_responses(variant(owner), {request(n): answer(owner, n) for n in range(requests)})
    for number in range(documents):
        store.add_document("cell", variant(number), cell(number))
    store.close()
    assert store.messages == []


def wrong_and_known(store: Store, variants: int = 3, requests: int = 400, documents: int = 12) -> tuple[int, int]:
    """How much of what :func:`fill` wrote comes back as something else, and how much as it was."""
    wrong = known = 0
    asked = [request(n) for n in range(requests)]
    for owner in range(variants):
        found = store.responses(variant(owner), asked)
        for number, name in enumerate(asked):
            known += found.get(name) == answer(owner, number)
            wrong += name in found and found[name] != answer(owner, number)
    for number in range(documents):
        text = store.document("cell", variant(number))
        known += text == cell(number)
        wrong += text not in (None, cell(number))
    return wrong, known


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE_NAME


def child(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another process that runs ``code`` with the names of this module."""
    program = f"import sys\nfrom pathlib import Path\nfrom tests.evaluation.test_responses import *\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@given(JSON)
def test_a_value_comes_back_as_json_has_it(value):
    assert json.dumps(unpack(pack(value))) == json.dumps(value)


@given(st.floats(), st.booleans())
def test_a_log_likelihood_comes_back_bit_for_bit_in_nine_bytes(number, greedy):
    packed = pack((number, greedy))
    back = unpack(packed)
    assert len(packed) == 9
    assert struct.pack("<d", back[0]) == struct.pack("<d", number)
    assert back[1] is greedy


@given(st.text(st.characters()), st.text(st.characters()))
def test_texts_with_any_character_come_back_and_have_keys_of_their_own(first, second):
    assert unpack(pack(first)) == first
    assert (key_of(first) == key_of(second)) == (first == second)


def test_whole_numbers_stay_whole():
    assert [type(part) for part in unpack(pack([1, True]))] == [int, bool]


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_changed_bit_passes_the_checksum(body, data):
    place, run = key_of("place"), run_of("run")
    sealed = seal(place, run, body)
    assert unseal(place, run, sealed) == body
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    assert unseal(place, run, bytes(changed)) is None
    assert unseal(place, run ^ 1, sealed) is None
    assert unseal(key_of("elsewhere"), run, sealed) is None


@pytest.mark.parametrize("sealed", [None, 3, "text", b"", b"12345678"])
def test_what_is_no_body_does_not_pass(sealed):
    assert unseal(b"", 1, sealed) is None
    assert unseal(b"", "text", sealed) is None


def test_what_was_kept_is_there_for_the_next_process(path):
    fill(path)
    store = Store(path)
    assert wrong_and_known(store) == (0, 3 * 400 + 12)
    assert store.responses(variant(0), [request(1), "unknown"]) == {request(1): answer(0, 1)}
    assert store.responses(variant(9), [request(1)]) == {}
    assert store.responses(variant(0), []) == {}
    assert store.document("slots", variant(0)) is None
    assert store.messages == []


def test_the_later_value_is_the_one_served(path):
    store = Store(path)
    for text in ("old", "new"):
        store.add_responses("v", {"r": text})
        store.add_document("cell", "k", text)
    assert store.responses("v", ["r"]) == {"r": "new"}
    assert store.document("cell", "k") == "new"


def test_a_batch_with_an_answer_that_json_does_not_know_is_not_kept(path):
    store = Store(path)
    with pytest.raises(TypeError):
        store.add_responses("v", {"a": "text", "b": object()})
    assert store.responses("v", ["a", "b"]) == {}


def test_nan_and_infinity_are_kept(path):
    store = Store(path)
    store.add_responses("v", {"a": [math.nan, True], "b": [-math.inf, False], "c": [-0.0, True]})
    found = Store(path).responses("v", ["a", "b", "c"])
    assert math.isnan(found["a"][0])
    assert found["b"] == [-math.inf, False]
    assert math.copysign(1, found["c"][0]) == -1


def test_a_refreshing_run_is_served_only_what_its_own_processes_wrote(path):
    fill(path, run="before")
    first, second = Store(path, refresh=True, run="now"), Store(path, refresh=True, run="now")
    assert wrong_and_known(first) == (0, 0)
    first.add_responses(variant(0), {request(1): answer(0, 1)})
    first.add_document("cell", variant(3), cell(3))
    assert wrong_and_known(second) == (0, 2)
    assert wrong_and_known(Store(path, refresh=True, run="later")) == (0, 0)
    assert wrong_and_known(Store(path)) == (0, 3 * 400 + 12)


def test_a_refresh_does_not_go_by_the_clock(path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(time, "time", lambda: 4e9)
        fill(path, run="before")
    store = Store(path, refresh=True)
    assert wrong_and_known(store) == (0, 0)
    store.add_responses("v", {"r": "text"})
    assert store.responses("v", ["r"]) == {"r": "text"}


def test_being_used_is_noted_once_a_day(path, monkeypatch):
    fill(path)
    days = "SELECT (SELECT used FROM variants LIMIT 1), (SELECT used FROM documents LIMIT 1)"
    monkeypatch.setattr(time, "time", lambda: 86400 * 30_000.5)
    store = Store(path)
    wrong_and_known(store)
    reader = sqlite3.connect(path)
    assert reader.execute(days).fetchone() == (30_000, 30_000)
    before = reader.execute("PRAGMA data_version").fetchone()
    wrong_and_known(store)
    assert reader.execute("PRAGMA data_version").fetchone() == before
    reader.close()


def test_the_path_is_the_users_unless_a_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYERSWAP_CACHE", str(tmp_path))
    assert default_path() == tmp_path / FILE_NAME
    monkeypatch.setenv("LAYERSWAP_CACHE", "")
    assert default_path().parent.name == "pytest-layerswap"


def test_opening_imports_neither_torch_nor_lm_eval(path):
    code = "Store(Path(sys.argv[1])).close(); print([m for m in ('torch', 'lm_eval', 'numpy') if m in sys.modules])"
    program = f"import sys\nfrom pathlib import Path\nfrom harness.evaluation.responses import Store\n{code}"
    out = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


# Several processes


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


# Damaged files


def damaged(data: bytes, seed: int) -> bytes:
    """``data`` with bits flipped, an end cut off, or a stretch overwritten."""
    random, changed = Random(seed), bytearray(data)
    if seed % 3 == 0:
        return bytes(changed[: random.randrange(len(changed))])
    if seed % 3 == 1:
        # One flip in the first page, where the file says what it is, or up to 200 anywhere.
        places = [random.randrange(4096)] if seed % 2 else random.choices(range(len(changed)), k=random.randint(1, 200))
        for place in places:
            changed[place] ^= 1 << random.randrange(8)
        return bytes(changed)
    start = random.randrange(len(changed))
    stop = min(len(changed), start + random.randint(1, 20_000))
    changed[start:stop] = random.choice([bytes(stop - start), random.randbytes(stop - start)])
    return bytes(changed)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a store, and of one with a log that is not yet joined to it."""
    path = tmp_path_factory.mktemp("sound") / FILE_NAME
    fill(path)
    found = {"": path.read_bytes()}
    store = Store(path)
    store.add_responses(variant(0), {request(n): answer(0, n) for n in range(400)})
    store.add_document("cell", variant(3), cell(3))
    return {**found, "-wal": Path(f"{path}-wal").read_bytes()}


@pytest.mark.parametrize("seed", range(90))
def test_nothing_wrong_is_served_from_a_damaged_file(path, sound, seed):
    path.parent.mkdir()
    path.write_bytes(damaged(sound[""], seed))
    if seed % 5 == 0:
        Path(f"{path}-wal").write_bytes(damaged(sound["-wal"], seed + 1))
    store = Store(path)
    assert wrong_and_known(store)[0] == 0
    # The run goes on, computes what is missing and keeps it.
    for owner in range(3):
        store.add_responses(variant(owner), {request(n): answer(owner, n) for n in range(400)})
    for number in range(12):
        store.add_document("cell", variant(number), cell(number))
    assert wrong_and_known(store)[0] == 0
    store.close()
    assert wrong_and_known(Store(path))[0] == 0


@pytest.mark.parametrize("seed", range(12))
def test_nothing_wrong_is_served_from_a_file_that_is_damaged_while_it_is_open(path, sound, seed):
    fill(path)
    store = Store(path)
    assert wrong_and_known(store) == (0, 1212)
    with path.open("r+b") as file:
        file.write(damaged(sound[""], 3 * seed + 1 + seed % 2))
    assert wrong_and_known(store)[0] == 0
    for owner in range(3):
        store.add_responses(variant(owner), {request(n): answer(owner, n) for n in range(400)})
    assert wrong_and_known(store)[0] == 0


def test_a_changed_row_is_not_served_but_removed_and_counted(path):
    fill(path)
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE responses SET body = (SELECT body FROM responses LIMIT 1) WHERE variant = 2")
        other.execute("UPDATE documents SET body = zeroblob(30) WHERE id = 4")
        other.execute("UPDATE documents SET run = run + 1 WHERE id = 5")
    store = Store(path)
    assert wrong_and_known(store) == (0, 2 * 400 + 10)
    assert len(store.messages) == 1
    assert "402 damaged entries" in store.messages[0]
    assert other.execute("SELECT count(*) FROM responses").fetchone() == (800,)
    other.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PRAGMA user_version = 7", "version 7"),
        ("PRAGMA application_id = 7", "something else"),
        ("DROP TABLE documents", "tables"),
        ("CREATE TABLE more (x)", "tables"),
    ],
)
def test_a_database_of_another_kind_is_set_aside(path, change, said):
    fill(path)
    other = sqlite3.connect(path)
    other.execute(change)
    other.commit()
    other.close()
    store = Store(path)
    assert wrong_and_known(store) == (0, 0)
    assert len(store.messages) == 1
    assert said in store.messages[0]
    aside = path.with_name(f"{path.name}.damaged-1")
    assert aside.name in store.messages[0]
    assert aside.is_file()
    store.add_document("cell", "k", "text")
    assert Store(path).document("cell", "k") == "text"


def test_a_header_that_no_version_can_write_is_damage(path):
    fill(path)
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x07")
    store = Store(path)
    store.add_document("cell", "k", "text")
    assert "set aside" in store.messages[0]
    assert Store(path).document("cell", "k") == "text"


def test_an_empty_file_becomes_a_store(path):
    path.parent.mkdir()
    path.touch()
    fill(path)
    assert wrong_and_known(Store(path)) == (0, 1212)


# No space, no rights


def test_a_full_disk_keeps_whole_batches_only_and_says_so(path):
    code = """
import resource
path = Path(sys.argv[1])
fill(path)
room = path.stat().st_size + 200_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
store = Store(path)
for n in range(300):
    store.add_responses(variant(100 + n), {request(i): answer(100 + n, i) for i in range(60)})
    store.add_document("cell", variant(100 + n), cell(100 + n))
kept = [len(store.responses(variant(100 + n), [request(i) for i in range(60)])) for n in range(300)]
assert set(kept) == {0, 60}, kept
assert len(store.messages) == 1 and "could not be extended" in store.messages[0], store.messages
assert wrong_and_known(store) == (0, 1212)
"""
    finished(child(code, path))
    store = Store(path)
    assert wrong_and_known(store) == (0, 1212)
    assert store.messages == []
    kept = [store.responses(variant(100 + n), [request(i) for i in range(60)]) for n in range(300)]
    assert {len(found) for found in kept} == {0, 60}
    assert all(found[request(i)] == answer(100 + n, i) for n, found in enumerate(kept) if found for i in range(60))


def test_a_small_file_system_that_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        path = disk / FILE_NAME
        store = Store(path)
        for n in range(200):
            store.add_responses(variant(n), {request(i): answer(n, i) for i in range(200)})
        assert "could not be extended" in store.messages[0]
        kept = [len(store.responses(variant(n), [request(i) for i in range(200)])) for n in range(200)]
        assert set(kept) == {0, 200}
        store.close()
        assert wrong_and_known(Store(path), 200, 200, 0)[0] == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def as_nobody(code: str, *arguments: object) -> str:
    if not hasattr(os, "geteuid"):
        pytest.skip("needs a system with users")
    drop = "import os\nif not os.geteuid(): os.setgid(65534); os.setuid(65534)\n"
    return finished(child(drop + code, *arguments))


def test_a_folder_without_the_right_to_write_is_said_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if (
            parent.stat().st_mode & 0o055 != 0o055
            and os.access(parent, os.W_OK)
            and parent.stat().st_uid == os.getuid()
        ):
            parent.chmod(parent.stat().st_mode | 0o055)
    code = """
store = Store(Path(sys.argv[1]))
store.add_responses("v", {"r": "text"})
assert store.responses("v", ["r"]) == {"r": "text"}
print(*store.messages, sep="\\n")
"""
    said = as_nobody(code, folder / FILE_NAME).splitlines()
    assert len(said) == 1
    assert "goes on without it" in said[0]


def test_a_store_that_may_only_be_read_is_read(path, tmp_path):
    fill(path)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    code = """
store = Store(Path(sys.argv[1]))
assert wrong_and_known(store) == (0, 1212)
store.add_responses("v", {"r": "text"})
assert store.responses("v", ["r"]) == {}
print(*store.messages, sep="\\n")
"""
    try:
        said = as_nobody(code, path).splitlines()
    finally:
        path.parent.chmod(0o755)
    assert len(said) == 1
    assert "cannot be written" in said[0]


def test_a_path_that_can_be_no_file_is_said(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / FILE_NAME, tmp_path):
        store = Store(path)
        store.add_document("cell", "k", "text")
        assert store.document("cell", "k") == "text"
        assert len(store.messages) == 1
        assert "goes on without it" in store.messages[0]


def test_the_kind_of_trouble_is_known_without_sqlites_codes():
    texts = {
        "database is locked": "BUSY",
        "database or disk is full": "FULL",
        "disk I/O error": "FULL",
        "attempt to write a readonly database": "UNWRITABLE",
        "unable to open database file": "UNWRITABLE",
        "database disk image is malformed": "DAMAGED",
        "file is not a database": "DAMAGED",
        "no such column: body": "DAMAGED",
    }
    for text, kind in texts.items():
        assert store_schema.trouble(sqlite3.DatabaseError(text)).name == kind
