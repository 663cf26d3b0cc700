from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("options", [(), ("-p", "harness.plugin")], ids=["conftest", "command-line"])
def test_an_installed_plugin_may_be_named_again(pytester, monkeypatch, options):
    """The repository's own conftest names the plugin, so that its suite also runs where nothing is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installed = pytester.mkdir("installed") / "pytest_layerswap-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-layerswap\nVersion: 0\n", encoding="utf-8")
    entries = [f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *entries, ""]), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{installed.parent}:{ROOT}")
    pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
    pytester.makepyfile("def test_swap(ablation): pass")
    result = pytester.runpytest_subprocess(*options, "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*::test_swap"])
