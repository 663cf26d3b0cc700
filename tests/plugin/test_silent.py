from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "lm_eval", "datasets", "pandas", "sacrebleu")
PROBE = f"""
import sys
import pytest
code = pytest.main(sys.argv[1:])
print("imported:", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""
PLAIN = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_plain(n):
    pass
"""


@pytest.fixture
def probe(pytester, monkeypatch):
    """Runs pytest in a process of its own and says which heavy packages it imported."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    script = pytester.path / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    return lambda *options: pytester.run(sys.executable, script, "-p", "no:cacheprovider", *options)


@pytest.mark.parametrize("options", [("--collect-only", "-q"), ("--help",)], ids=["collect-only", "help"])
def test_looking_at_the_suite_imports_nothing_heavy(probe, options):
    result = probe("-p", "harness.plugin", "--noconftest", f"--rootdir={ROOT}", str(ROOT / "ablations"), *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["imported: []"])
    expected = "*test_transition[[]removed-mgsm[]]" if "-q" in options else "*--ablation-save-baseline=NAME|PATH*"
    result.stdout.fnmatch_lines([expected])


def test_a_run_without_ablations_prints_writes_and_imports_nothing_of_ours(probe, pytester):
    pytester.makepyfile(PLAIN)
    pytester.mkdir("records")  # as a run's own folder has one
    outputs, files = [], []
    for options in ((), ("-p", "harness.plugin")):
        result = probe(*options)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["imported: []"])
        # The order in which pytest lists plugins is that in which they were found.
        outputs.append(re.sub(r"in [0-9.]+s|^plugins: .*$", "", result.stdout.str() + result.stderr.str(), flags=re.M))
        files.append(sorted(pytester.path.rglob("*")))
    assert outputs[0] == outputs[1]
    assert files[0] == files[1]


def test_collecting_ablations_only_prints_their_ids(pytester):
    pytester.makepyfile(
        """
        from harness.recipes import LayerSwap

        def test_swap(ablation):
            ablation(LayerSwap()).check("mmlu")
        """
    )
    result = pytester.runpytest_inprocess("-p", "harness.plugin", "-p", "no:cacheprovider", "--collect-only", "-q")
    assert result.ret == 0
    assert "ablations:" not in result.stdout.str()
    assert not (pytester.path / "reports").exists()
