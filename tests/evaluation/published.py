"""Small files in the formats in which the benchmarks are published."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

QUESTIONS = {
    "sw": ("Juma ana mayai 3. Anapata 1,198 zaidi. Ana mangapi?", "1,201"),
    "te": ("రాము వద్ద 2 పండ్లు ఉన్నాయి. మరో 3 కొన్నాడు. మొత్తం ఎన్ని?", "5"),
    "bn": ("রিনার ২টি বই আছে। সে আরও ৪টি পেল। মোট কত?", "6"),
    "ja": ("りんごが３個あります。２個食べました。残りは何個ですか？", "1"),
    "en": ("Ann has 3 eggs. She gets 4 more. How many has she?", "7"),
}
CODES = {"sw": "swh_Latn", "te": "tel_Telu", "bn": "ben_Beng", "ja": "jpn_Jpan", "en": "eng_Latn"}


def lines(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def write_all(folder: Path) -> Path:
    """A data folder with a few documents of each benchmark and language."""
    for language, (question, number) in QUESTIONS.items():
        lines(folder / "mgsm" / f"mgsm_{language}.tsv", [f"{question}\t{number}", f"{question} \t0"])
        passage = {"flores_passage": f"Passage ({language}).", "question": "Who? ", "dialect": CODES[language]}
        answers = {f"mc_answer{n}": f"answer {n}" for n in range(1, 5)}
        lines(
            folder / "belebele" / f"{CODES[language]}.jsonl",
            [{**passage, **answers, "correct_answer_num": str(n), "question_number": n} for n in (3, 1)],
        )
        for split in ("dev", "devtest"):
            lines(
                folder / "flores200_dataset" / split / f"{CODES[language]}.{split}",
                [f"{split} {language} {n}." for n in range(1, 7)],
            )
    programs = [
        {
            "task_id": n,
            "text": f"Write a function to add {n}.",
            "code": f"def add(x):\r\n    return x + {n}",
            "test_list": [f"assert add({x}) == {x + n}" for x in (0, 1, 2)],
            "test_setup_code": "",
        }
        for n in (2, 3, 4, 5, 11, 12, 511)
    ]
    lines(folder / "mbpp" / "mbpp.jsonl", programs)
    for split, count in (("test", 2), ("dev", 6)):
        lines(
            folder / "mmlu" / split / f"high_school_physics_{split}.csv",
            [f'"{split} {n}, what?",one,two,three,four,{"ABCD"[n % 4]}' for n in range(count)],
        )
    return folder
