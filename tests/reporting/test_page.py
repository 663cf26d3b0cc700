from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.reporting.contrasts import contrasts
from harness.reporting.figures import figure_names
from harness.reporting.markup import Reader, layer_map, split
from harness.reporting.packing import pack, packed_column
from harness.reporting.page import render_page
from harness.reporting.report import render_report, verdict_line, write_report
from harness.reporting.results import RunResult
from harness.reporting.samples import ColumnSamples, read_samples
from harness.reporting.tables import difference, points

VOID = {"meta", "link", "img", "input", "br"}
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><defs><clipPath id="p1"/></defs></svg>'


class Page(HTMLParser):
    """The page as its elements and the text outside of scripts and styles; every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.blocks: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.blocks:
            self.blocks[tag].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.blocks:
            self.blocks[self.open[-1]][-1] += data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def html(run, samples) -> str:
    return render_page(run, samples, {"forest-method": SVG, "layers": SVG, "pareto": SVG})


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def unpacked(page: Page, number: int) -> dict:
    (at,) = [i for i, block in enumerate(page.all("script")) if block.get("id") == f"samples-{number}"]
    return json.loads(gzip.decompress(base64.b64decode(page.blocks["script"][at])))


# -- what it shows ---------------------------------------------------------------------------------------------


def test_it_begins_with_the_verdicts_and_then_the_floors_that_were_not_met(page, run):
    assert page.words.index(verdict_line(run)) < page.words.index("Floors that were not met verdict")
    assert page.words.index("transition/math-instead") < page.words.index("Below each value")


def test_every_case_value_difference_and_verdict_is_in_a_table(page, run):
    for case in run.cases:
        assert case.case_id in page.words
        assert case.recipe_text in page.words
        for result in case.columns.values():
            assert points(result.value) in page.words
            if result.versus_method:
                assert difference(result.versus_method) in page.words
    assert page.words.count(" FAIL ") >= sum(str(r.verdict) == "FAIL" for c in run.cases for r in c.columns.values())
    for row in contrasts(run):
        assert f"{row.column} {row.label} {row.comparison.n}" in page.words


def test_ids_are_unique_and_every_link_leads_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].startswith("#")
        assert link["href"][1:].partition("?")[0] in ids


def test_a_value_links_to_the_documents_of_its_case_where_the_page_has_them(page, html):
    links = {link["href"] for link in page.all("a") if "?" in link["href"]}
    assert "#documents?column=mgsm+sw&b=transition%2Fmath-instead" in links
    assert len(links) == 2 * 5  # two columns; the reference is not held against itself
    assert not any("column=mmlu" in link for link in links)
    floors = html.partition('id="floors-that-were-not-met"')[2].partition("</section>")[0]
    assert floors.count('<a href="#documents?') == 2  # of the eight that failed


def test_headers_have_a_scope_and_inputs_a_label(page):
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    named = {label["for"] for label in page.all("label") if "for" in label}
    assert [i["id"] in named for i in page.all("input")] == [True]
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"


def test_figures_are_pictures_beside_their_family_or_by_themselves(page, html):
    sources = [image["src"] for image in page.all("img")]
    assert sources == ["data:image/svg+xml;base64," + base64.b64encode(SVG.encode()).decode()] * 3
    family = html.partition('id="family-method"')[2].partition("</section>")[0]
    assert 'alt="method: differences to the un-ablated method and their intervals"' in family
    assert "clipPath" not in html


def test_code_bold_and_emphasis_are_marked_and_the_rest_is_text(run):
    read = Reader(run, lambda case_id, column: "").inline
    assert read("a `b<c` **d** *e f* <g> ` * 2 * 3") == (
        "a <code>b&lt;c</code> <strong>d</strong> <em>e f</em> &lt;g&gt; ` * 2 * 3"
    )
    assert read("`T|LLTMMMMMTL|TT` `L`").count('class="mark mark-') == 13 + 1
    assert 'aria-label="weighted average, then language expert base, then another operation expert l"' in layer_map(
        "T|LB|*l"
    )


def test_every_form_of_the_report_is_read(run):
    reader = Reader(run, lambda case_id, column: f"#documents?{case_id} {column}")
    table = "| case | c |\n|---|---|\n| a\\|b | mmlu |"
    text = f"one\ntwo\n\n- a\n- b\n\n<details><summary>x < y</summary>\n\n{table}\n\n</details>"
    assert re.sub(r"\n", "", reader.blocks(text)) == (
        '<p class="prose">one two</p><ul class="prose"><li>a</li><li>b</li></ul><details><summary>x &lt; y</summary>'
        '<div class="scroll narrow" role="region" aria-label="Table: case, c" tabindex="0">'
        '<table class="plain sortable"><thead><tr><th scope="col"><button type="button">case</button></th>'
        '<th scope="col"><button type="button">c</button></th></tr></thead><tbody><tr><th scope="row">a|b</th>'
        "<td>mmlu</td></tr></tbody></table></div></details>"
    )
    assert 'href="#documents?method/base mmlu"' in reader.blocks("| case | column |\n|--|--|\n| method/base | mmlu |")
    assert 'href="#documents?method/base mmlu"' in reader.blocks("| a | b |\n|--|--|\n| base | mmlu |", "method")
    assert reader.blocks("<details><summary>never closed</summary>").endswith("</details>\n")
    before, (first, second) = split("top\n\n## One & two\n\nx\n\n## Three")
    assert (before, first.slug, first.text, second.text) == ("top", "one-two", "x", "")


def test_it_has_every_section_of_the_markdown_report(page, run):
    for title in re.findall(r"^##+ (.*)", render_report(run), flags=re.M):
        assert title in page.words
    for sentence in re.findall(r"^- (.*)", render_report(run), flags=re.M):
        assert re.sub(r"[`*]", "", sentence) in re.sub(r" (?=[:;.,])", "", page.words).replace("  ", " ")


def test_an_empty_run_and_a_run_without_answers_render(run):
    assert "0 floors in 0 cases" in Page(render_page(RunResult("r", "tiny", (), "m/s", ()))).words
    bare = Page(render_page(dataclasses.replace(run, cases=run.cases[-2:])))
    assert "This run kept no answers." in bare.words
    assert not [link for link in bare.all("a") if "?" in link["href"]]


# -- safety ----------------------------------------------------------------------------------------------------


def test_the_policy_names_the_two_inline_blocks_and_nothing_else_runs(page):
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    scripts = zip(page.all("script"), page.blocks["script"], strict=True)
    run = [text for attributes, text in scripts if attributes.get("type") != "application/octet-stream"]
    for blocks, rule in ((run, "script-src"), (page.blocks["style"], "style-src")):
        (text,) = blocks
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_it_loads_nothing_and_has_no_inline_handlers_or_styles(page):
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href", "action", "data"):
            assert re.match(r"#|data:|$", attributes.get(name, "")), (tag, attributes)
    for text in page.blocks["style"] + page.blocks["script"]:
        assert not re.search(r"https?:|@import|url\(|innerHTML|eval\(", text)


def test_hostile_names_are_text(run, hostile, samples_of):
    bad = [
        dataclasses.replace(case, case=f"{case.case}{text}", title=text, recipe_text=text, plan_text=text)
        for case, text in zip(run.cases[1:4], hostile, strict=True)
    ]
    header = {hostile[0]: hostile[1]}
    bad_run = dataclasses.replace(run, profile=hostile[1], cases=(run.cases[0], *bad), header=header, provenance=header)
    page = Page(render_page(bad_run, (samples_of(bad_run),)))
    assert len([s for s in page.all("script") if "type" not in s]) == 1
    assert page.all("img") == []
    assert hostile[0] in page.words


def test_hostile_documents_are_not_in_the_markup(html, page, hostile):
    assert "hacked" not in html
    assert unpacked(page, 0)["targets"][:3] == list(hostile)


# -- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_every_answer_and_value_can_be_unpacked(page, samples, number):
    data, column = unpacked(page, number), samples[number]
    assert (tuple(data["documents"]), tuple(data["prompts"])) == (column.documents, column.prompts)
    assert data["graded"] is (number == 1)
    for case, row in data["cases"].items():
        outcomes = [data["outcomes"][i][at] for i, at in enumerate(data["rows"][row])]
        assert tuple(answer for answer, _ in outcomes) == column.answers[case]
        assert [value for _, value in outcomes] == pytest.approx(list(column.values[case]), abs=1e-7)


def test_equal_answers_are_kept_once():
    column = ColumnSamples(
        "c", ("d",), ("p",), ("t",), {"a": ("x",), "b": ("x",), "c": ("y",)}, {"a": (1.0,), "b": (1.0,), "c": (0.0,)}
    )
    data = packed_column(column)
    assert data["outcomes"] == [[["x", 1.0], ["y", 0.0]]]
    assert (data["rows"], data["cases"]) == ([[0], [1]], {"a": 0, "b": 0, "c": 1})


def test_beyond_the_budget_the_answers_stay_outside_and_the_page_says_so(run, samples, page):
    size = sum(len(column.data) for column in pack(samples))
    assert [s["id"] for s in page.all("script") if "id" in s] == ["samples-0", "samples-1"]
    assert "samples-0" in render_page(run, samples, budget=size)
    small = Page(render_page(run, samples, budget=size - 1))
    assert "The answers are not in this page" in small.words
    assert "samples.jsonl.gz beside it has every one" in small.words
    assert not [s for s in small.all("script") if "id" in s]


def test_the_same_run_gives_the_same_bytes(run, samples, html):
    again = RunResult.from_dict(json.loads(json.dumps(run.to_dict())))
    assert render_page(again, samples, {"forest-method": SVG, "layers": SVG, "pareto": SVG}) == html


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_page_is_written_beside_the_report_and_anew_from_its_files(run, samples, tmp_path):
    write_report(run, tmp_path / "one", samples)
    names = ["report.html", "report.md", "results.csv", "results.json", "samples.jsonl.gz"]
    drawn = [f"figures/{name}.svg" for name in sorted(figure_names(run))]
    names = [*drawn, *names]
    before = contents(tmp_path / "one")
    assert list(before) == names
    assert before["results.csv"].startswith(
        b"family,case,column,metric,n,value,difference,low,high,p,verdict,seconds\n"
    )
    assert before["results.csv"].count(b"\n") == 1 + 6 * 8

    from harness.cli import main

    (tmp_path / "one" / "report.html").unlink()
    assert main(["report", str(tmp_path / "one")]) == 0
    assert contents(tmp_path / "one") == before
    assert read_samples(tmp_path / "one" / "samples.jsonl.gz")[0].documents == samples[0].documents
