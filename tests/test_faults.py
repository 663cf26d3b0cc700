"""Full disks, signals, and two processes at once: what is written is whole, or is not there."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import runlog
from harness.cli import main
from harness.errors import LayerswapError
from harness.files import atomic_folder, replace_text
from harness.gating.baselines import save_baselines
from harness.reporting.report import write_report
from tests.merging.models import save_experts, tiny_experts
from tests.reporting.conftest import make_run, make_samples, make_score

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = save_experts(tiny_experts(tied=False), tmp_path_factory.mktemp("experts"), max_shard_size="60KB")
    return [f"--expert={name}={folder}" for name, folder in folders.items()]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may become longer: the system then refuses, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def disk_of(size: str, at: Path) -> Iterator[None]:
    at.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.parametrize("recipe", ["soup", "ties(density=0.2)", "dare-ties(seed=1)", 'expert("math")'])
def test_a_merge_that_may_not_write_leaves_nothing(experts, recipe, tmp_path, capsys):
    for size in (0, 100, 5_000, 40_000):
        with files_up_to(size):
            assert main(["merge", recipe, *experts, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: cannot write")
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
    assert main(["merge", recipe, *experts, "--out", str(tmp_path / "out")]) == 0


def test_a_merge_onto_a_full_file_system_leaves_nothing(experts, tmp_path, capsys):
    with disk_of("100k", tmp_path / "disk"):
        assert main(["merge", "soup", *experts, "--out", str(tmp_path / "disk" / "out")]) == 2
        assert "No space left on device" in capsys.readouterr().err
        assert list((tmp_path / "disk").iterdir()) == []


def test_a_report_that_may_not_be_written_is_said_and_latest_stays(tmp_path):
    run = make_run()
    for size in (1_000, 100_000):
        with files_up_to(size), pytest.raises(LayerswapError, match="the report cannot be written"):
            write_report(run, tmp_path / "reports" / f"of-{size}", [make_samples(run)])
        assert list((tmp_path / "reports").iterdir()) == []


def test_accepted_results_stay_as_they_were(tmp_path):
    path = tmp_path / "accepted.json"
    scores = {"method/layer-swap": {"mgsm sw": make_score("mgsm sw", 0.6, 0)}}
    save_baselines(path, scores, {})
    before = path.read_bytes()
    more = {"method/base": {"mgsm sw": make_score("mgsm sw", 0.4, 1)}}
    with files_up_to(len(before) // 2), pytest.raises(OSError, match=r"File too large|No space") as caught:
        save_baselines(path, more, {})
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_may_not_be_written_spoils_no_other(tmp_path):
    cases = make_run().cases
    runlog.write_record(tmp_path, cases[0])
    (path,) = (tmp_path / "records").iterdir()
    with files_up_to(path.stat().st_size + 100), pytest.raises(LayerswapError, match="cannot be noted"):
        runlog.write_record(tmp_path, cases[1])
    runlog.write_record(tmp_path, cases[2])
    assert {case.case_id for case in runlog.cases(tmp_path, [])} == {cases[0].case_id, cases[2].case_id}
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2


def test_a_command_that_may_not_write_says_so(tmp_path, capsys, monkeypatch):
    (tmp_path / "m.yaml").write_text("merge_method: passthrough\nmodels: [{model: a}]\n")
    with files_up_to(0):
        assert main(["import", str(tmp_path / "m.yaml"), "--to", str(tmp_path / "r.toml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "r.toml").exists()


WORKING = """
import signal, sys, time
from pathlib import Path
from harness import cli, files
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore it
def work(options):
    with files.atomic_folder(Path(sys.argv[1])) as folder:
        (folder / "file").write_text("half")
        print("begun", flush=True)
        time.sleep(60)
cli._doctor = work
sys.exit(cli.main(["doctor", "embedded"]))
"""


def working(target: Path) -> subprocess.Popen[str]:
    """A command that is in the middle of writing a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORKING, str(target)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_command_and_removes_what_is_half_written(number, status, word, tmp_path):
    process = working(tmp_path / "out")
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (status, f"{word}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_has_left_is_removed_by_the_next_but_not_what_another_writes(tmp_path):
    killed, other = working(tmp_path / "out"), working(tmp_path / "out")
    killed.kill()
    killed.communicate(timeout=30)
    left = sorted(tmp_path.iterdir())
    assert len(left) == 2
    for folder in left:  # both look old
        os.utime(folder, (time.time() - 3600,) * 2)
    with atomic_folder(tmp_path / "out") as folder:
        assert len(list(tmp_path.iterdir())) == 2
        (folder / "file").write_text("whole")
    assert sorted(path.name[:13] for path in tmp_path.iterdir()) == [".out.partial-", "out"]
    other.terminate()
    other.communicate(timeout=30)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_that_write_one_folder_one_is_refused_and_the_other_whole(tmp_path):
    def write(text: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "file").write_text(text)
            meanwhile()

    with pytest.raises(LayerswapError, match=r"cannot write .*out"):
        write("late", meanwhile=lambda: write("first"))
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_merges_into_one_folder_at_once(experts, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness", "merge", "soup", *experts, "--out", str(tmp_path / "out")]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert sorted(status for _, status in ended) == [0, 2], ended
    assert any(error.startswith("error: ") and "out" in error for error, _ in ended)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert main(["merge", "soup", *experts, "--out", str(tmp_path / "again")]) == 0
    names = sorted(path.name for path in (tmp_path / "again").glob("*.safetensors"))
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_a_clock_that_goes_backwards_hides_nothing_that_is_kept(tmp_path, monkeypatch):
    from harness.caretaker import collect, show
    from harness.evaluation import responses

    store = responses.Store(tmp_path / "store.sqlite")
    store.add_responses("v", {"r": "text"})
    store.add_document("cell", "k", "text")
    today = responses.today()
    for day in (today - 4000, 0, today + 4000):
        monkeypatch.setattr(responses, "today", lambda day=day: day)
        monkeypatch.setattr("harness.caretaker.today", lambda day=day: day)
        again = responses.Store(tmp_path / "store.sqlite")
        if day < today:
            collect(tmp_path / "store.sqlite", 30, None)
        assert again.responses("v", ["r"]) == {"r": "text"}
        assert again.document("cell", "k") == "text"
        assert show(tmp_path / "store.sqlite")
        assert again.messages == []
        again.close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    replace_text(tmp_path / "file", "old")
    with files_up_to(2), pytest.raises(OSError, match="File too large") as caught:
        replace_text(tmp_path / "file", "new and longer")
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_commands_that_are_killed_and_begun_again_come_to_the_same():
    """Two kills of a merge as a process of its own; ``python -m benchmarks.kill_sessions`` is the campaign."""
    assert _campaign("--kills", "2", "--of", "merge") == 0


@pytest.mark.slow
def test_sessions_of_all_kinds_that_are_killed_and_begun_again_come_to_the_same():
    assert _campaign("--kills", "16") == 0


def _campaign(*options: str) -> int:
    # A process of its own: it takes every process that is left below it for one that a session left running.
    return subprocess.run([sys.executable, "-m", "benchmarks.kill_sessions", *options], cwd=ROOT).returncode
