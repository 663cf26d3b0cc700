"""A cluster of three nodes, reached through ``ray://``: all on this machine, in a network of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from harness.profiles import load_profile
from tests.evaluation.test_cluster import ROOT, cells, grid_of, rows

pytest.importorskip("ray")
pytest.importorskip("grpc", reason="ray:// needs pip install 'pytest-layerswap[ray]'")
pytestmark = pytest.mark.slow
# A network without any other machine, in which Ray takes 127.0.0.1 for its own address.
UP = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x49))"
APART = ["unshare", "--user", "--map-root-user", "--net"]


@pytest.fixture(scope="module", autouse=True)
def a_network_of_its_own() -> None:
    done = shutil.which("unshare") and subprocess.run([*APART, sys.executable, "-c", UP], check=False).returncode
    if done != 0:
        pytest.skip("needs unshare, and the right to make a network")


@pytest.mark.parametrize("lose", [0, 30], ids=["all stay", "a node is lost"])
def test_nodes_reached_through_ray_fill_the_store_with_the_bytes_of_one_process(tiny_profile, tmp_path, lose):
    script = f"{UP}; import runpy; "
    script += "runpy.run_module('tests.evaluation.nodes', run_name='__main__', alter_sys=False)"
    command = [*APART, sys.executable, "-c", script, str(tiny_profile), str(tmp_path / "nodes"), "25001", str(lose)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    tasks, known = map(int, done.stdout.split()[-2:])
    assert tasks >= 8
    assert known == 3 + bool(lose)  # Ray remembers the node that it has lost
    profile = load_profile(str(tiny_profile)).model_copy(update={"batch_size": 16})
    alone, filled = grid_of(profile, tmp_path / "alone"), grid_of(profile, tmp_path / "nodes")
    expected = cells(alone)
    assert rows(filled) == rows(alone)
    assert cells(filled) == expected
