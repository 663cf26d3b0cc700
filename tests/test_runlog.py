from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from harness.evaluation.grid import Grid, Settings
from harness.gating.floors import Verdict
from harness.profiles import load_profile
from harness.reporting.results import CaseResult, ColumnResult
from harness.runlog import cases, parameter_changes, run_result, write_facts, write_record


@pytest.fixture
def grid(tiny_profile, tmp_path):
    return Grid(Settings(load_profile(str(tiny_profile)), "cpu", "float32"), tmp_path)


def test_the_loaded_experts_are_compared_with_a_base_that_no_case_needed(grid):
    grid.load(["math"])
    rows = parameter_changes(grid)
    assert list(grid.experts) == ["math", "base"]
    assert {row.expert for row in rows} == {"math"}
    assert [row.slot for row in rows if row.kind == "mlp.gate_proj"] == [f"layers.{i}" for i in range(4)]
    moved = next(row for row in rows if (row.slot, row.kind) == ("layers.2", "self_attn.q_proj"))
    name = "model.layers.2.self_attn.q_proj.weight"
    before, after = (grid.experts[expert].model.state_dict()[name] for expert in ("base", "math"))
    assert moved.parameters == before.numel()
    assert moved.mean_absolute == pytest.approx(float((after - before).abs().mean()), rel=1e-5)
    assert moved.relative == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)


def test_without_an_expert_nothing_is_read(grid):
    assert parameter_changes(grid) == ()
    assert not grid.experts
    grid.load(["base"])
    assert parameter_changes(grid) == ()


def test_a_ratio_to_weights_that_are_all_zero_is_none(grid):
    grid.load(["base", "math"])
    with torch.no_grad():
        grid.experts["base"].model.state_dict()["model.norm.weight"].zero_()
    rows = {row.slot: row for row in parameter_changes(grid)}
    assert rows["norm"].relative is None
    assert rows["norm"].mean_absolute > 0


def test_an_expert_that_does_not_fit_the_base_is_left_out_without_a_word(grid, monkeypatch, tmp_path):
    grid.load(["math"])
    config = json.loads((grid.experts["math"].path / "config.json").read_text("utf-8"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}), "utf-8")
    monkeypatch.setattr(type(grid.settings.profile), "expert_path", lambda self, name: tmp_path / "other")
    assert parameter_changes(grid) == ()


def test_the_changes_of_all_processes_are_joined_in_the_order_of_the_profile(grid, monkeypatch, tmp_path):
    folder = tmp_path / "run"
    grid.load(["math", "language"])
    rows = parameter_changes(grid)
    for pid, experts in ((1, ["language"]), (2, ["math", "language"])):
        part = Grid(grid.settings, tmp_path)
        part.load(experts)
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        write_facts(folder, part)
    run = run_result(folder, "r", grid.settings.profile, {}, ())
    assert run.changes == rows
    assert list(dict.fromkeys(row.expert for row in run.changes)) == ["math", "language"]
    slots = ["embed", *(f"layers.{i}" for i in range(4)), "norm", "head"]
    assert list(dict.fromkeys(row.slot for row in run.changes)) == slots
    assert run.seconds["compare experts"] > 0


class Memory(dict):
    def document(self, kind, key):
        return self.get((kind, key))

    def add_document(self, kind, key, text):
        self[kind, key] = text


def test_changes_of_known_weights_are_read_from_a_cache(grid, monkeypatch):
    memory = Memory()
    grid.load(["base", "math", "language"])
    rows = parameter_changes(grid)
    assert parameter_changes(grid, memory) == rows
    assert len(memory) == 2
    monkeypatch.setattr("harness.merging.analysis.changes", None)
    assert parameter_changes(grid, memory) == rows


def test_changes_of_other_weights_are_computed(grid, tmp_path):
    memory = Memory()
    grid.load(["base", "math"])
    parameter_changes(grid, memory)
    digests = {**grid.experts["math"].slot_digests, "norm": "0" * 64}
    grid.experts["math"] = grid.digests["math"] = replace(grid.experts["math"], slot_digests=digests)
    parameter_changes(grid, memory)
    assert len(memory) == 2


def result(case, value):
    column = ColumnResult(value, 10, "acc", Verdict.PASS)
    return CaseResult("family", case, "", "", "M|M|MM", "", case, {"mmlu": column})


def test_a_record_that_a_killed_process_left_unfinished_is_none(tmp_path):
    for case in ("a", "b"):
        write_record(tmp_path, result(case, 0.5))
    (path,) = (tmp_path / "records").iterdir()
    path.write_text(path.read_text("utf-8")[:-20], encoding="utf-8")
    assert [c.case for c in cases(tmp_path, ["family/a", "family/b"])] == ["a"]


def test_the_report_says_where_weights_came_from_that_are_no_plain_folders(tmp_path):
    origins = {"math": "org/model@0123abcd", "base": ""}
    work = {"layer calls": 0, "layer calls unshared": 0, "sweeps": 0}
    facts = {"experts": {}, "origins": origins, "seconds": {}, "changes": [], "editions": {}, "work": work}
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "1.json").write_text(json.dumps(facts), encoding="utf-8")
    result = run_result(tmp_path, "run", load_profile("embedded"), {"device": "cpu"}, [])
    assert {k: v for k, v in result.provenance.items() if k.startswith("source")} == {
        "source of math": "`org/model@0123abcd`"
    }
