from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.digests import FileCache, default_cache, remember, slot_digests, start_folder_digest
from harness.errors import LayerswapError
from harness.experts import load_expert
from harness.identity import folder_digest
from harness.merging.storage import read_depth
from tests.merging.models import ARCHITECTURES, LAYERS, tiny_model

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "harness" / "lab" / "weights"


class Kept(dict):
    """A cache in memory."""

    def document(self, kind: str, key: str) -> str | None:
        return self.get((kind, key))

    def add_document(self, kind: str, key: str, text: str) -> None:
        self[kind, key] = text


def same(found, expert) -> bool:
    return found is not None and (dict(found[0]), found[1]) == (dict(expert.slot_digests), expert.config_digest)


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama", True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EMBEDDED.glob("*/config.json")))
def test_embedded_experts_have_the_digests_of_loading(name):
    expert = load_expert(name, EMBEDDED / name, "float32")
    assert same(slot_digests(EMBEDDED / name, "float32"), expert)
    assert same(slot_digests(EMBEDDED / name, "auto"), expert)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen3", "gemma2"])
def test_other_architectures_have_the_digests_of_loading(architecture, tied, tmp_path):
    model = tiny_model(architecture, tied)
    for dtype in ("float32", "bfloat16"):
        folder = tmp_path / dtype
        (model if dtype == "float32" else model.bfloat16()).save_pretrained(folder, max_shard_size="40KB")
        found = slot_digests(folder, dtype)
        assert same(found, load_expert("x", folder, dtype))
        assert found == slot_digests(folder, "auto")
        assert read_depth(folder) == LAYERS


@pytest.mark.parametrize("flag", ["attention_bias", "mlp_bias"])
def test_biases_that_the_config_asks_for_count(flag, tmp_path):
    tiny_model("llama", False, **{flag: True}).save_pretrained(tmp_path)
    assert same(slot_digests(tmp_path, "auto"), load_expert("x", tmp_path))


def test_what_only_loading_can_tell_is_left_to_it(folder, tmp_path):
    assert slot_digests(folder, "bfloat16") is None
    config = json.loads((folder / "config.json").read_text())
    for change in ({"transformers_version": "4.50.0"}, {"model_type": "another"}, {"quantization_config": {}}):
        (folder / "config.json").write_text(json.dumps(config | change))
        assert slot_digests(folder, "auto") is None, change
    (folder / "config.json").write_text("{")
    assert slot_digests(folder, "auto") is None
    assert slot_digests(tmp_path / "nowhere", "auto") is None
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert slot_digests(folder, "auto") is None


def test_digests_are_kept_while_files_are_the_same(folder, monkeypatch):
    cache = Kept()
    first = slot_digests(folder, "auto", cache=cache)
    monkeypatch.setattr("harness.digests._from_files", lambda *_: None)
    assert slot_digests(folder, "auto", cache=cache) == first
    assert slot_digests(folder, "float32", cache=cache) is None  # another question
    os.utime(folder / "model.safetensors", (1, 1))
    assert slot_digests(folder, "auto", cache=cache) is None


def test_another_folder_or_config_is_another_key(folder, tmp_path, monkeypatch):
    cache = Kept()
    slot_digests(folder, "auto", cache=cache)
    monkeypatch.setattr("harness.digests._from_files", lambda *_: None)
    shutil.copytree(folder, tmp_path / "copy")
    assert slot_digests(tmp_path / "copy", "auto", cache=cache) is None
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert slot_digests(folder, "auto", cache=cache) is None


def test_a_damaged_entry_is_not_used(folder):
    cache = Kept()
    first = slot_digests(folder, "auto", cache=cache)
    for key in list(cache):
        cache[key] = "{}"
    assert slot_digests(folder, "auto", cache=cache) == first


def test_loaded_experts_are_remembered(folder):
    cache = Kept()
    expert = load_expert("x", folder, "bfloat16")
    remember(folder, "bfloat16", None, cache, expert)
    assert same(slot_digests(folder, "bfloat16", cache=cache), expert)


def test_an_adapters_digests_depend_on_its_base(folder, tmp_path):
    peft = pytest.importorskip("peft")
    adapter = tmp_path / "adapter"
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(tiny_model("llama", True), config).save_pretrained(adapter)
    cache = Kept()
    assert slot_digests(adapter, "auto", folder, cache) is None
    expert = load_expert("x", adapter, base_path=folder)
    remember(adapter, "auto", folder, cache, expert)
    assert same(slot_digests(adapter, "auto", folder, cache), expert)
    os.utime(folder / "model.safetensors", (1, 1))
    assert slot_digests(adapter, "auto", folder, cache) is None


def test_a_folders_digest_is_computed_once(folder, tmp_path, monkeypatch):
    cache = FileCache(tmp_path / "cache")
    expected = folder_digest(folder)
    assert start_folder_digest(folder)() == expected
    assert start_folder_digest(folder, cache)() == expected
    monkeypatch.setattr("harness.digests.folder_digest", lambda path: "anew")
    assert start_folder_digest(folder, cache)() == expected
    assert start_folder_digest(folder)() == "anew"


def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    cache = FileCache(tmp_path / "file")
    cache.add_document("kind", "key", "text")
    assert cache.document("kind", "key") is None


def test_the_default_cache_is_where_it_is_asked_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERSWAP_CACHE", str(tmp_path))
    default_cache().add_document("kind", "key", "text")
    assert (tmp_path / "digests" / "kind" / "key").read_text() == "text"


def test_the_depth_of_what_is_no_model_is_an_error(folder, tmp_path):
    with pytest.raises(LayerswapError, match=r"no config\.json"):
        read_depth(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(LayerswapError, match=r"config\.json: not JSON"):
        read_depth(folder)


def test_neither_digests_nor_swaps_import_torch(tmp_path):
    script = """
import sys
from pathlib import Path
from harness.digests import slot_digests
from harness.merging.checkpoint import write_checkpoint
from harness.merging.storage import read_depth
from harness.recipes import LayerSwap
weights = Path(sys.argv[1])
experts = {name: weights / name for name in ("math", "language")}
slot_digests(experts["math"], "float32")
layers = read_depth(experts["math"])
write_checkpoint(LayerSwap(transition=0, outer="math").plan(layers), experts, sys.argv[2] + "/swap")
assert not {"torch", "transformers", "numpy"} & set(sys.modules), "a swap"
write_checkpoint(LayerSwap().plan(layers), experts, sys.argv[2] + "/mixed")
assert not {"torch", "transformers"} & set(sys.modules), "averages"
"""
    subprocess.run([sys.executable, "-c", script, str(EMBEDDED), str(tmp_path)], check=True, cwd=ROOT)
