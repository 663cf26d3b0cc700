from __future__ import annotations

import gzip

import pytest

from harness.errors import LayerswapError
from harness.evaluation.scores import Sample, Score
from harness.reporting.samples import collect, read_samples, write_samples


def score(column: str, answers: tuple[str, ...], values: tuple[float, ...], documents=("d1", "d2")) -> Score:
    samples = tuple(Sample(f"asked {d}", a, "5") for d, a in zip(documents, answers, strict=True))
    return Score(column.split()[0], column, "exact_match", False, documents, values, {}, samples=samples)


SCORES = {
    "method/layer-swap": {"mgsm sw": score("mgsm sw", ("5", "é\n|"), (1.0, 0.0))},
    "transition/removed": {
        "mgsm sw": score("mgsm sw", ("4", "5"), (0.0, 1.0)),
        "mmlu": score("mmlu", ("", "A"), (0, 1)),
    },
}


def test_samples_come_back_as_written_and_the_same_samples_give_the_same_bytes(tmp_path):
    samples = collect(SCORES, ["mgsm sw", "mmlu", "mbpp"])
    assert [s.column for s in samples] == ["mgsm sw", "mmlu"]
    assert samples[0].answers["method/layer-swap"] == ("5", "é\n|")
    write_samples(samples, tmp_path / "a.jsonl.gz")
    write_samples(samples, tmp_path / "b.jsonl.gz")
    assert read_samples(tmp_path / "a.jsonl.gz") == samples
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_case_with_other_documents_or_without_samples_is_left_out():
    other = {"mgsm sw": score("mgsm sw", ("1", "2"), (0.0, 0.0), ("d1", "d3"))}
    bare = {"mgsm sw": Score("mgsm", "mgsm sw", "exact_match", False, ("d1", "d2"), (0.0, 1.0), {})}
    (samples,) = collect({**SCORES, "x/other": other, "x/bare": bare}, ["mgsm sw"])
    assert list(samples.answers) == ["method/layer-swap", "transition/removed"]


@pytest.mark.parametrize(
    "data", [b"", b"not gzip", gzip.compress(b"{}\n"), gzip.compress(b"[1]\n"), gzip.compress(b"{")]
)
def test_a_damaged_file_is_named(tmp_path, data):
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(data)
    if not data:
        assert read_samples(path) == ()
        return
    with pytest.raises(LayerswapError, match=r"samples\.jsonl\.gz: cannot be read"):
        read_samples(path)


def test_a_file_cut_short_is_named(tmp_path):
    path = tmp_path / "samples.jsonl.gz"
    write_samples(collect(SCORES, ["mgsm sw"]), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LayerswapError, match="cannot be read"):
        read_samples(path)
