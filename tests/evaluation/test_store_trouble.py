from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path
from random import Random

import pytest

from harness.evaluation import store_schema
from harness.evaluation.responses import FILE_NAME, Store
from tests.evaluation.stores import answer, cell, child, fill, finished, request, variant, wrong_and_known


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE_NAME


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


@pytest.mark.parametrize("seed", range(60))
def test_nothing_wrong_is_served_from_a_damaged_file(path, sound, seed):
    check_damaged(path, sound, seed)


@pytest.mark.slow
def test_nothing_wrong_is_served_from_four_hundred_damaged_files(tmp_path, sound):
    for seed in range(1000, 1400):
        check_damaged(tmp_path / str(seed) / FILE_NAME, sound, seed)


def check_damaged(path: Path, sound: dict[str, bytes], seed: int) -> None:
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


def test_a_full_disk_keeps_whole_batches_only_and_says_so(path):
    code = """
import resource
path = Path(sys.argv[1])
fill(path)
room = path.stat().st_size + 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
store = Store(path)
for n in range(120):
    store.add_responses(variant(100 + n), {request(i): answer(100 + n, i) for i in range(60)})
    store.add_document("cell", variant(100 + n), cell(100 + n))
kept = [len(store.responses(variant(100 + n), [request(i) for i in range(60)])) for n in range(120)]
assert set(kept) == {0, 60}, kept
assert len(store.messages) == 1 and "could not keep everything" in store.messages[0], store.messages
assert wrong_and_known(store) == (0, 1212)
"""
    finished(child(code, path))
    store = Store(path)
    assert wrong_and_known(store) == (0, 1212)
    assert store.messages == []
    kept = [store.responses(variant(100 + n), [request(i) for i in range(60)]) for n in range(120)]
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
        for n in range(100):
            store.add_responses(variant(n), {request(i): answer(n, i) for i in range(200)})
        assert "could not keep everything" in store.messages[0]
        kept = [len(store.responses(variant(n), [request(i) for i in range(200)])) for n in range(100)]
        assert set(kept) == {0, 200}
        store.close()
        assert wrong_and_known(Store(path), 100, 200, 0)[0] == 0
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


def test_processes_that_find_one_file_damaged_set_it_aside_once(path):
    fill(path)
    code = """
store = Store(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
assert wrong_and_known(store)[0] == 0
store.add_document("cell", sys.argv[2], "text")
print(len(store.messages))
"""
    processes = [child(code, path, name, stdin=subprocess.PIPE) for name in "abc"]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    said = []
    for process in processes:
        out, err = process.communicate("go\n", timeout=60)
        assert process.returncode == 0, err
        said.append(int(out))
    assert sum(said) == 1
    assert len(list(path.parent.glob("*.damaged-?"))) == 1
    store = Store(path)
    assert [store.document("cell", name) for name in "abc"] == ["text"] * 3
