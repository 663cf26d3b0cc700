"""Programs that mean harm: each is scored as wrong, ends within its limit, and leaves nothing behind."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.evaluation.sandbox import Limits, Outcome, Sandbox, no_sandbox
from tests.evaluation.processes import more_than, settled

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())

HERE = Path(__file__).parent
PROGRAMS = {
    f"{kind}-{name}": code
    for kind, programs in tomllib.loads((HERE / "hostile.toml").read_text("utf-8")).items()
    for name, code in programs.items()
}
TESTS = ["assert answer(6) == 42", "assert answer('x') == 42"]
LATER = "def answer(x):\n    return 42 if escaped else 0\n"
LIMITS = Limits(cpu_seconds=1, wall_seconds=4)
WITHIN = LIMITS.wall_seconds + 1
AT_ONCE = 4  # most of the time goes by in waiting for limits


@dataclass(frozen=True)
class Found:
    """How one program fared: its outcome, seconds, and what it left in processes, in its scratch folder, outside."""

    outcome: Outcome
    seconds: float
    processes: int
    scratch: str
    runner_lives: bool


@dataclass(frozen=True)
class World:
    """What programs are to be kept from."""

    mark: str
    folder: Path
    victim: subprocess.Popen[bytes]
    listeners: tuple[socket.socket, ...]

    def __str__(self) -> str:
        return self.mark

    def written_for(self, code: str) -> str:
        port = self.listeners[0].getsockname()[1]
        places = {"mark": self.mark, "outside": self.folder, "victim": self.victim.pid, "port": port}
        places |= {"repository": HERE.parents[1], "node": platform.node()}
        for name, value in places.items():
            code = code.replace(f"{{{name}}}", str(value))
        return f"escaped = False\n{code}\n{'' if 'answer' in code else LATER}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outside")
    mark = f"mark{os.getpid()}"
    (folder / "canary").write_text(mark, encoding="utf-8")
    listeners = (
        socket.socket(socket.AF_INET),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    )
    listeners[0].bind(("127.0.0.1", 0))
    listeners[1].bind(listeners[0].getsockname())
    listeners[2].bind(f"\0{mark}")
    listeners[3].bind(f"{folder}/socket")
    for listener in listeners:
        listener.setblocking(False)
        if listener.type != socket.SOCK_DGRAM:
            listener.listen()
    os.environ[f"LAYERSWAP_{mark}"] = "secret"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as victim:
        yield World(mark, folder, victim, listeners)
        victim.kill()
    del os.environ[f"LAYERSWAP_{mark}"]
    for listener in listeners:
        listener.close()


def tried(code: str, sandbox: Sandbox) -> Found:
    """One program's fate."""
    sandbox.run(f"def f(x):\n    return {code!r}", ["assert f(1)"])
    (process,) = sandbox._all
    before = len(settled(process.pid))
    started = time.monotonic()
    outcome = sandbox.run(code, TESTS)
    seconds = time.monotonic() - started
    lives = sandbox._all == [process]
    left = more_than(before, process.pid) if lives else -1
    listing = f"import os\ndef f():\n    return os.listdir('/tmp'), os.listdir('.'), {code!r} and 0"
    scratch = sandbox.run(listing, ["assert f() == ([], [], 0)"])
    return Found(outcome, seconds, left, scratch.reason, lives)


@pytest.fixture(scope="module")
def fates(world: World, request: pytest.FixtureRequest) -> dict[str, Found]:
    """What came of the programs that were selected, some of them at a time, each worker with its own sandbox."""
    items = [item for item in request.session.items if "fates" in getattr(item, "fixturenames", ())]
    names = [item.callspec.params["name"] for item in items if hasattr(item, "callspec")] or list(PROGRAMS)

    def some(names: list[str]) -> list[tuple[str, Found]]:
        with Sandbox(LIMITS, size=1) as sandbox:
            return [(name, tried(world.written_for(PROGRAMS[name]), sandbox)) for name in names]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(pair for part in pool.map(some, [names[i::AT_ONCE] for i in range(AT_ONCE)]) for pair in part)
    # A machine may be busy with other work, as with the rest of these: once more by itself.
    return {**found, **dict(some([name for name, fate in found.items() if fate.seconds > WITHIN]))}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_wrong_ends_in_time_and_leaves_nothing(name: str, fates: dict[str, Found]) -> None:
    found = fates[name]
    assert not found.outcome.passed
    assert found.seconds <= WITHIN
    assert found.runner_lives
    assert found.processes == 0
    assert found.scratch == "passed"


def test_nothing_outside_was_touched(fates: dict[str, Found], world: World) -> None:
    assert fates
    assert world.victim.poll() is None
    assert sorted(path.name for path in world.folder.iterdir()) == ["canary", "socket"]
    assert not list(Path("/dev/shm").glob(f"*{world.mark}*"))
    assert not Path(f"/{world.mark}").exists()
    for listener in world.listeners:
        with pytest.raises(BlockingIOError):
            listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()


@pytest.mark.parametrize("name", ["network-tcp", "network-path", "reading-passwords", "reading-mounts"])
def test_without_a_sandbox_some_get_what_they_are_after(name: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET) as tcp, socket.socket(socket.AF_UNIX) as path:
        tcp.bind(("127.0.0.1", 0))
        path.bind(f"{tmp_path}/socket")
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        (tmp_path / "socket").chmod(0o777)
        for listener in (tcp, path):
            listener.listen()
        with subprocess.Popen(["sleep", "0"]) as victim, Sandbox(unsafe=True) as sandbox:
            world = World("mark", tmp_path, victim, (tcp, path))
            assert sandbox.run(world.written_for(PROGRAMS[name]), TESTS).passed


@pytest.mark.parametrize("name", ["forged-frames", "forged-own_memory"])
def test_a_search_of_memory_would_find_the_asserts(name: str) -> None:
    planted = "kept = ''.join(['asse', 'rt answer(6) == 42'])\n"
    with Sandbox() as sandbox:
        assert sandbox.run(planted + PROGRAMS[name], TESTS[:1]).passed
        assert not sandbox.run(PROGRAMS[name], TESTS[:1]).passed


def test_there_are_enough_of_every_kind() -> None:
    assert len(PROGRAMS) >= 60
