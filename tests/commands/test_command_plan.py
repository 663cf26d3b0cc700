from __future__ import annotations

import subprocess
import sys

import pytest

from harness.cli import main
from harness.recipes import LayerSwap

SHOWN = """\
layer swap, bottom 5, top 2: 32 layers
T|LLLLLTMMMMMMMMMMMMMMMMMMMMMMMTLL|TT

embed         linear(math=0.5, language=0.5)
layers.0-4    language
layers.5      linear(math=0.5, language=0.5)
layers.6-28   math
layers.29     linear(math=0.5, language=0.5)
layers.30-31  language
norm, head    linear(math=0.5, language=0.5)

digest {}
"""


def test_a_plan_is_drawn_listed_and_digested(capsys):
    assert main(["plan", "layer-swap(bottom=5, top=2)", "--layers", "32"]) == 0
    assert capsys.readouterr().out == SHOWN.format(LayerSwap(5, 2).plan(32).digest)


def test_without_a_depth_it_is_of_the_profile(capsys):
    assert main(["plan", "layer-swap"]) == 0
    assert "L|TMMMMMMMML|LL" in capsys.readouterr().out
    assert main(["plan", "ties", "--profile", "embedded"]) == 0
    assert "*|**********|**" in capsys.readouterr().out


def test_experts_on_disk_give_the_depth(folders, capsys):
    assert main(["plan", "layer-swap(bottom=1, top=1)", "--expert", f"math={folders['math']}"]) == 2
    assert "unknown expert 'language'" in capsys.readouterr().err
    pairs = [option for name in ("math", "language") for option in ("--expert", f"{name}={folders[name]}")]
    assert main(["plan", "layer-swap(bottom=1, top=1)", *pairs]) == 0
    assert "T|LTMMTL|TT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layer-swap(bottom=9)", "--layers", "8"], "but the model has 8"),
        (["layer-swap", "--layers", "0"], "a model of 0 layers cannot be merged"),
        (["layer-swap", "--layers", "8", "--profile", "embedded"], "--layers is given beside checkpoints"),
        (["layer-swap", "--expert", "math"], "--expert math: expected a name and a folder"),
        (["layer-swap", "--expert", "math=./nowhere"], "--expert math=./nowhere: there is no such folder"),
        (["layer-swap", "--profile", "embeded"], "did you mean 'embedded'"),
        (["layer-swap(math='mth')"], "unknown expert 'mth'"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out


@pytest.mark.parametrize("command", ["plan", "merge", "analyze", "export", "import"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "example: layerswap" in " ".join(capsys.readouterr().out.split())


def test_help_and_plans_load_nothing_heavy():
    heavy = "{'torch', 'transformers', 'lm_eval', 'pandas', 'numpy', 'matplotlib', 'yaml'}"
    for arguments in (["--help"], ["plan", "layer-swap", "--layers", "8"]):
        code = (
            f"import sys\nfrom harness.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass\n"
            f"sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_python_m_harness_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "harness", "plan", "layer-swap", "--layers", "8"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("layer swap: 8 layers\n")
