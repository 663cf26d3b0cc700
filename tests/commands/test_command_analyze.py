from __future__ import annotations

import csv
from xml.etree import ElementTree

import pytest

from harness.cli import main


@pytest.fixture
def given(folders) -> list[str]:
    pairs = [option for name in ("math", "language") for option in ("--expert", f"{name}={folders[name]}")]
    return ["--base", str(folders["base"]), *pairs]


def test_tables_go_to_the_terminal(given, capsys):
    assert main(["analyze", *given]) == 0
    shown = capsys.readouterr().out
    assert "## Where each expert moved most" in shown
    assert "| layers.5 " in shown
    assert "| self_attn.q_proj" in shown
    assert "by layer and kind of module" not in shown
    assert main(["analyze", *given, "--full"]) == 0
    assert "## language: relative change by layer and kind of module" in capsys.readouterr().out


def test_figures_go_to_a_folder(given, tmp_path, capsys):
    assert main(["analyze", *given, "--figures", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "changes.svg") in capsys.readouterr().err
    ElementTree.parse(tmp_path / "out" / "changes.svg")
    rows = list(csv.DictReader((tmp_path / "out" / "changes.csv").read_text("utf-8").splitlines()))
    assert {row["expert"] for row in rows} == {"math", "language"}
    assert all(float(row["relative"]) > 0 for row in rows)


def test_a_base_and_an_expert_are_needed(folders, capsys):
    assert main(["analyze", "--expert", f"math={folders['math']}"]) == 2
    assert "give it as --base PATH" in capsys.readouterr().err
    assert main(["analyze", "--base", str(folders["base"])]) == 2
    assert "give one as --expert math=PATH" in capsys.readouterr().err


def test_experts_of_other_shapes_are_named(given, tmp_path, capsys):
    from tests.merging.models import save_experts, tiny_experts

    other = save_experts(tiny_experts(tied=False, num_hidden_layers=3), tmp_path)["math"]
    assert main(["analyze", *given, "--expert", f"short={other}"]) == 2
    assert "short differs from base in depth (6 against 3)" in capsys.readouterr().err
