from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.evaluation.scores import Score
from harness.gating.floors import Verdict, no_worse
from harness.gating.statistics import compare
from harness.reporting.results import CaseResult, ColumnResult, ParameterChange, RunResult
from harness.reporting.samples import ColumnSamples

COLUMNS = {
    "mgsm sw": (500, False),
    "mgsm en": (500, False),
    "belebele sw": (200, False),
    "belebele sw-en": (200, False),
    "flores en-sw": (200, True),
    "flores sw-en": (200, True),
    "mbpp": (200, False),
    "mmlu": (200, False),
}


def make_score(column: str, skill: float, seed: int) -> Score:
    """Documents are as hard in every model; a model gets those right that are easier than its skill, with noise."""
    n, graded = COLUMNS[column]
    hardness, noise = random.Random(column), random.Random(f"{column} {seed}")
    values = []
    for _ in range(n):
        margin = skill - hardness.random() + noise.gauss(0, 0.05 if seed else 0)
        values.append(min(1.0, max(0.0, 0.5 + margin / 2)) if graded else float(margin > 0))
    return Score(
        benchmark=column.split()[0],
        column=column,
        metric="chrf" if graded else "exact_match",
        graded=graded,
        documents=tuple(f"{column} {i}" for i in range(n)),
        values=tuple(values),
        fingerprint={"task": "1"},
        corpus={"bleu": 12.5} if graded else {},
    )


def make_changes() -> tuple[ParameterChange, ...]:
    """The language expert moved more the nearer a layer is to the ends, the math expert in the middle."""
    rows = []
    for expert, middle in (("language", 0.0), ("math", 1.0), ("math-lora", 0.5)):
        for layer in range(10):
            share = 0.001 + 0.01 * abs(middle - abs(layer - 4.6) / 5)
            for kind in ("self_attn.q_proj", "mlp.down_proj"):
                rows.append(ParameterChange(expert, f"layers.{layer}", kind, 64, share, 20 * share))
            rows.append(ParameterChange(expert, f"layers.{layer}", "input_layernorm", 8, 0.0, 0.0))
        rows.append(ParameterChange(expert, "norm", "norm", 8, 0.0, None))
    return tuple(rows)


def make_run() -> RunResult:
    skills = {
        ("method", "layer-swap"): (0.60, 0, "T|LLTMMMMMTL|TT"),
        ("method", "base"): (0.45, 1, "B|BBBBBBBBBB|BB"),
        ("method", "expert-math"): (0.61, 2, "M|MMMMMMMMMM|MM"),
        ("method", "soup"): (0.72, 3, "T|TTTTTTTTTT|TT"),
        ("transition", "removed"): (0.60, 0, "T|LLMMMMMMML|TT"),
        ("transition", "math-instead"): (0.50, 4, "T|LLMMMMMMML|TT"),
    }
    method = {column: make_score(column, 0.60, 0) for column in COLUMNS}
    cases = []
    for (family, case), (skill, seed, drawing) in skills.items():
        columns = {}
        for column in COLUMNS:
            score = make_score(column, skill, seed)
            outcome = no_worse(0.02).verdict(score, method[column])
            # An ablation may hurt: in the method's family nothing is held against the method.
            verdict = Verdict.NEW if family == "method" else outcome.verdict
            columns[column] = ColumnResult(
                value=score.value,
                n=score.n,
                metric=score.metric,
                verdict=verdict,
                reason=outcome.reason,
                corpus=score.corpus,
                versus_method=None if case == "layer-swap" else compare(score, method[column]),
                seconds=0.25,
            )
        cases.append(
            CaseResult(
                family, case, f"{case} of it", f"Recipe({case!r})", drawing, "embed: math", f"{case:0<64}", columns
            )
        )
    return RunResult(
        name="example",
        profile="embedded",
        columns=tuple(COLUMNS),
        reference="method/layer-swap",
        cases=tuple(cases),
        comparators={"base": "method/base", "math expert": "method/expert-math", "soup": "method/soup"},
        experts={"base": "0" * 64, "math": "1" * 64},
        versions={"torch": "2.13", "lm-eval": "0.4.13"},
        header={"device": "cpu", "dtype": "float32"},
        provenance={"accepted results": "ablations/baselines/embedded.json"},
        seconds={"merge": 1.25, "evaluate": 30.0},
        changes=make_changes(),
    )


@pytest.fixture(scope="session")
def run() -> RunResult:
    return make_run()


HOSTILE = (
    "<script>document.title = 'hacked'</script>",
    "</script><img src=x onerror=\"document.title='hacked'\">",
    "`code` | pipe \u2028 \u2029 <!-- ${document.title} {{ run }} \x00 &amp; ' \"",
)


def make_samples(run: RunResult, column: str = "mgsm sw", hostile: bool = True) -> ColumnSamples:
    """Answers to every document of ``column``; the first three documents of all are hostile text."""
    values = {}
    for case in run.cases:
        seed, skill = {"removed": (0, 0.6), "layer-swap": (0, 0.6), "base": (1, 0.45)}.get(case.case, (3, 0.72))
        values[case.case_id] = make_score(column, skill, seed).values
    n = COLUMNS[column][0]
    text = [HOSTILE[i] if hostile and i < len(HOSTILE) else f"document {i}" for i in range(n)]
    answers = {
        case: tuple(f"{text[i]} = {value:.3f}" if value else f"{text[i]} by {case}" for i, value in enumerate(found))
        for case, found in values.items()
    }
    documents = tuple(f"{i:012x}" for i in range(n))
    return ColumnSamples(column, documents, tuple(f"asked {t}" for t in text), tuple(text), answers, values)


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def samples_of() -> Callable[..., ColumnSamples]:
    return make_samples


@pytest.fixture(scope="session")
def samples(run: RunResult) -> tuple[ColumnSamples, ...]:
    return make_samples(run), make_samples(run, "flores en-sw")
