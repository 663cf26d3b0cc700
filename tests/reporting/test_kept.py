"""A report from a cache is the report: the same bytes, and drawn anew where what it shows has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.reporting import figures as figures_module
from harness.reporting.figures import figures
from harness.reporting.figures.changes import change_map
from harness.reporting.figures.forest import forest
from harness.reporting.figures.layers import layer_map
from harness.reporting.figures.pareto import pareto
from harness.reporting.report import write_report
from harness.reporting.tables import csv_text, frame


class Memory(dict):
    def document(self, kind, key):
        return self.get((kind, key))

    def add_document(self, kind, key, text):
        self[kind, key] = text


def read(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def filled(run):
    memory = Memory()
    figures(run, memory)
    return memory


def later(run):
    """The same results on another day, by a slower machine."""
    cases = tuple(
        replace(
            case, merge_seconds=9.0, peak_bytes=7, columns={k: replace(c, seconds=3.0) for k, c in case.columns.items()}
        )
        for case in run.cases
    )
    return replace(run, name="later", cases=cases, header={"device": "cpu"}, seconds={"evaluate": 99.0})


def test_the_report_from_a_cache_has_the_same_bytes(run, samples, tmp_path):
    memory = Memory()
    for name, cache in (("plain", None), ("filling", memory), ("warm", memory)):
        write_report(run, tmp_path / name / "r", samples, cache)
    plain = read(tmp_path / "plain" / "r")
    assert len(plain) > 8
    assert read(tmp_path / "filling" / "r") == plain
    assert read(tmp_path / "warm" / "r") == plain
    assert {kind for kind, _ in memory} == {"figure", "samples"}


def test_only_timings_changed_so_nothing_is_drawn_or_packed_again(run, samples, tmp_path, monkeypatch):
    memory = Memory()
    write_report(run, tmp_path / "first", samples, memory)
    known = dict(memory)

    def never(*_):
        raise AssertionError("drawn again")

    for name in ("layer_map", "forest", "sweep", "change_map", "pareto"):
        monkeypatch.setattr(figures_module, name, never)
    write_report(later(run), tmp_path / "second", samples, memory)
    assert memory == known
    assert (tmp_path / "second" / "report.md").read_text("utf-8").count("99.0") > 0


def test_what_a_figure_is_drawn_from_is_all_that_it_shows(run):
    drawn = figures(run)
    assert drawn["layers"] == layer_map(run)
    assert drawn["forest-transition"] == forest(run, "transition")
    assert drawn["changes"] == change_map(run)
    assert drawn["pareto"] == pareto(run)


def test_an_edit_of_one_case_redraws_the_figures_that_show_it(run, filled):
    case = run.cases[-1]
    result = case.columns["mmlu"]
    moved = replace(result.versus_method, low=result.versus_method.low - 0.1)
    edited = replace(case, columns={**case.columns, "mmlu": replace(result, versus_method=moved)})
    changed = replace(run, cases=(*run.cases[:-1], edited))
    memory = Memory(filled)
    drawn, before = figures(changed, memory), figures(run, filled)
    assert [name for name in drawn if drawn[name] != before[name]] == ["forest-transition"]
    assert len(memory) == len(filled) + 1
    assert drawn == figures(changed)


def test_an_edit_of_the_code_redraws_everything(run, filled, monkeypatch):
    memory = Memory(filled)
    monkeypatch.setattr("harness.cache.source_digest", lambda: "edited")
    figures(run, memory)
    assert len(memory) == 2 * len(filled)


def test_other_answers_are_packed_anew(run, samples, tmp_path):
    memory = Memory()
    write_report(run, tmp_path / "a", samples, memory)
    answers = {**samples[0].answers, "method/base": ("another",) * len(samples[0].documents)}
    changed = (replace(samples[0], answers=answers), *samples[1:])
    write_report(run, tmp_path / "b", changed, memory)
    write_report(run, tmp_path / "c", changed)
    for name in ("samples.jsonl.gz", "report.html"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


def test_the_csv_is_what_pandas_writes(run):
    odd = replace(run.cases[0], case='comma, "quote"\nline')
    for held in (run, replace(run, cases=(odd, *run.cases[1:])), replace(run, cases=())):
        assert csv_text(held) == frame(held).to_csv(index=False, lineterminator="\n")
