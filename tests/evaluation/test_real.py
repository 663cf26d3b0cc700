from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest

from harness.errors import LayerswapError
from harness.evaluation.benchmarks import Column, build_columns
from harness.evaluation.data import asked, task_files
from harness.evaluation.editions import edition
from harness.evaluation.grid import Settings
from harness.evaluation.real import code_of, load
from harness.profiles import SHIPPED_TASKS, BenchmarkSpec, ColumnSpec, Profile
from tests.evaluation.published import CODES, QUESTIONS, lines, write_all

TASKS = sorted(p.read_text("utf-8").partition("task: ")[2].split()[0] for p in (SHIPPED_TASKS / "real").glob("*.yaml"))
METRICS = {"mgsm": "exact_match", "flores": "sentence_chrf++", "mbpp": "pass_at_1"}
BELEBELE = "P: Passage ({}).\nQ: Who?\nA: answer 1\nB: answer 2\nC: answer 3\nD: answer 4\nAnswer:"
DIRECT = {"sw": "Swali: ", "te": "ప్రశ్న: ", "bn": "প্রশ্ন: ", "ja": "問題： ", "en": "Question: "}
STEPS = {
    "sw": "Jibu la Hatua kwa Hatua:",
    "te": "దశలవారీగా సమాధానం:",
    "bn": "ধাপে ধাপে উত্তর:",
    "ja": "ステップごとの答え:",
    "en": "Step-by-Step Answer:",
}
NAMES = {"sw": "Swahili", "te": "Telugu", "bn": "Bengali", "ja": "Japanese", "en": "English"}
MBPP = "You are an expert Python programmer, and here is your task: Write a function to add {0}. Your code should pass \
these tests:\n\nassert add(0) == {0}\nassert add(1) == {1}\nassert add(2) == {2}\n[BEGIN]\n"


def golden(task: str) -> tuple[str, str]:
    """The prompt of a task's first document and its target, written out here once more."""
    benchmark, languages = asked(task)
    first = languages[0]
    if benchmark == "mgsm":
        question, number = QUESTIONS[first]
        answer = "Answer:" if "direct" in task else STEPS[first]
        return f"{DIRECT[first]}{question}\n{answer}", number.replace(",", "")
    if benchmark == "belebele":
        return BELEBELE.format(first), "2"
    if benchmark == "flores":
        source, target = languages
        words = f"{NAMES[source]}: {{}}\n{NAMES[target]}:"
        shots = "".join(f"{words.format(f'dev {source} {n}.')} dev {target} {n}.\n\n" for n in range(1, 5))
        return shots + words.format(f"devtest {source} 1."), f"devtest {target} 1."
    if benchmark == "mbpp":
        shots = "".join(f"{MBPP.format(n, n + 1, n + 2)}def add(x):\n    return x + {n}\n[DONE]\n\n" for n in (2, 3, 4))
        return shots + MBPP.format(11, 12, 13), "def add(x):\r\n    return x + 11"
    choices = "\nA. one\nB. two\nC. three\nD. four\nAnswer:"
    shots = "".join(f"dev {n}, what?{choices} {'ABCD'[n % 4]}\n\n" for n in range(5))
    topic = "The following are multiple choice questions (with answers) about high school physics.\n\n"
    return f"{topic}{shots}test 0, what?{choices}", "0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def profile_of(folder: Path, *tasks: str) -> Profile:
    def column(task: str) -> ColumnSpec:
        benchmark = asked(task)[0]
        corpus = ("chrf++",) if benchmark == "flores" else ()
        reading = "answer" if benchmark == "mgsm" else "none"
        name = f"{benchmark} {task.replace('_', ' ')}"
        return ColumnSpec(name=name, task=task, metric=METRICS.get(benchmark, "acc"), filter=reading, corpus=corpus)

    benchmarks: dict[str, Any] = {}
    for task in tasks:
        benchmarks.setdefault(asked(task)[0], []).append(column(task))
    experts = {name: f"embedded:{name}" for name in ("base", "math", "language")}
    specs = {name: BenchmarkSpec(columns=tuple(columns)) for name, columns in benchmarks.items()}
    return Profile(name="real", experts=experts, benchmarks=specs, tasks="real", data=str(folder))


@pytest.fixture(scope="module")
def columns(folder: Path) -> dict[str, Column]:
    profile = profile_of(folder, *TASKS)
    return {c.spec.task: c for b in profile.benchmarks for c in build_columns(profile, b, None, 8, "float32")}


def test_there_is_a_task_for_every_benchmark_and_language():
    pairs = [f"{a}-{b}" for other in ("sw", "te", "bn", "ja") for a, b in ((other, "en"), ("en", other))]
    expected = [f"real_{kind}_{x}" for kind in ("mgsm_direct", "mgsm_cot", "belebele") for x in CODES]
    assert sorted(TASKS) == sorted([*expected, *(f"real_flores_{pair}" for pair in pairs), "real_mbpp", "real_mmlu"])


@pytest.mark.parametrize("task", TASKS)
def test_prompts_and_targets_are_these(columns, task):
    first = columns[task].instances[0]
    prompt, target = golden(task)
    assert first.args[0] == prompt
    assert str(columns[task].task.doc_to_target(first.doc)) == target


def answered(column: Column, answers: list[str]) -> tuple[float, ...]:
    return column.score(answers).values


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        ("real_mgsm_direct_sw", " 1,201\nSwali: 4", " 3\n1201"),
        ("real_mgsm_cot_sw", "3 + 1198 = 1201. Jibu ni 1,201. 5", "Jibu ni 3. 1201"),
        ("real_mgsm_direct_te", " ౫", " ౬"),
        ("real_mgsm_cot_te", "౨ + ౩ = ౫. సమాధానం ౫. 9", "సమాధానం -5"),
        ("real_mgsm_direct_bn", " ৬টি", " ৬০"),
        ("real_mgsm_cot_bn", "২ + ৪ = ৬। উত্তর হল ৬। ৯", ""),
        ("real_mgsm_direct_ja", "１個", "２個"),
        ("real_mgsm_cot_ja", "３ − ２ ＝ １。答えは１です。9", "答えは2です。1"),
        ("real_mgsm_direct_en", "7", "7.5"),
        ("real_mgsm_cot_en", "3 + 4 = 7. The answer is 7. 12", "The answer is 12. 7"),
        ("real_mbpp", "def add(x):\n    return x + 11\n[DONE]\nmore", "def add(x):\n    return x\n"),
        ("real_flores_en-sw", " devtest sw 1.", " 9"),
    ],
)
def test_answers_are_read_as_their_language_writes_them(columns, task, right, wrong):
    column = columns[task]
    rest = [""] * (len(column.instances) - 1)
    assert answered(column, [right, *rest])[0] == 1.0
    assert answered(column, [wrong, *rest])[0] < 0.2


@pytest.mark.parametrize("answer", ["1,201.", " 12.01", "$1,201", "1 201", "", "-1201", "x = 1201 or 7", "1201.50"])
@pytest.mark.parametrize("name", ["remove_whitespace", "flexible-extract"])
def test_direct_answers_count_as_stocks_filters_and_metric_count_them(folder, tmp_path, name, answer):
    """Stock's own YAML with its data elsewhere, beside ours."""
    from lm_eval.tasks import TaskManager

    rows = [{"question": "?", "answer": None, "answer_number": 1201}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]), "utf-8")
    files = dict.fromkeys(("train", "test"), str(tmp_path / "rows.jsonl"))
    other = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    folder_of_tasks = Path(lm_eval.__file__).parent / "tasks" / "mgsm" / "direct"
    manager = TaskManager(include_path=str(folder_of_tasks), include_defaults=False)
    stock = manager._factory.build(manager._entry("mgsm_direct_sw"), overrides=other, registry=manager._index)
    stock.build_all_requests(rank=0, world_size=1)
    (asked,) = stock.instances
    asked.resps, asked.filtered_resps = [answer], {}
    stock.apply_filters()
    expected = stock.process_results(asked.doc, [asked.filtered_resps[name]])["exact_match"]

    column = ColumnSpec(name="mgsm sw", task="real_mgsm_direct_sw", metric="exact_match", filter=name)
    profile = profile_of(folder, "real_mgsm_direct_sw")
    profile = profile.model_copy(update={"benchmarks": {"mgsm": BenchmarkSpec(columns=(column,))}})
    (ours,) = build_columns(profile, "mgsm", None, 8, "float32")
    assert ours.score([answer] + [""] * (len(ours.instances) - 1)).values[0] == expected


def test_chrfpp_is_sacrebleus_with_words(columns):
    import sacrebleu

    column = columns["real_flores_en-sw"]
    answers = [f" devtest mwingine {n}" for n in range(len(column.instances))]
    score = column.score(answers)
    references = [i.doc["target"] for i in column.instances]
    stripped = [answer.strip() for answer in answers]
    assert score.corpus["chrf++"] == sacrebleu.corpus_chrf(stripped, [references], word_order=2).score
    assert score.values[0] == sacrebleu.sentence_chrf(stripped[0], references[:1], word_order=2).score / 100


def test_code_is_taken_out_of_fences_and_before_the_end_mark():
    assert code_of("x = 1\n[DONE]\ny = 2") == "x = 1"
    assert code_of("Here:\n```python\nx = 1\n```\nThat is it.") == "x = 1"


def test_only_the_test_problems_of_mbpp_are_asked(columns):
    assert len(columns["real_mbpp"].documents) == 2


def test_other_published_formats_give_the_same_documents(folder, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {
            "question": f"{split} {n}, what?",
            "subject": "high_school_physics",
            "choices": ["one", "two", "three", "four"],
        }
        | {"answer": n % 4, "split": split}
        for split, count in (("test", 2), ("dev", 6))
        for n in range(count)
    ]
    for split in ("test", "dev"):
        mine = [row for row in rows if row["split"] == split]
        lines(tmp_path / "jsonl" / "mmlu" / f"{split}.jsonl", mine)
        (tmp_path / "hub" / "all").mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(mine), tmp_path / "hub" / "all" / f"{split}-00000-of-00001.parquet")
    csv = load("mmlu", data=str(folder))["test"].to_list()
    assert load("mmlu", data=str(tmp_path / "jsonl"))["test"].to_list() == csv
    assert load("mmlu", data=str(tmp_path / "hub"))["test"].to_list() == csv
    for of in ("sw", "en"):
        sentences = [{"text": f"devtest {of} {n}."} for n in range(1, 7)]
        lines(tmp_path / "plus" / "flores_plus" / "devtest" / f"{CODES[of]}.jsonl", sentences)
    plus = load("flores", "en-sw", str(tmp_path / "plus"))["test"].to_list()
    assert [row["target"] for row in plus] == [f"devtest sw {n}." for n in range(1, 7)]
    assert {row["shots"] for row in plus} == {""}  # no dev sentences there


def test_missing_and_broken_files_are_named(folder, tmp_path):
    profile = profile_of(tmp_path, "real_mgsm_direct_sw")
    with pytest.raises(LayerswapError, match=r"has no mgsm data: expected mgsm/mgsm_sw.tsv or mgsm_sw.tsv or mgsm/sw"):
        build_columns(profile, "mgsm", None, 8, "float32")
    lines(tmp_path / "belebele" / "swh_Latn.jsonl", [{"question": "?"}])
    with pytest.raises(LayerswapError, match=r"swh_Latn\.jsonl, line 1: no flores_passage: it has"):
        load("belebele", "sw", str(tmp_path))
    lines(tmp_path / "mmlu.jsonl", [])
    with pytest.raises(LayerswapError, match="has no mmlu data"):
        load("mmlu", data=str(tmp_path))


def test_an_edition_changes_with_the_files_that_its_benchmark_reads(tmp_path):
    folder = write_all(tmp_path)
    settings = Settings(profile_of(folder, "real_mgsm_cot_sw", "real_mmlu"), "cpu", "float32")
    mgsm, mmlu = edition(settings, "mgsm"), edition(settings, "mmlu")
    assert None not in (mgsm, mmlu)
    path = folder / "mgsm" / "mgsm_sw.tsv"
    path.write_text(path.read_text("utf-8").replace("mayai", "mayayi"), encoding="utf-8")
    assert edition(settings, "mgsm") != mgsm
    assert edition(settings, "mmlu") == mmlu
    (folder / "mgsm" / "mgsm_ja.tsv").unlink()  # of a language that is not asked for
    assert task_files(folder, "real_mgsm_cot_sw") == [path]


def test_without_a_folder_only_the_documents_can_tell_the_edition(tmp_path):
    profile = profile_of(tmp_path, "real_mmlu").model_copy(update={"data": ""})
    assert edition(Settings(profile, "cpu", "float32"), "mmlu") is None
