"""What the tasks of ``tasks/real`` need beside their YAML: documents from files or the hub, metrics, and programs.

Documents have a running ``id``, so that none counts as another's double.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import LayerswapError
from harness.evaluation.data import CODES, LANGUAGES, find
from harness.evaluation.embedded import program
from harness.evaluation.numbers import canonical
from harness.evaluation.published import LETTERS, Rows, rows_of, text, texts, whole, wrong
from harness.files import shortened

FLORES_SHOTS, MMLU_SHOTS = 4, 5
MBPP_SHOTS, MBPP_TEST = (2, 3, 4), range(11, 511)


def load(benchmark: str, language: str = "en", data: str = "", **_: Any) -> dict[str, Any]:
    """The documents of a task. ``language`` is a pair for FLORES; ``data`` a local folder, empty for the hub."""
    from datasets import Dataset

    folder = Path(data) if data else None
    rows = DOCUMENTS[benchmark](folder, language)
    if not rows:
        raise LayerswapError(f"{benchmark} data in {data or 'the hub'!r} has no documents of the test")
    return {"test": Dataset.from_list([{"id": f"{language}-{number}", **row} for number, row in enumerate(rows, 1)])}


def _mgsm(folder: Path | None, language: str) -> Rows:
    rows = rows_of(folder, "mgsm", "test", language) if folder else _hub("juletxara/mgsm", language, "test")
    return [{"language": language, "question": text(row, "question"), "answer_number": _number(row)} for row in rows]


def _number(row: dict[str, Any]) -> str:
    number = canonical(str(row.get("answer_number")))
    if not re.fullmatch(r"-?\d*\.?\d+", number):
        raise wrong(row, f"answer_number is {shortened(row.get('answer_number'))}: expected a number")
    return number


def _belebele(folder: Path | None, language: str) -> Rows:
    code = CODES[language]
    rows = rows_of(folder, "belebele", "test", language) if folder else _hub("facebook/belebele", code, "test")
    fields = ("flores_passage", "question", *(f"mc_answer{n}" for n in range(1, 5)))
    return [
        {**{f: text(row, f) for f in fields}, "correct_answer_num": whole(row, "correct_answer_num", range(1, 5))}
        for row in rows
    ]


def _flores(folder: Path | None, language: str) -> Rows:
    def sentences(split: str, of: str) -> list[str]:
        if folder is None:
            return [text(row, "text") for row in _hub("openlanguagedata/flores_plus", CODES[of], split)]
        if split == "dev" and find(folder, "flores", split, of) is None:
            return []
        return [text(row, "text") for row in rows_of(folder, "flores", split, of)]

    source, target = language.split("-")
    ours, theirs = sentences("devtest", source), sentences("devtest", target)
    if len(ours) != len(theirs):
        raise LayerswapError(
            f"flores devtest in {str(folder or 'the hub')!r}: {len(ours)} sentences in {CODES[source]} and "
            f"{len(theirs)} in {CODES[target]}: expected a line in one for each in the other"
        )
    pairs = list(zip(ours, theirs, strict=True))
    examples = list(zip(sentences("dev", source), sentences("dev", target), strict=False))[:FLORES_SHOTS]
    words = f"{LANGUAGES[source]}: {{}}\n{LANGUAGES[target]}:"
    shots = "".join(f"{words.format(one)} {other}\n\n" for one, other in examples)
    return [{"shots": shots, "source": one, "target": other} for one, other in pairs]


def _mbpp(folder: Path | None, _: str) -> Rows:
    if folder:
        rows = rows_of(folder, "mbpp", "test")
    else:
        hub = "google-research-datasets/mbpp"
        rows = [*_hub(hub, "full", "prompt"), *_hub(hub, "full", "test")]
    by_id: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = whole(row, "task_id")
        if folder and number in by_id:
            raise wrong(row, f"task_id {number} is there twice")
        by_id[number] = row
    shots = "".join(
        f"{_task(by_id[n])}{text(by_id[n], 'code').replace(chr(13), '')}\n[DONE]\n\n" for n in MBPP_SHOTS if n in by_id
    )
    return [
        {
            "shots": shots,
            "prompt": _task(row),
            "code": text(row, "code"),
            "test_list": texts(row, "test_list"),
            "test_setup_code": row.get("test_setup_code") or "",
        }
        for number, row in by_id.items()
        if number in MBPP_TEST
    ]


def _task(row: dict[str, Any]) -> str:
    tests = "\n".join(texts(row, "test_list"))
    return (
        f"You are an expert Python programmer, and here is your task: {text(row, 'text')} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _mmlu(folder: Path | None, _: str) -> Rows:
    if folder is None:
        rows, examples = _hub("cais/mmlu", "all", "test"), _hub("cais/mmlu", "all", "dev")
    else:
        rows = rows_of(folder, "mmlu", "test")
        examples = rows_of(folder, "mmlu", "dev") if find(folder, "mmlu", "dev") else []
    shots: dict[str, list[str]] = {}
    for row in examples:
        answer = LETTERS[whole(row, "answer", range(4))]
        shots.setdefault(text(row, "subject"), []).append(f"{_question(row)} {answer}\n\n")
    return [
        {
            "subject": text(row, "subject"),
            "shots": "".join(shots.get(row["subject"], ())[:MMLU_SHOTS]),
            "prompt": _question(row),
            "answer": whole(row, "answer", range(4)),
        }
        for row in rows
    ]


def _question(row: dict[str, Any]) -> str:
    found = texts(row, "choices")
    if len(found) != len(LETTERS):
        raise wrong(row, f"choices are {len(found)}: expected {len(LETTERS)}")
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, found, strict=True))
    return f"{text(row, 'question').strip()}{choices}\nAnswer:"


DOCUMENTS = {"mgsm": _mgsm, "belebele": _belebele, "flores": _flores, "mbpp": _mbpp, "mmlu": _mmlu}


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
