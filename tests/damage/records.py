"""Damaged benchmark data, accepted results, saved runs, and places where nothing can be written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.damage.case import MERGE, Case, Change, content, cut, edited, several, without

DOCTOR = "doctor profile.toml --limit 1"
BELEBELE = "data/belebele/swh_Latn.jsonl"
MBPP = "data/mbpp/mbpp.jsonl"
MGSM = "data/mgsm/mgsm_sw.tsv"
FLORES = "data/flores200_dataset/devtest/swh_Latn.devtest"
MMLU = "data/mmlu/test/high_school_physics_test.csv"
COMPARE = "compare before.json after.json"
RUN = "reports/one"


def _line(path: str, number: int, edit: Callable[[str], str]) -> Change:
    def change(at: Path) -> None:
        lines = (at / path).read_text("utf-8").split("\n")
        lines[number - 1] = edit(lines[number - 1])
        (at / path).write_text("\n".join(lines), "utf-8")

    return change


def _row(path: str, number: int, **values: Any) -> Change:
    """Keys of one line of JSON are others; None takes a key away."""

    def edit(text: str) -> str:
        row = {**json.loads(text), **values}
        return json.dumps({key: value for key, value in row.items() if value is not None})

    return _line(path, number, edit)


DATA = (
    Case(
        "JSONL: a line is cut off",
        _line(BELEBELE, 2, lambda t: t[:40]),
        r"swh_Latn\.jsonl.*line 2",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a line is a list",
        _line(BELEBELE, 2, lambda t: "[1]"),
        r"swh_Latn\.jsonl.*line 2",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a line is a text",
        _line(BELEBELE, 1, lambda t: '"x"'),
        r"swh_Latn\.jsonl.*line 1",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: nested deep",
        _line(BELEBELE, 2, lambda t: "[" * 100_000),
        r"swh_Latn\.jsonl.*line 2",
        "doctor belebele.toml",
    ),
    Case("JSONL: in Latin-1", content(BELEBELE, b'{"a": "\xe9"}\n'), r"swh_Latn\.jsonl.*UTF-8", "doctor belebele.toml"),
    Case("JSONL: empty", content(BELEBELE, ""), r"belebele.*(no documents|empty)", "doctor belebele.toml"),
    Case(
        "JSONL: blank lines alone", content(BELEBELE, "\n\n"), r"belebele.*(no documents|empty)", "doctor belebele.toml"
    ),
    Case(
        "JSONL: a key is missing",
        _row(BELEBELE, 2, question=None),
        r"swh_Latn\.jsonl.*line 2.*question",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a number is none",
        _row(BELEBELE, 2, correct_answer_num="four"),
        r"swh_Latn\.jsonl.*line 2.*correct_answer_num",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a number is out of range",
        _row(BELEBELE, 2, correct_answer_num="5"),
        r"swh_Latn\.jsonl.*line 2.*correct_answer_num",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a text is a number",
        _row(BELEBELE, 2, question=7),
        r"swh_Latn\.jsonl.*line 2.*question",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a text is null",
        _line(BELEBELE, 2, lambda t: json.dumps({**json.loads(t), "mc_answer1": None})),
        r"swh_Latn\.jsonl.*line 2.*mc_answer1",
        "doctor belebele.toml",
    ),
    Case(
        "JSONL: a page of HTML",
        content(BELEBELE, "<!DOCTYPE html>"),
        r"swh_Latn\.jsonl.*line 1",
        "doctor belebele.toml",
    ),
    Case("programs: a line is cut off", _line(MBPP, 3, lambda t: t[:-20]), r"mbpp\.jsonl.*line 3", "doctor mbpp.toml"),
    Case(
        "programs: a key is missing",
        _row(MBPP, 5, test_list=None),
        r"mbpp\.jsonl.*line 5.*test_list",
        "doctor mbpp.toml",
    ),
    Case(
        "programs: tests are a text",
        _row(MBPP, 5, test_list="assert"),
        r"mbpp\.jsonl.*line 5.*test_list",
        "doctor mbpp.toml",
    ),
    Case("programs: an id is none", _row(MBPP, 5, task_id="x"), r"mbpp\.jsonl.*line 5.*task_id", "doctor mbpp.toml"),
    Case("programs: an id twice", _row(MBPP, 6, task_id=11), r"mbpp\.jsonl.*line 6.*11", "doctor mbpp.toml"),
    Case("programs: none of the test's", content(MBPP, ""), r"mbpp.*(no documents|empty)", "doctor mbpp.toml"),
    Case("TSV: no tab", _line(MGSM, 2, lambda t: t.replace("\t", " ")), r"mgsm_sw\.tsv.*line 2", "doctor mgsm.toml"),
    Case(
        "TSV: no number",
        _line(MGSM, 2, lambda t: "Swali?\tnyingi"),
        r"mgsm_sw\.tsv.*line 2.*nyingi",
        "doctor mgsm.toml",
    ),
    Case("TSV: no question", _line(MGSM, 2, lambda t: "\t7"), r"mgsm_sw\.tsv.*line 2", "doctor mgsm.toml"),
    Case("TSV: empty", content(MGSM, ""), r"mgsm.*(no documents|empty)", "doctor mgsm.toml"),
    Case("TSV: in UTF-16", content(MGSM, "a\t7\n".encode("utf-16")), r"mgsm_sw\.tsv.*UTF-8", "doctor mgsm.toml"),
    Case("TSV: missing", without(MGSM), r"mgsm_sw\.tsv", "doctor mgsm.toml"),
    Case("text: a line too few", _line(FLORES, 6, lambda t: ""), r"flores.*5.*6|flores.*6.*5", "doctor flores.toml"),
    Case("text: in Latin-1", content(FLORES, b"\xe9\n" * 6), r"swh_Latn\.devtest.*UTF-8", "doctor flores.toml"),
    Case("text: missing", without(FLORES), r"swh_Latn\.devtest", "doctor flores.toml"),
    Case(
        "CSV: a field too few",
        _line(MMLU, 2, lambda t: "q,one,two,three,A"),
        r"physics_test\.csv.*line 2",
        "doctor mmlu.toml",
    ),
    Case("CSV: a field alone", _line(MMLU, 2, lambda t: "q"), r"physics_test\.csv.*line 2", "doctor mmlu.toml"),
    Case(
        "CSV: another letter", _line(MMLU, 2, lambda t: t[:-1] + "E"), r"physics_test\.csv.*line 2", "doctor mmlu.toml"
    ),
    Case("CSV: no letter", _line(MMLU, 2, lambda t: t[:-1]), r"physics_test\.csv.*line 2", "doctor mmlu.toml"),
    Case(
        "CSV: a quote is left open",
        _line(MMLU, 2, lambda t: '"' + t[1:].replace('"', "")),
        r"physics_test\.csv",
        "doctor mmlu.toml",
    ),
    Case("CSV: a zero byte", _line(MMLU, 2, lambda t: "\0" + t), r"physics_test\.csv", "doctor mmlu.toml"),
    Case("CSV: in Latin-1", content(MMLU, b"\xe9,a,b,c,d,A\n"), r"physics_test\.csv.*UTF-8", "doctor mmlu.toml"),
    Case(
        "parquet that is none",
        several(
            lambda at: (at / BELEBELE).unlink(),
            lambda at: [(at / "data/mmlu/test" / p.name).unlink() for p in (at / "data/mmlu/test").iterdir()],
            content("data/mmlu/test.parquet", b"PAR1 no PAR1"),
        ),
        r"test\.parquet",
        "doctor mmlu.toml",
    ),
    Case(
        "data folder is a file",
        several(
            content("data.file", "x"),
            lambda at: (at / "mmlu.toml").write_text(
                (at / "mmlu.toml").read_text().replace('data = "data"', 'data = "data.file"')
            ),
        ),
        r"data\.file",
        "doctor mmlu.toml",
    ),
)


def _record(**values: Any) -> Change:
    """The accepted score of one column is another; None takes a key away."""

    def edit(data: Any) -> None:
        record = data["cases"]["method/layer-swap"]["mgsm sw"]
        record.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del record[key]

    return edited("before.json", edit)


ACCEPTED = (
    Case("missing", without("before.json"), r"before\.json", COMPARE),
    Case("a folder without scores", lambda at: None, r"models.*scores\.json", "compare models after.json"),
    Case("empty", content("before.json", ""), r"before\.json", COMPARE),
    Case("cut off", cut("before.json", 0.5), r"before\.json", COMPARE),
    Case("in UTF-16", content("before.json", "{}".encode("utf-16")), r"before\.json", COMPARE),
    Case("a list", content("before.json", "[]"), r"before\.json", COMPARE),
    Case("null", content("before.json", "null"), r"before\.json", COMPARE),
    Case("an empty table", content("before.json", "{}"), r"before\.json.*schema", COMPARE),
    Case("nested deep", content("before.json", "[" * 100_000), r"before\.json", COMPARE),
    Case(
        "a conflict of Git",
        lambda at: (at / "before.json").write_text("<<<<<<< HEAD\n" + (at / "before.json").read_text()),
        r"before\.json",
        COMPARE,
    ),
    Case("another schema", edited("before.json", lambda d: d.update(schema=99)), r"before\.json.*99", COMPARE),
    Case("schema is a list", edited("before.json", lambda d: d.update(schema=[1])), r"before\.json.*schema", COMPARE),
    Case("cases are a list", edited("before.json", lambda d: d.update(cases=[1])), r"before\.json", COMPARE),
    Case("no sets", edited("before.json", lambda d: d.pop("sets") and d), r"before\.json.*sets", COMPARE),
    Case("a set that is not there", _record(set="0"), r"before\.json.*'0'", COMPARE),
    Case("a set is a list", _record(set=["0"]), r"before\.json", COMPARE),
    Case("no values", _record(values=None), r"before\.json.*values", COMPARE),
    Case("values are a number", _record(values=7), r"before\.json", COMPARE),
    Case("values too short", _record(values="ff"), r"before\.json.*mgsm sw.*values", COMPARE),
    Case("values are no digits", _record(values="zz" * 62 + "z"), r"before\.json.*mgsm sw", COMPARE),
    Case("values with a sign", _record(values="-" + "f" * 124), r"before\.json.*mgsm sw", COMPARE),
    Case("values with underscores", _record(values="f_" * 62 + "f"), r"before\.json.*mgsm sw", COMPARE),
    Case("a mean that is another", _record(value=0.1), r"before\.json.*mgsm sw.*0\.1", COMPARE),
    Case("a mean that is no number", _record(value=float("nan")), r"before\.json.*mgsm sw", COMPARE),
    Case("a mean that is a text", _record(value="0.5"), r"before\.json", COMPARE),
    Case("a number of documents that is another", _record(n=3), r"before\.json.*mgsm sw.*3", COMPARE),
    Case("a corpus metric that is a text", _record(corpus={"bleu": "high"}), r"before\.json.*corpus metrics", COMPARE),
    Case(
        "a value above one",
        edited(
            "before.json",
            lambda d: d["cases"]["method/layer-swap"]["flores en-sw"].update(values="////" * 200, value=1.6777215),
        ),
        r"before\.json.*flores en-sw",
        COMPARE,
    ),
    Case(
        "documents are numbers",
        edited(
            "before.json", lambda d: d["documents"].update({k: list(range(len(v))) for k, v in d["documents"].items()})
        ),
        r"before\.json",
        COMPARE,
    ),
    Case(
        "graded is a text",
        edited("before.json", lambda d: [s.update(graded="no") for s in d["sets"].values()] and d),
        r"before\.json",
        COMPARE,
    ),
    Case(
        "a fingerprint is a list",
        edited("before.json", lambda d: [s.update(fingerprint=[1]) for s in d["sets"].values()] and d),
        r"before\.json",
        COMPARE,
    ),
    Case("a margin that is no number", lambda at: None, "margin", f"{COMPARE} --margin nan"),
    Case("a margin below zero", lambda at: None, "margin", f"{COMPARE} --margin=-1"),
)


def _results(edit: Callable[[Any], Any]) -> Change:
    return edited(f"{RUN}/results.json", edit)


def _result(**values: Any) -> Change:
    return _results(lambda d: d["cases"][1]["columns"]["mgsm sw"].update(values))


REPORT = f"report {RUN}"
SAVED = (
    Case("a folder that is not there", lambda at: None, "nowhere", "report nowhere"),
    Case("results missing", without(f"{RUN}/results.json"), r"one/results\.json", REPORT),
    Case("results cut off", cut(f"{RUN}/results.json", 0.5), r"one/results\.json", REPORT),
    Case("results are a list", content(f"{RUN}/results.json", "[]"), r"one/results\.json", REPORT),
    Case("results nested deep", content(f"{RUN}/results.json", "[" * 100_000), r"one/results\.json", REPORT),
    Case("results in UTF-16", content(f"{RUN}/results.json", "{}".encode("utf-16")), r"one/results\.json", REPORT),
    Case("results of another schema", _results(lambda d: d.update(schema=1)), r"one/results\.json.*schema 1", REPORT),
    Case("an unknown key", _results(lambda d: d.update(more=1)), r"one/results\.json.*more", REPORT),
    Case("no cases", _results(lambda d: d.pop("cases") and d), r"one/results\.json.*cases", REPORT),
    Case("cases are a number", _results(lambda d: d.update(cases=3)), r"one/results\.json", REPORT),
    Case("an unknown verdict", _result(verdict="MAYBE"), r"one/results\.json.*MAYBE", REPORT),
    Case("a value is a text", _result(value="high"), r"one/results\.json.*value", REPORT),
    Case("a value that is no number", _result(value=float("nan")), r"one", REPORT),
    Case("n is a text", _result(n="many"), r"one/results\.json.*n", REPORT),
    Case("a comparison is a list", _result(versus_method=[1]), r"one/results\.json", REPORT),
    Case("columns are a number", _results(lambda d: d.update(columns=7)), r"one/results\.json", REPORT),
    Case(
        "a column that no case has",
        _results(lambda d: d.update(columns=[*d["columns"], "more"])),
        r"one/results\.json.*more",
        REPORT,
    ),
    Case("header is a list", _results(lambda d: d.update(header=[1])), r"one/results\.json.*header", REPORT),
    Case(
        "the reference is a list", _results(lambda d: d.update(reference=[1])), r"one/results\.json.*reference", REPORT
    ),
    Case("samples are cut off", cut(f"{RUN}/samples.jsonl.gz", 0.5), r"one/samples\.jsonl\.gz", REPORT),
    Case("samples are no gzip", content(f"{RUN}/samples.jsonl.gz", b"text"), r"one/samples\.jsonl\.gz", REPORT),
    Case(
        "samples with a flipped bit",
        lambda at: (at / RUN / "samples.jsonl.gz").write_bytes(_flipped((at / RUN / "samples.jsonl.gz").read_bytes())),
        r"one/samples\.jsonl\.gz",
        REPORT,
    ),
    Case("a sample is a number", lambda at: _gzip(at, "7\n"), r"one/samples\.jsonl\.gz", REPORT),
    Case(
        "a sample without answers",
        lambda at: _gzip(at, '{"column": "mgsm sw", "document": "x"}\n'),
        r"one/samples\.jsonl\.gz",
        REPORT,
    ),
    Case("no run has the column", lambda at: None, "reports.*mgsm xx", "trend reports --column 'mgsm xx'"),
    Case("no folder of runs", lambda at: None, "nowhere", "trend nowhere"),
    Case("seeds of one run", lambda at: None, "seed|run", "seeds reports/one"),
)


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def _gzip(at: Path, text: str) -> None:
    import gzip

    (at / RUN / "samples.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def _mkdir(path: str) -> Change:
    return lambda at: (at / path).mkdir(parents=True)


FOLDERS = (
    Case("output exists", _mkdir("out"), "'out' exists"),
    Case("output is a file", content("out", "x"), "'out' exists"),
    Case("output is a link to nothing", lambda at: (at / "out").symlink_to("nowhere"), "'out' exists"),
    Case("output is below a file", content("file", "x"), "file", MERGE.replace("--out out", "--out file/out")),
    Case(
        "output has a name of 300 letters", lambda at: None, "a{200}", MERGE.replace("--out out", f"--out {'a' * 300}")
    ),
    Case("output is the root", lambda at: None, "exists", MERGE.replace("--out out", "--out /")),
    Case("output is here", lambda at: None, "exists|'.'", MERGE.replace("--out out", "--out .")),
    Case(
        "output on a file system that takes nothing",
        lambda at: None,
        "/proc/out|/proc",
        MERGE.replace("--out out", "--out /proc/out"),
    ),
    Case(
        "an expert that is not there",
        lambda at: None,
        "math=./models/nowhere",
        MERGE.replace("models/math", "./models/nowhere"),
    ),
    Case(
        "an expert is a file",
        lambda at: None,
        r"math=models/math/config\.json",
        MERGE.replace("models/math", "models/math/config.json"),
    ),
    Case("an expert without a name", lambda at: None, "--expert", MERGE.replace("math=", "")),
    Case("an expert without a folder", lambda at: None, "--expert math=", MERGE.replace("math=models/math", "math=")),
    Case(
        "an expert is an empty folder",
        _mkdir("empty"),
        "empty.*config|empty.*safetensors",
        MERGE.replace("models/math", "empty"),
    ),
    Case(
        "a folder for the recipe's file", lambda at: None, "nowhere", "import mergekit.yaml --to /proc/nowhere/x.toml"
    ),
    Case(
        "figures below a file",
        content("file", "x"),
        "file",
        "analyze --base models/base --expert math=models/math --figures file/x",
    ),
    Case("a trend's figure below a file", content("file", "x"), "file", "trend reports --out file/x.svg"),
    Case("a report into a folder that is a file", lambda at: None, "before.json", "report before.json"),
    Case(
        "an exported file on /proc",
        lambda at: None,
        "/proc",
        "export soup --expert math=models/math --expert language=models/language --to /proc/x.yaml",
    ),
)
