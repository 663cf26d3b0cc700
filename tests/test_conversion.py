from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.conversion import converted
from harness.errors import LayerswapError
from harness.profiles import load_profile
from harness.smollm2 import EXPERTS, disturb

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers and random weights as GGUF, with a vocabulary of bytes."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    hidden, width, vocabulary = 32, 64, 259
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(2)
    writer.add_feed_forward_length(width)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(hidden // 4)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    tokens = ["<s>", "</s>", *_byte_letters(), "ab"]
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, *[1] * 257])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32))

    add("token_embd.weight", vocabulary, hidden)
    add("output.weight", vocabulary, hidden)
    add("output_norm.weight", hidden)
    for layer in range(2):
        for name, shape in {
            "attn_q": (hidden, hidden),
            "attn_k": (hidden // 2, hidden),
            "attn_v": (hidden // 2, hidden),
            "attn_output": (hidden, hidden),
            "ffn_gate": (width, hidden),
            "ffn_up": (width, hidden),
            "ffn_down": (hidden, width),
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
        }.items():
            add(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_letters() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def test_a_gguf_file_becomes_a_plain_checkpoint_once(file):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert converted(file, "float32", make=False) is None
    folder = converted(file)
    seen = (folder / "model.safetensors").stat().st_mtime_ns
    assert converted(file, "float32", make=False) == converted(file) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == seen
    plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    ours, given = plain.state_dict(), theirs.state_dict()
    assert set(ours) == set(given)
    assert all((ours[name] == given[name]).all() for name in given)
    assert not hasattr(plain.config, "quantization_config")
    assert AutoTokenizer.from_pretrained(folder)("ab")["input_ids"]


def test_another_dtype_is_another_folder(file):
    from safetensors import safe_open

    folder = converted(file, "auto")
    assert folder != converted(file, "float32")
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        assert str(stored.get_tensor("model.norm.weight").dtype) == "torch.bfloat16"


def test_a_profile_may_name_gguf_files(file, tiny_profile):
    profile = load_profile(str(tiny_profile)).changed({"base": file.name}, at=file.parent)
    assert profile.expert_path("base") == converted(file)


def test_what_is_no_gguf_file_is_named(tmp_path):
    with pytest.raises(LayerswapError, match=r"there is no file '.*none.gguf'"):
        converted(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, or not")
    with pytest.raises(LayerswapError, match=r"bad.gguf' cannot be read as GGUF: "):
        converted(tmp_path / "bad.gguf")


def test_without_the_reader_the_package_is_named(file, monkeypatch):
    monkeypatch.setattr("harness.conversion.find_spec", lambda name: None)
    with pytest.raises(LayerswapError, match=r"install gguf to read it \(pip install gguf\)"):
        converted(file, "float16")


def test_noise_is_seeded_and_on_matrices_only(file, tmp_path):
    from safetensors.torch import load_file

    base = converted(file)
    found: list[dict[str, Any]] = []
    for number, (seed, scale) in enumerate([EXPERTS["math"], EXPERTS["math"], EXPERTS["language"]]):
        (tmp_path / str(number)).mkdir()
        disturb(base, tmp_path / str(number), seed, scale)
        assert {p.name for p in (tmp_path / str(number)).iterdir()} == {p.name for p in base.iterdir()}
        found.append(load_file(tmp_path / str(number) / "model.safetensors"))
    first, again, other = found
    own = load_file(base / "model.safetensors")
    assert all((first[name] == again[name]).all() for name in own)
    assert not (first["model.embed_tokens.weight"] == other["model.embed_tokens.weight"]).all()
    assert (first["model.norm.weight"] == own["model.norm.weight"]).all()
    matrix = "model.layers.0.mlp.up_proj.weight"
    assert float((first[matrix] - own[matrix]).std() / own[matrix].std()) == pytest.approx(EXPERTS["math"][1], rel=0.1)
