from __future__ import annotations

from dataclasses import replace

import pytest

from harness import cache, versions
from harness.cache import kept, key_of, source_digest
from harness.evaluation.scores import Sample
from harness.gating import corpus, resampling
from harness.gating.corpus import compare_corpus
from harness.gating.floors import no_worse
from harness.gating.statistics import compare


class Memory:
    """A cache in memory, and what was asked of it."""

    def __init__(self):
        self.texts = {}
        self.found = []
        self.added = []

    def document(self, kind, key):
        text = self.texts.get((kind, key))
        if text is not None:
            self.found.append(kind)
        return text

    def add_document(self, kind, key, text):
        self.texts[kind, key] = text
        self.added.append(kind)


@pytest.fixture
def memory():
    return Memory()


def test_without_a_cache_no_key_is_made():
    def never():
        raise AssertionError

    assert kept(None, "figure", never, lambda: "drawn") == "drawn"


def test_what_is_there_is_not_made_again(memory):
    assert kept(memory, "figure", lambda: "k", lambda: "first") == "first"
    assert kept(memory, "figure", lambda: "k", lambda: "second") == "first"
    assert kept(memory, "comparison", lambda: "k", lambda: "other kind") == "other kind"


def test_a_key_changes_with_value_versions_and_source(monkeypatch):
    key = key_of(["a"], "numpy")
    assert key == key_of(["a"], "numpy")
    assert key_of(["b"], "numpy") != key
    assert key_of(["a"]) != key
    with monkeypatch.context() as patch:
        versions.version_of.cache_clear()
        patch.setattr(versions, "version", lambda package: "0")
        assert key_of(["a"], "numpy") != key
    versions.version_of.cache_clear()
    monkeypatch.setattr(cache, "source_digest", lambda: "edited")
    assert key_of(["a"], "numpy") != key


def test_an_edit_of_the_package_is_another_source_and_of_the_lab_is_not(tmp_path):
    (tmp_path / "lab").mkdir()
    for name in ("a.py", "lab/b.py"):
        (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    first = source_digest(tmp_path)
    (tmp_path / "lab" / "b.py").write_text("x = 2\n", encoding="utf-8")
    source_digest.cache_clear()
    assert source_digest(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n", encoding="utf-8")
    source_digest.cache_clear()
    assert source_digest(tmp_path) != first


def test_a_graded_comparison_is_resampled_once(memory, graded, monkeypatch):
    one, other = graded
    plain = compare(one, other)
    assert compare(one, other, cache=memory) == plain
    monkeypatch.setattr(resampling, "bootstrap", None)
    assert compare(one, other, cache=memory) == plain
    assert no_worse(0.02).verdict(one, other, memory).comparison == plain
    assert (memory.added, memory.found) == (["comparison"], ["comparison"] * 2)


def test_another_confidence_or_another_value_is_resampled_anew(memory, graded):
    one, other = graded
    compare(one, other, cache=memory)
    compare(one, other, 0.9, memory)
    compare(replace(one, values=(*one.values[:-1], 1.0)), other, cache=memory)
    assert memory.added == ["comparison"] * 3


def test_equal_scores_and_right_or_wrong_ones_ask_for_nothing(memory, graded):
    one, other = graded
    compare(one, one, cache=memory)
    right, wrong = (replace(s, graded=False, values=(v,) * s.n) for s, v in ((one, 1.0), (other, 0.0)))
    compare(right, wrong, cache=memory)
    assert not memory.texts


def test_a_corpus_metric_is_resampled_once(memory, graded, monkeypatch):
    one, other = (
        replace(s, samples=tuple(Sample("", f"a {word} {i}", f"a cat {i}") for i in range(s.n)))
        for s, word in zip(graded, ("cat", "dog"), strict=True)
    )
    values = corpus.corpus_bootstrap("chrf", *([s.answer for s in x.samples] for x in (one, other)), targets(one))
    one, other = (replace(s, corpus={"chrf": v}) for s, v in ((one, values.value), (other, values.baseline)))
    plain = compare_corpus(one, other)
    assert len(plain) == 1
    assert compare_corpus(one, other, cache=memory) == plain
    monkeypatch.setattr(corpus, "corpus_bootstrap", None)
    assert compare_corpus(one, other, cache=memory) == plain


def targets(score):
    return [sample.target for sample in score.samples]


@pytest.fixture
def graded():
    from harness.evaluation.scores import Score

    documents = tuple(f"d{i:03}" for i in range(40))
    return tuple(
        Score("flores", "flores en-sw", "chrf", True, documents, tuple((i * k % 37) / 40 for i in range(40)), {})
        for k in (5, 7)
    )
