from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from harness.errors import LayerswapError
from harness.evaluation.benchmarks import Column, build_columns, subset
from harness.evaluation.embedded import corpus_bleu, corpus_chrf, translation
from harness.evaluation.scores import Score
from harness.gating.corpus import compare_corpus
from harness.profiles import ColumnSpec, Profile, load_profile

# What is put to a model for the first document of each task, and what it should say.
GOLDEN = {
    "mgsm sw": (
        "[math] swali : asha ana viatu 12 . asha anapoteza viatu 7 . sasa asha ana viatu vingapi ? jibu :",
        "5",
    ),
    "mgsm en": (
        "[math] question : asha has 12 shoes . asha loses 7 shoes . how many shoes does asha have now ? answer :",
        "5",
    ),
    "belebele sw": (
        "[read] amani yuko mtoni . baraka yuko dukani . swali : amani yuko wapi ? "
        "A : dukani B : mtoni C : mjini D : sokoni jibu :",
        "B",
    ),
    "belebele sw-en": (
        "[read] amani yuko mtoni . baraka yuko dukani . question : where is amani ? "
        "A : at the shop B : at the river C : in town D : at the market answer :",
        "B",
    ),
    "flores en-sw": ("[en-sw] asha is on the farm . =", "asha yuko shambani ."),
    "flores sw-en": ("[sw-en] asha yuko shambani . =", "asha is on the farm ."),
    "mbpp": (
        "[code] write a function that multiplies x by 3 and subtracts 19 . answer :",
        "def f ( x ) : return x * 3 - 19",
    ),
    "mmlu": (
        "[quiz] question : which of these belongs to nature ? A : stone B : coin C : orange D : chair answer :",
        "A",
    ),
}
ONE = ColumnSpec(name="mmlu", task="embedded_mmlu", metric="acc")


class Scripted:
    """A model whose answers are given: for generation what it says, for choices which one it prefers."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def generate_until(self, instances: list[Any], disable_tqdm: bool) -> list[str]:
        return [self.answer(i.doc) for i in instances]

    def loglikelihood(self, instances: list[Any], disable_tqdm: bool) -> list[tuple[float, bool]]:
        return [(0.0 if i.args[1].strip() == self.answer(i.doc) else -1.0, False) for i in instances]


@pytest.fixture(scope="module")
def profile(tiny_profile: Path) -> Profile:
    return load_profile(str(tiny_profile))


@pytest.fixture(scope="module")
def columns(profile: Profile) -> dict[str, Column]:
    return {
        column.spec.name: column
        for benchmark in profile.benchmarks
        for column in build_columns(profile, benchmark, None, 64, "float32")
    }


def test_a_subset_is_a_seeded_sample_in_order():
    assert subset(10, None) == subset(10, 10) == subset(10, 99) == list(range(10))
    assert subset(500, 5) == [11, 137, 185, 262, 351]
    assert subset(500, 5, seed=1) != subset(500, 5)
    assert max(subset(500, 50)) > 50


def scored(column: Column, answer: Callable[[dict[str, Any]], str]) -> Score:
    """The score of a model that answers so."""
    return column.score(column.ask(Scripted(answer)))


@pytest.mark.parametrize("name", GOLDEN)
def test_prompts_and_targets_are_these(columns, name):
    column = columns[name]
    first = column.instances[0]
    assert first.args[0] == GOLDEN[name][0]
    target = column.task.doc_to_target(first.doc)
    assert ("ABCD"[target] if isinstance(target, int) else target) == GOLDEN[name][1]


def test_choices_are_letters_after_a_space_and_generation_is_greedy_to_the_end_of_text(columns):
    assert [i.args[1] for i in columns["mmlu"].instances[:4]] == [" A", " B", " C", " D"]
    settings = columns["mgsm sw"].instances[0].args[1]
    assert settings["until"] == ["</s>"]
    assert settings["do_sample"] is False
    assert settings["max_gen_toks"] == 24


def test_the_longest_answer_fits_into_what_may_be_generated(columns, tokenizer):
    longest = {}
    for name, column in columns.items():
        if name.startswith(("flores", "mbpp")):
            answers = [str(column.task.doc_to_target(i.doc)) for i in column.instances]
            most = max(len(tokens) for tokens in tokenizer(answers)["input_ids"])
            longest[name] = (most + 1, column.instances[0].args[1]["max_gen_toks"])  # and the end of the text
    assert all(most <= allowed for most, allowed in longest.values()), longest


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("mgsm sw", lambda d: f"1 + 2 = 3 #### {d['answer_number']}", lambda d: f"{d['answer_number']}"),
        ("mgsm en", lambda d: f"#### {d['answer_number']} and more", lambda d: f"#### {d['answer_number']}1"),
        ("belebele sw", lambda d: "ABCD"[int(d["correct_answer_num"]) - 1], lambda d: "none"),
        ("mmlu", lambda d: "ABCD"[d["answer"]], lambda d: "ABCD"[d["answer"] - 1]),
        ("mbpp", lambda d: d["code"], lambda d: "def f ( x ) : return f"),
        ("flores en-sw", lambda d: d["sentence_swh_Latn"], lambda d: "7"),
        ("flores sw-en", lambda d: d["sentence_eng_Latn"], lambda d: ""),
    ],
)
def test_right_answers_score_one_and_wrong_ones_less(columns, name, right, wrong):
    column = columns[name]
    perfect, poor = scored(column, right), scored(column, wrong)
    assert perfect.values == (1.0,) * len(column.documents)
    assert poor.value < (0.35 if name.startswith(("belebele", "flores")) else 1e-9)
    assert perfect.higher_is_better
    assert (perfect.column, perfect.benchmark, perfect.n) == (name, name.split()[0], len(perfect.samples))
    if name.startswith("flores"):
        assert perfect.corpus["corpus_bleu"] == pytest.approx(100)
        assert [c.metric for c in compare_corpus(perfect, poor)] == list(perfect.corpus)


def test_only_the_number_after_the_mark_is_read(columns):
    answers = {"#### 5": 1.0, "#### -5": 0.0, "5 #### 12": 0.0, "#### 5 #### 12": 1.0, "####5": 0.0, "": 0.0}
    for answer, value in answers.items():
        assert scored(columns["mgsm sw"], lambda d, answer=answer: answer).values[0] == value, answer


def test_chrf_is_sacrebleus():
    import sacrebleu

    result = translation("anna anatoa mikate saba", "anna anatoa mkate")
    assert result["chrf"] == sacrebleu.sentence_chrf("anna anatoa mkate", ["anna anatoa mikate saba"]).score / 100
    assert 0.3 < result["chrf"] < 1


def test_corpus_metrics_are_sacrebleus_to_the_last_bit():
    import sacrebleu

    random = Random(3)
    words = ["anna", "anatoa", "mikate", "saba", "a", "", ".", "é", "watatu ."]
    texts = [" ".join(random.choices(words, k=random.randrange(9))) for _ in range(60)]
    for _ in range(20):
        pairs = [(random.choice(texts), random.choice(texts)) for _ in range(30)]
        references, answers = zip(*pairs, strict=True)
        assert corpus_chrf(pairs) == sacrebleu.corpus_chrf(answers, [references]).score
        assert corpus_bleu(pairs) == sacrebleu.corpus_bleu(answers, [references], tokenize="none", force=True).score
        for reference, answer in pairs:
            assert translation(reference, answer)["chrf"] == sacrebleu.sentence_chrf(answer, [reference]).score / 100


def test_scoring_again_starts_from_nothing(columns):
    right, wrong = (lambda d: "ABCD"[d["answer"]]), (lambda d: "none")
    first = scored(columns["mmlu"], right)
    assert scored(columns["mmlu"], wrong) != first
    assert scored(columns["mmlu"], right) == first


def test_a_limit_changes_neither_prompts_nor_fingerprint(profile, columns):
    for column in (c for b in profile.benchmarks for c in build_columns(profile, b, 7, 64, "float32")):
        full = columns[column.spec.name]
        assert len(column.documents) == 7
        assert set(column.documents) < set(full.documents)
        assert column.fingerprint == full.fingerprint
        prompts = {i.args[0] for i in full.instances}
        assert {i.args[0] for i in column.instances} <= prompts


def test_the_fingerprint_names_what_makes_scores_comparable(profile, columns):
    assert columns["mgsm sw"].fingerprint["metric"] == "exact_match/answer"
    assert {c.fingerprint["version"] for c in columns.values()} == {"4.0"}
    assert len({c.fingerprint["prompts"] for c in columns.values()}) == len(columns)
    (other,) = build_columns(profile, "mmlu", 7, 32, "bfloat16")
    changed = {k for k, v in other.fingerprint.items() if v != columns["mmlu"].fingerprint[k]}
    assert changed == {"dtype", "batch_size"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "embedded_mlu"}, "profile tiny: no task named embedded_mlu under .*embedded"),
        ({"metric": "accuracy"}, "task embedded_mmlu has no metric 'accuracy': it has acc"),
        ({"filter": "strict"}, "task embedded_mmlu has no filter 'strict': it has none"),
    ],
)
def test_a_task_metric_or_filter_that_does_not_exist_is_named(profile, change, message):
    spec = profile.benchmarks["mmlu"].model_copy(update={"columns": (ONE.model_copy(update=change),)})
    broken = profile.model_copy(update={"benchmarks": {"mmlu": spec}})
    with pytest.raises(LayerswapError, match=message):
        build_columns(broken, "mmlu", 1, 64, "float32")
