"""The embedded benchmarks in plain words, for models that have not learnt the embedded ones' marks."""

from __future__ import annotations

from typing import Any

import pytest

from harness.evaluation.benchmarks import Column, build_columns
from harness.evaluation.editions import data_files
from harness.profiles import EMBEDDED_TASKS, SHIPPED_TASKS, load_profile

# The first document's prompt, a right answer to it and a wrong one.
GOLDEN: dict[str, tuple[str, Any, Any]] = {
    "mgsm en": (
        "Question: asha has 12 shoes . asha loses 7 shoes . how many shoes does asha have now ?\nAnswer:",
        " 12 - 7 = 5",
        " 5 of 12",
    ),
    "mgsm sw": (
        "Swali: asha ana viatu 12 . asha anapoteza viatu 7 . sasa asha ana viatu vingapi ?\nJibu:",
        " 5",
        " tano",
    ),
    "belebele sw": (
        "P: amani yuko mtoni . baraka yuko dukani .\nQ: amani yuko wapi ?\n"
        "A: dukani\nB: mtoni\nC: mjini\nD: sokoni\nAnswer:",
        1,
        0,
    ),
    "flores en-sw": ("English: asha is on the farm .\nSwahili:", "asha yuko shambani .", "7"),
    "flores sw-en": ("Swahili: asha yuko shambani .\nEnglish:", "asha is on the farm .", "7"),
    "mbpp": (
        "# write a function that multiplies x by 3 and subtracts 19 .\n# assert f(3) == -10\ndef f(x):",
        "\n    return x * 3 - 19",
        " return x",
    ),
    "mmlu": (
        "which of these belongs to nature ?\nA. stone\nB. coin\nC. orange\nD. chair\nAnswer:",
        0,
        3,
    ),
}


@pytest.fixture(scope="module")
def columns() -> dict[str, Column]:
    profile = load_profile("smollm2-135m")
    return {c.spec.name: c for b in profile.benchmarks for c in build_columns(profile, b, None, 8, "float32")}


def test_every_task_is_in_the_profile(columns):
    assert set(columns) == set(GOLDEN)
    files = (SHIPPED_TASKS / "small").glob("*.yaml")
    assert {c.spec.task for c in columns.values()} == {f"small_{path.stem}" for path in files}


@pytest.mark.parametrize("name", GOLDEN)
def test_prompts_are_these_and_answers_are_read(columns, name):
    column, (prompt, right, wrong) = columns[name], GOLDEN[name]
    assert column.instances[0].args[0] == prompt

    def value(answer: Any) -> float:
        if isinstance(answer, int):
            choices = [[(float(i.idx == answer), False)] for i in column.instances]
            return column.score([choice[0] for choice in choices]).values[0]
        return column.score([answer, *[""] * (len(column.instances) - 1)]).values[0]

    assert value(right) == 1.0
    assert value(wrong) < 0.1


def test_their_data_is_the_embedded_benchmarks():
    profile = load_profile("smollm2-135m")
    found = data_files(profile, [])
    assert found == sorted((EMBEDDED_TASKS / "data").glob("*.jsonl"))
