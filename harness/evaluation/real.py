"""What the tasks of ``tasks/real`` need beside their YAML: documents from files or the hub, metrics, and programs.

Documents have a running ``id``, so that none counts as another's double.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError
from harness.evaluation.data import CODES, LANGUAGES, find, need
from harness.evaluation.embedded import program
from harness.evaluation.numbers import canonical

Rows = list[dict[str, Any]]
Reader = Callable[[Path], Iterable[dict[str, Any]]]
FLORES_SHOTS, MMLU_SHOTS = 4, 5
MBPP_SHOTS, MBPP_TEST = (2, 3, 4), range(11, 511)


def load(benchmark: str, language: str = "en", data: str = "", **_: Any) -> dict[str, Any]:
    """The documents of a task. ``language`` is a pair for FLORES; ``data`` a local folder, empty for the hub."""
    from datasets import Dataset

    folder = Path(data) if data else None
    documents = {"mgsm": _mgsm, "belebele": _belebele, "flores": _flores, "mbpp": _mbpp, "mmlu": _mmlu}[benchmark]
    try:
        rows = documents(folder, language)
    except (ValueError, KeyError, IndexError) as error:
        raise LayerswapError(
            f"{benchmark} data in {data or 'the hub'!r} is not in the published format: {type(error).__name__}: {error}"
        ) from error
    return {"test": Dataset.from_list([{"id": f"{language}-{number}", **row} for number, row in enumerate(rows, 1)])}


def _mgsm(folder: Path | None, language: str) -> Rows:
    rows = _local(folder, "mgsm", "test", language) if folder else _hub("juletxara/mgsm", language, "test")
    return [
        {"language": language, "question": row["question"], "answer_number": canonical(str(row["answer_number"]))}
        for row in rows
    ]


def _belebele(folder: Path | None, language: str) -> Rows:
    code = CODES[language]
    rows = _local(folder, "belebele", "test", language) if folder else _hub("facebook/belebele", code, "test")
    fields = ("flores_passage", "question", *(f"mc_answer{n}" for n in range(1, 5)))
    return [{**{f: row[f] for f in fields}, "correct_answer_num": int(row["correct_answer_num"])} for row in rows]


def _flores(folder: Path | None, language: str) -> Rows:
    def sentences(split: str, of: str) -> list[str]:
        if folder is None:
            return [row["text"] for row in _hub("openlanguagedata/flores_plus", CODES[of], split)]
        if split == "dev" and find(folder, "flores", split, of) is None:
            return []
        return [row["text"] for row in _local(folder, "flores", split, of)]

    source, target = language.split("-")
    pairs = list(zip(sentences("devtest", source), sentences("devtest", target), strict=True))
    examples = list(zip(sentences("dev", source), sentences("dev", target), strict=False))[:FLORES_SHOTS]
    words = f"{LANGUAGES[source]}: {{}}\n{LANGUAGES[target]}:"
    shots = "".join(f"{words.format(one)} {other}\n\n" for one, other in examples)
    return [{"shots": shots, "source": one, "target": other} for one, other in pairs]


def _mbpp(folder: Path | None, _: str) -> Rows:
    if folder:
        rows = _local(folder, "mbpp", "test")
    else:
        hub = "google-research-datasets/mbpp"
        rows = [*_hub(hub, "full", "prompt"), *_hub(hub, "full", "test")]
    by_id = {int(row["task_id"]): row for row in rows}
    shots = "".join(
        f"{_task(by_id[n])}{by_id[n]['code'].replace(chr(13), '')}\n[DONE]\n\n" for n in MBPP_SHOTS if n in by_id
    )
    return [
        {
            "shots": shots,
            "prompt": _task(row),
            "code": row["code"],
            "test_list": row["test_list"],
            "test_setup_code": row.get("test_setup_code") or "",
        }
        for number, row in by_id.items()
        if number in MBPP_TEST
    ]


def _task(row: Mapping[str, Any]) -> str:
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {row['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _mmlu(folder: Path | None, _: str) -> Rows:
    if folder is None:
        rows, examples = _hub("cais/mmlu", "all", "test"), _hub("cais/mmlu", "all", "dev")
    else:
        rows = _local(folder, "mmlu", "test")
        examples = _local(folder, "mmlu", "dev") if find(folder, "mmlu", "dev") else []
    shots: dict[str, list[str]] = {}
    for row in examples:
        shots.setdefault(row["subject"], []).append(f"{_question(row)} {'ABCD'[int(row['answer'])]}\n\n")
    return [
        {
            "subject": row["subject"],
            "shots": "".join(shots.get(row["subject"], ())[:MMLU_SHOTS]),
            "prompt": _question(row),
            "answer": int(row["answer"]),
        }
        for row in rows
    ]


def _question(row: Mapping[str, Any]) -> str:
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True))
    return f"{row['question'].strip()}{choices}\nAnswer:"


def _hub(name: str, config: str, split: str) -> Rows:
    import datasets

    load_dataset: Any = datasets.load_dataset
    try:
        return list(load_dataset(name, config, split=split))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise LayerswapError(
            f"{name} cannot be had from the hub ({type(error).__name__}: {reason}): "
            "give a folder with its files, --ablation-data FOLDER"
        ) from error


def _local(folder: Path | None, benchmark: str, split: str, language: str = "en") -> Rows:
    assert folder is not None
    path = need(folder, benchmark, split, language)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    readers: list[tuple[Path, Reader]] = [(file, _READERS.get(file.suffix, _lines)) for file in files]
    return [row for file, read in readers for row in read(file)]


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip())


def _tsv(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text("utf-8").split("\n"):
        question, tab, number = line.rstrip("\r").rpartition("\t")
        if tab:
            yield {"question": question, "answer_number": number}


def _csv(file: Path) -> Iterator[dict[str, Any]]:
    """MMLU's own: no header; the subject is the file's name."""
    subject = file.stem.rsplit("_", 1)[0]
    with file.open(encoding="utf-8", newline="") as stream:
        for question, *choices, letter in csv.reader(stream):
            yield {"subject": subject, "question": question, "choices": choices, "answer": "ABCD".index(letter.strip())}


def _parquet(file: Path) -> Sequence[dict[str, Any]]:
    from pyarrow import parquet

    rows: Rows = parquet.read_table(file).to_pylist()
    return rows


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return ({"text": line.rstrip("\r")} for line in file.read_text("utf-8").split("\n") if line.strip())


_READERS: dict[str, Reader] = {".jsonl": _jsonl, ".tsv": _tsv, ".csv": _csv, ".parquet": _parquet}


def translated(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Sentence chrF++ in [0, 1] (Popović 2017, W17-4770), and the pair for the metric of the whole corpus."""
    import sacrebleu

    answer = results[0].strip()
    score = sacrebleu.sentence_chrf(answer, [doc["target"]], word_order=2).score / 100
    return {"sentence_chrf++": score, "chrf++": (doc["target"], answer)}


def corpus_chrfpp(pairs: Sequence[tuple[str, str]]) -> float:
    """chrF++ over the whole corpus, 0 to 100."""
    import sacrebleu

    references, answers = zip(*pairs, strict=True)
    return float(sacrebleu.corpus_chrf(answers, [references], word_order=2).score)


def code_of(answer: str) -> str:
    """The program in an answer: what comes before the end mark, out of a fence if it is in one."""
    text = answer.partition("[DONE]")[0]
    if "```" in text:
        text = text.split("```")[1]
        text = text.removeprefix("python")
    return text.strip("\r\n")


def passes(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 if the program passes its asserts in the sandbox."""
    return program({"test_list": doc["test_list"]}, [f"{doc['test_setup_code']}\n{code_of(results[0])}"])
