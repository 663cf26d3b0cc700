"""Answers wait for each other on their way to the store, not for long, and none is lost with an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evaluation import gathering
from harness.evaluation.responses import Store


def known(store: Store, *variants: str) -> list[dict[str, object]]:
    return [store.responses(variant, ["a", "b", "c"]) for variant in variants]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_answers_are_there_in_the_end_and_before_if_they_have_waited(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "SECONDS", seconds)
    store = Store(tmp_path / "store.sqlite")
    with gathering.gathering(store) as add:
        add("v", {"a": "1"})
        add("w", {"b": "2"})
        add("v", {"c": "3"})
        assert known(store, "v", "w") == ([{}, {}] if seconds else [{"a": "1", "c": "3"}, {"b": "2"}])
    assert known(store, "v", "w") == [{"a": "1", "c": "3"}, {"b": "2"}]


def test_a_variants_answers_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "SECONDS", 60.0)
    store, written = Store(tmp_path / "store.sqlite"), []
    monkeypatch.setattr(store, "add_responses", lambda variant, answers: written.append((variant, dict(answers))))
    with gathering.gathering(store) as add:
        for request in ("a", "b", "c"):
            add("v", {request: "1"})
    assert written == [("v", {"a": "1", "b": "1", "c": "1"})]


def test_an_exception_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")

    def interrupted() -> None:
        with gathering.gathering(store) as add:
            add("v", {"a": "1"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert known(store, "v") == [{"a": "1"}]


def test_there_may_be_no_store() -> None:
    with gathering.gathering(None) as add:
        add("v", {"a": "1"})
