from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import LayerswapError
from harness.evaluation import sandbox_command
from harness.evaluation.sandbox import Limits, Outcome, Sandbox, no_sandbox
from tests.evaluation.processes import below, gone, settled, wait_for_program

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only"),
    pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox()),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits that only Linux keeps")

PASSED = Outcome(True, "passed")
EXITED = Outcome(False, "exited before the asserts")
RIGHT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return x\n"
TESTS = ["assert double(2) == 4", "assert double(0) == 0"]


@pytest.fixture(scope="module", params=["confined", "unconfined"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    limits = Limits(cpu_seconds=5, wall_seconds=60, memory_bytes=128 * 1024**2)
    with Sandbox(limits, unsafe=request.param == "unconfined", size=1) as opened:
        yield opened


def runner_of(sandbox: Sandbox) -> int:
    (process,) = sandbox._all
    return process.pid


def test_right_program_passes(sandbox: Sandbox) -> None:
    assert sandbox.run(RIGHT, TESTS) == PASSED


@pytest.mark.parametrize("program", [WRONG, RIGHT + "assert double(1) == 3"])
def test_failed_assert(sandbox: Sandbox, program: str) -> None:
    assert sandbox.run(program, TESTS) == Outcome(False, "assertion failed")


def test_every_assert_counts(sandbox: Sandbox) -> None:
    assert not sandbox.run(RIGHT, [*TESTS, "assert double(3) == 7"]).passed


@pytest.mark.parametrize(
    "program",
    ["def double(x)\n    return x", "x = (((", "a\0b = 1", "x = '\ud800'", "return 1", "(" * 5000, "\ufeff\ufeff x"],
    ids=["colon", "open", "nul", "surrogate", "return", "nesting", "bom"],
)
def test_programs_that_do_not_compile(sandbox: Sandbox, program: str) -> None:
    outcome = sandbox.run(program, TESTS)
    assert not outcome.passed
    assert outcome.reason.startswith(("SyntaxError: ", "memory"))


def test_odd_text_that_compiles(sandbox: Sandbox) -> None:
    assert sandbox.run(RIGHT + "é = '😀\u2028\\0\\ud800' # \u202e\r\nprint(é[:2])\n", TESTS) == PASSED


def test_exception_is_the_reason(sandbox: Sandbox) -> None:
    assert sandbox.run("def double(x):\n    return y", TESTS).reason == "NameError: name 'y' is not defined"
    nasty = "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E"
    assert sandbox.run(nasty, TESTS) == Outcome(False, "E: ?")
    assert len(sandbox.run("raise ValueError('\ud800x' * 10**6)".encode("unicode_escape").decode(), TESTS).reason) < 250


def test_unreadable_test_is_not_the_programs_syntax_error(sandbox: Sandbox) -> None:
    assert sandbox.run(RIGHT, ["assert double(2) =="]).reason.startswith("unreadable test: ")


@linux
@pytest.mark.parametrize(
    "program", ["while True: pass", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"]
)
def test_endless_loop(program: str) -> None:
    with Sandbox(Limits(cpu_seconds=1, wall_seconds=60)) as sandbox:
        assert sandbox.run(program, TESTS) == Outcome(False, "cpu limit")


def test_sleep() -> None:
    with Sandbox(Limits(wall_seconds=0.5)) as sandbox:
        assert sandbox.run("import time\nwhile True:\n    time.sleep(60)", TESTS) == Outcome(False, "wall limit")


@linux
@pytest.mark.parametrize("program", ["x = [0] * 10**9", "x = []\nwhile True: x.append(str(len(x)))"])
def test_memory_hog(program: str) -> None:
    with Sandbox(Limits(cpu_seconds=20, wall_seconds=60, memory_bytes=96 * 1024**2)) as sandbox:
        assert sandbox.run(program, TESTS) == Outcome(False, "memory")


@linux
@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import os\nfor _ in range(99):\n    try: os.fork(); os.setsid()\n    except OSError: pass\nraise SystemExit",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        "import subprocess\nsubprocess.Popen(['/bin/sleep', '60'], start_new_session=True)",
    ],
    ids=["fork", "daemon", "threads", "subprocess"],
)
def test_no_process_is_started_or_left(sandbox: Sandbox, program: str) -> None:
    sandbox.run(RIGHT + "\n", TESTS)
    runner = runner_of(sandbox)
    before = len(settled(runner))
    assert not sandbox.run(program, ["assert True"]).passed
    assert runner_of(sandbox) == runner
    assert len(settled(runner)) == before
    assert sandbox.run(RIGHT, [*TESTS, "assert True"]) == PASSED


def test_file_limit_and_clean_scratch(sandbox: Sandbox) -> None:
    big = sandbox.run("with open('big', 'wb') as file:\n    file.write(bytes(2 * 1024**2))", ["assert True"])
    assert big.reason.startswith("OSError: ")
    small = "open('small', 'w').write('x')\ndef read(): return open('small').read()"
    assert sandbox.run(small, ["assert read() == 'x'"]) == PASSED
    assert sandbox.run("import os", ["assert os.listdir('.') == []"]) == PASSED
    assert sandbox.run("import os\nos.rmdir(os.getcwd())", ["assert True"]).reason
    assert sandbox.run("import os\n", ["assert os.listdir('.') == []"]) == PASSED


def test_open_files_limit(sandbox: Sandbox) -> None:
    program = "import os\nfiles = [open(os.devnull) for _ in range({})]"
    assert sandbox.run(program.format(5), ["assert True"]) == PASSED
    assert sandbox.run(program.format(50), ["assert True"]).reason.startswith("OSError: ")


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "exit = __import__('os')._exit\nexit(0)",
        "import os\ndef double(x): os._exit(0)",
        "def double(x): raise SystemExit(0)",
        "def double(x): raise GeneratorExit",
        "import os\nprint('passed'); os.write(1, b'\\0\\0\\0\\x10[true, \"passed\"]'); os._exit(0)",
        "import os\nos.close(3)\n" + RIGHT,
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_leaving_early_is_wrong(sandbox: Sandbox, program: str) -> None:
    assert sandbox.run(program, TESTS) == EXITED


@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'passed')\n    except OSError: pass\nos._exit(0)",
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'passed')\n    except OSError: pass\n" + RIGHT,
        "import os\nos.write(3, b'x' * 100000)",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os, sys\nos.execv(sys.executable, ['python', '-c', 'pass'])",
    ],
)
def test_forged_verdicts_are_wrong(sandbox: Sandbox, program: str) -> None:
    assert not sandbox.run(program, TESTS).passed


@pytest.mark.parametrize(
    "program",
    [
        "import builtins\nbuiltins.AssertionError = builtins.exec = builtins.compile = None\n",
        "import builtins\nbuiltins.BaseException = builtins.AssertionError = ValueError\n",
        "import os, sys\nos.getpid = os.write = sys.exit = print\n",
        "import sys\nsys.settrace(lambda *a: None)\n",
        "import os\n__import__('atexit').register(print)\n",
        "import sys\nsys.modules.clear()\n",
    ],
)
def test_tampering_does_not_turn_wrong_into_right(sandbox: Sandbox, program: str) -> None:
    assert not sandbox.run(program + WRONG, TESTS).passed


@linux
def test_crash_of_the_interpreter(sandbox: Sandbox) -> None:
    program = "import os\nos.kill(os.getpid(), {})"
    assert sandbox.run(program.format(11), TESTS) == Outcome(False, "killed by signal 11 (Segmentation fault)")
    assert sandbox.run(program.format(40), TESTS).reason.startswith("killed by signal 40 (")


def test_huge_output_and_no_input(sandbox: Sandbox) -> None:
    assert sandbox.run(RIGHT + "for _ in range(50): print('x' * 10**6)", TESTS) == PASSED
    assert sandbox.run("input()", TESTS).reason.startswith("EOFError")


def test_surroundings_are_bare_and_the_same_every_time(sandbox: Sandbox) -> None:
    os.environ["LAYERSWAP_TEST_SECRET"] = "x"
    try:
        with Sandbox() as other:
            for opened in (sandbox, other):
                assert opened.run("import os, sys", ["assert not os.environ", "assert len(sys.argv) == 1"]) == PASSED
                with pytest.raises(StopIteration):
                    next(iter(p for p in ("harness", "numpy", "_runner") if opened.run(f"import {p}", TESTS).passed))
            program = "import random\nvalue = (hash('text'), random.random())"
            reasons = {opened.run(program, ["raise ValueError(value)"]).reason for opened in (sandbox, other)}
            assert len(reasons) == 1
    finally:
        del os.environ["LAYERSWAP_TEST_SECRET"]


def test_standard_library_and_annotations_work(sandbox: Sandbox) -> None:
    program = (
        "from __future__ import annotations\nimport json, re, heapq, dataclasses, typing, collections, pickle\n"
        "@dataclasses.dataclass\nclass P:\n    x: int = 0\n    y: typing.ClassVar[int] = 1\n"
        "T = collections.namedtuple('T', 'a')\n"
    )
    tests = ["assert pickle.loads(pickle.dumps(P(2))) == P(2)", "assert json.loads('[1]') == [1]", "assert T(1).a == 1"]
    assert sandbox.run(program, tests) == PASSED
    assert sandbox.run("def f(x: Undefined = 1) -> int: return x", ["assert f() == 1"]).reason.startswith("NameError")
    assert sandbox.run(RIGHT + "if __name__ == '__main__':\n    raise SystemExit", TESTS) == PASSED


def test_outcomes_are_remembered(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sandbox.run(RIGHT, TESTS)
    monkeypatch.setattr(sandbox, "_ask", None)
    assert sandbox.run(RIGHT, TESTS) is first


def test_a_program_needs_a_test(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="at least one test"):
        sandbox.run(RIGHT, [])


@linux
def test_runner_killed_in_the_middle_is_replaced_once() -> None:
    with Sandbox(Limits(wall_seconds=60)) as sandbox:
        sandbox.run(RIGHT, TESTS)
        first = runner_of(sandbox)
        outcomes: list[Outcome] = []
        program = "import time\ntime.sleep(1)\n" + RIGHT
        thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(program, TESTS)))
        thread.start()
        started = wait_for_program(first)
        os.killpg(first, signal.SIGKILL)
        thread.join()
        assert outcomes == [PASSED]
        assert runner_of(sandbox) != first
        assert all(gone(child) for child in started)


@linux
def test_runner_that_dies_twice_is_a_failure_and_not_remembered() -> None:
    with Sandbox(Limits(wall_seconds=60)) as sandbox:
        sandbox.run(RIGHT, TESTS)
        outcomes: list[Outcome] = []
        program = "import time\ntime.sleep(30)\n" + RIGHT
        thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(program, TESTS)))
        thread.start()
        seen: set[int] = set()
        while len(seen) < 2:
            for process in list(sandbox._all):
                if process.pid not in seen:
                    wait_for_program(process.pid)
                    seen.add(process.pid)
                    os.killpg(process.pid, signal.SIGKILL)
        thread.join()
        assert outcomes == [Outcome(False, "the sandbox's process died")]
        assert sandbox.run(RIGHT, TESTS) == PASSED
        assert len(sandbox._memo) == 1


@linux
@pytest.mark.parametrize("unsafe", [False, True], ids=["confined", "unconfined"])
def test_close_ends_the_runner_and_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox = Sandbox(unsafe=unsafe)
    sandbox.close()
    assert sandbox.run(RIGHT, TESTS) == PASSED
    started = below(runner_of(sandbox))
    assert bool(list(tmp_path.iterdir())) == unsafe
    sandbox.close()
    sandbox.close()
    assert all(gone(child) for child in started)
    assert not list(tmp_path.iterdir())
    assert sandbox.run(WRONG, TESTS).reason == "assertion failed"
    sandbox.close()


@linux
@pytest.mark.parametrize("unsafe", [False, True], ids=["confined", "unconfined"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_outlives_its_owner(tmp_path: Path, how: signal.Signals | None, unsafe: bool) -> None:
    """The owner is killed while a program sleeps, or simply ends without closing."""
    program = "import time\ntime.sleep(50)" if how else "x = 1"
    script = (
        "from harness.evaluation.sandbox import Limits, Sandbox\n"
        f"s = Sandbox(Limits(wall_seconds=60), unsafe={unsafe})\ns.run('x = 0', ['assert x == 0'])\n"
        "print(s._all[0].pid, flush=True)\n" + f"s.run({program!r}, ['assert x == 1'])\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        runner = int(owner.stdout.readline())
        started = {runner}
        if how:
            started = below(runner) if unsafe else wait_for_program(runner)
            owner.send_signal(how)
        owner.wait(20)
        assert all(gone(child) for child in started)
        assert not list(tmp_path.iterdir())


@linux
def test_interrupt_ends_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with Sandbox() as own:
        own.run(RIGHT, TESTS)
        started = below(runner_of(own))
        with monkeypatch.context() as patch:
            patch.setattr("harness.evaluation.sandbox_process._receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                own.run(WRONG, TESTS)
        assert all(gone(child) for child in started)
        assert own.run(WRONG, TESTS) == Outcome(False, "assertion failed")


@linux
def test_forked_copy_has_its_own_runner() -> None:
    with Sandbox() as sandbox:
        sandbox.run(RIGHT, TESTS)
        runner = runner_of(sandbox)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                right = sandbox.run(RIGHT + "\n", TESTS) == PASSED and runner_of(sandbox) != runner
                sandbox.close()
                code = 0 if right else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert runner_of(sandbox) == runner
        assert sandbox.run(WRONG, TESTS).reason == "assertion failed"
        assert runner_of(sandbox) == runner


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    outcomes: dict[int, Outcome] = {}

    def work(number: int) -> None:
        outcomes[number] = sandbox.run(f"x = {number}", [f"assert x == {number - number % 2}"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes[number].passed for number in range(20)] == [number % 2 == 0 for number in range(20)]


def test_no_fork_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    with pytest.raises(LayerswapError, match="does not have"):
        Sandbox().run(RIGHT, TESTS)


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
@pytest.mark.parametrize("unsafe", [False, True], ids=["confined", "unconfined"])
def test_runner_that_does_not_start_is_one_clear_error(
    executable: str, unsafe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sandbox_command, "python", lambda: [executable])
    with pytest.raises(LayerswapError, match="process for generated programs"):
        Sandbox(unsafe=unsafe).run(RIGHT, TESTS)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_machine_is_an_error_and_not_a_wrong_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Sandbox(unsafe=True) as sandbox:
        sandbox.run(RIGHT, TESTS)
        (folder,) = tmp_path.iterdir()
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("in the way")
        shutil.rmtree(tmp_path / "elsewhere")
        with pytest.raises(LayerswapError, match="cannot be run here: "):
            # The first one's scratch folder may have been there before.
            [sandbox.run(program, TESTS) for program in (RIGHT + "\n", WRONG)]
        folder.unlink()


@pytest.mark.parametrize("limits", [{"cpu_seconds": 0}, {"memory_bytes": -1}, {"wall_seconds": float("nan")}])
def test_limits_are_above_zero(limits: dict[str, int]) -> None:
    with pytest.raises(LayerswapError, match="above zero"):
        Limits(**limits)
