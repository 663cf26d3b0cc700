from __future__ import annotations

from pathlib import Path

from harness import finish
from harness.reporting.report import read_results
from harness.reporting.samples import read_samples


def test_the_report_goes_below_the_folder_and_latest_leads_to_it(ablate, pytester):
    result = ablate("--ablation-report=out/of/the/way")
    (folder,) = (pytester.path / "out/of/the/way").glob("tiny-*")
    result.stdout.fnmatch_lines([f"report: {folder / 'report.md'}"])
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "### transition" in text
    assert "| removed" in text
    assert (folder.parent / "latest" / "report.md").read_text(encoding="utf-8") == text
    assert (folder / "figures" / "forest-transition.svg").is_file()
    assert "](figures/forest-transition.svg)" in text
    assert {change.expert for change in read_results(folder).changes} == {"math", "language"}
    assert not (pytester.path / "reports").exists()


def test_the_answers_of_the_method_are_kept_although_only_another_family_was_selected(ablate, pytester):
    ablate()
    folder = pytester.path / "reports" / "latest"
    (samples,) = read_samples(folder / "samples.jsonl.gz")
    assert list(samples.answers) == ["method/layer-swap", "transition/removed"]
    assert len(samples.documents) == 8
    assert "#documents?column=mmlu&amp;b=transition%2Fremoved" in (folder / "report.html").read_text(encoding="utf-8")


def test_no_report_is_written_if_none_is_wanted(ablate, pytester):
    result = ablate("--ablation-report=none")
    assert result.ret == 0
    assert "report:" not in result.stdout.str()
    pytester.makeini("[pytest]\nablation_report = none\n")
    assert ablate().ret == 0
    assert not (pytester.path / "reports").exists()
    assert not list(pytester.path.glob("**/report.md"))


def test_a_report_that_cannot_be_written_is_an_error(ablate, pytester):
    (pytester.path / "taken").write_text("a file", encoding="utf-8")
    result = ablate("--ablation-report=taken")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["ERROR: *taken*the report cannot be written*"])


def test_a_run_whose_place_is_taken_while_it_writes_goes_beside_it(ablate, pytester, monkeypatch):
    save = finish.save_baselines

    def slow(path: Path, *rest: object) -> None:
        monkeypatch.setattr(finish, "save_baselines", save)
        (name,) = {read_results(path.parent).name}
        (pytester.path / "reports" / name).mkdir()
        (pytester.path / "reports" / name / "report.md").write_text("another run's")
        save(path, *rest)

    monkeypatch.setattr(finish, "save_baselines", slow)
    assert ablate().ret == 0
    first, second = sorted(path for path in (pytester.path / "reports").iterdir() if not path.is_symlink())
    assert second.name == f"{first.name}-2"
    assert (first / "report.md").read_text() == "another run's"
    assert (second / "scores.json").is_file()


def test_the_report_is_written_although_another_plugin_fails_at_the_end(ablate, latest):
    result = ablate("--junitxml=/proc/nowhere/junit.xml")
    assert result.ret != 0
    assert latest().case("transition/removed")
