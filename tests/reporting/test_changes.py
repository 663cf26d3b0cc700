from __future__ import annotations

import pytest

from harness.merging.analysis import Change
from harness.reporting.changes import as_parameter_changes, changes_text, most_changed, write_figures

ROWS = (
    Change("math", "embed", "embed", 4, 4.0, 4.0, 16.0),
    Change("math", "layers.0", "q", 2, 2.0, 2.0, 8.0),
    Change("math", "layers.0", "norm", 2, 0.0, 0.0, 2.0),
    Change("math", "layers.1", "q", 2, 4.0, 8.0, 128.0),
    Change("language", "embed", "embed", 4, 0.0, 0.0, 16.0),
    Change("language", "layers.0", "q", 2, 0.0, 0.0, 8.0),
    Change("language", "layers.0", "norm", 2, 0.0, 0.0, 0.0),
    Change("language", "layers.1", "q", 2, 0.0, 0.0, 128.0),
)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_add_up_layers_and_kinds():
    text = changes_text(ROWS)
    found = [cells(line) for line in text.splitlines() if line.startswith("|") and "---" not in line]
    assert found == [
        ["expert", "layers, mean absolute", "layers, relative", "kind of module, relative"],
        ["math", "1, 0", "0, 1", "q"],
        ["language", "none", "none", "none"],
        ["layer", "mean absolute, math", "mean absolute, language", "relative, math", "relative, language"],
        ["embed", "1", "0", "0.5", "0"],
        ["layers.0", "0.5", "0", "0.447", "0"],
        ["layers.1", "2", "0", "0.25", "0"],
        ["module", "mean absolute, math", "mean absolute, language", "relative, math", "relative, language"],
        ["embed", "1", "0", "0.5", "0"],
        ["q", "1.5", "0", "0.271", "0"],
        ["norm", "0", "0", "0", "0"],
    ]


def test_the_full_tables_have_a_cell_for_each_layer_and_kind():
    text = changes_text(ROWS, full=True)
    block = text.split("## math: mean absolute change by layer and kind of module\n\n")[1].split("\n\n")[0]
    assert [cells(line) for line in block.splitlines() if "---" not in line] == [
        ["layer", "q", "norm"],
        ["layers.0", "1", "0"],
        ["layers.1", "2", ""],
    ]


def test_the_most_changed_layers_come_largest_first():
    assert most_changed(ROWS, "mean_absolute") == ("1", "0")
    assert most_changed(ROWS, "relative") == ("0", "1")


def test_a_module_whose_base_is_zero_has_no_relative_change():
    found = {(row.expert, row.slot, row.kind): row.relative for row in as_parameter_changes(ROWS)}
    assert found["language", "layers.0", "norm"] is None
    assert found["math", "layers.0", "q"] == pytest.approx(0.5)


def test_files_are_written_once_more_alike(tmp_path):
    first = [path.read_bytes() for path in write_figures(ROWS, tmp_path / "a")]
    assert first == [path.read_bytes() for path in write_figures(ROWS, tmp_path / "b")]
