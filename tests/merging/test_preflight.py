from __future__ import annotations

import json

import pytest

from harness.digests import FileCache
from harness.errors import LayerswapError
from harness.experts import as_expert
from harness.files import read_object
from harness.merging.preflight import preflight
from tests.merging.models import save_experts, tiny_experts, tiny_model, write_tokenizer


def expert(architecture="llama", tied=True, **changes):
    return as_expert("x", tiny_model(architecture, tied, 5, **changes))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: expert("mistral"), r"architecture \(LlamaForCausalLM against MistralForCausalLM\)"),
        (lambda: expert(num_hidden_layers=4), r"depth \(6 against 4\).*tensors that it lacks: model\.layers\.4\."),
        (
            lambda: expert(vocab_size=64),
            r"vocabulary \(61 against 64\).*embed_tokens.weight: \[61, 32\] against \[64, 32\]",
        ),
        (lambda: expert(tied=False), r"tied embeddings \(True against False\).*only it has: lm_head\.weight"),
        (lambda: expert(intermediate_size=40), r"config intermediate_size \(48 against 40\); shape of .* and 13 more"),
        (lambda: expert(rms_norm_eps=1e-3), r"config rms_norm_eps \(.*0\.001\)"),
        (lambda: as_expert("x", tiny_model("llama", True, 5).bfloat16()), r"dtype of .*float32 against bfloat16"),
    ],
)
@pytest.mark.parametrize("on_disk", [False, True], ids=["loaded", "folders"])
def test_differences_are_named(other, message, on_disk, experts_of, tmp_path):
    experts = {"base": experts_of("llama", True)["base"], "math": other()}
    sources = save_experts(experts, tmp_path) if on_disk else experts
    with pytest.raises(LayerswapError, match=f"cannot be merged: math differs from base in .*{message}") as caught:
        preflight(sources)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_fitting_experts_pass_loaded_on_disk_and_mixed(architecture, experts_of, tmp_path):
    experts = experts_of(architecture, False)
    folders = save_experts(experts, tmp_path)
    preflight(experts)
    preflight(folders)
    preflight({"math": experts["math"]})


def test_a_loaded_expert_fits_its_own_folder(experts_of, tmp_path):
    experts = experts_of("llama", True)
    folders = save_experts(experts, tmp_path)
    preflight({"base": folders["base"], "math": experts["math"]})


def test_without_a_base_the_first_expert_is_the_reference_and_all_are_named(experts_of):
    sources = {"math": experts_of("llama", True)["math"], "a": expert(num_hidden_layers=4), "b": expert(vocab_size=64)}
    with pytest.raises(LayerswapError, match=r"a differs from math in depth.*b differs from math in vocabulary"):
        preflight(sources)


def test_tokenizers_are_compared_part_by_part(tmp_path):
    folders = save_experts(tiny_experts(), tmp_path)
    preflight(folders)
    write_tokenizer(folders["math"], words=60)
    with pytest.raises(LayerswapError, match=r"math differs from base in tokenizer \(model\)$"):
        preflight(folders)
    (folders["math"] / "tokenizer.json").unlink()
    preflight(folders)


def test_settings_that_do_not_touch_the_weights_may_differ(tmp_path):
    folders = save_experts(tiny_experts(), tmp_path)
    config = json.loads((folders["math"] / "config.json").read_text())
    config |= {"use_cache": False, "eos_token_id": 7, "max_position_embeddings": 128, "transformers_version": "4.0"}
    (folders["math"] / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folders["math"] / "tokenizer.json").read_text())
    tokenizer["padding"] = None
    (folders["math"] / "tokenizer.json").write_text(json.dumps(tokenizer))
    preflight(folders)


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(LayerswapError, match=r"no config\.json"):
        preflight({"base": tmp_path, "math": tmp_path})


def test_a_sound_tokenizer_is_read_once_and_again_when_it_changed(tmp_path, monkeypatch):
    experts = tiny_experts()
    folders = save_experts({name: experts[name] for name in ("math", "language")}, tmp_path / "experts")
    for folder in folders.values():
        write_tokenizer(folder, words=50)
    read = []

    def noted(path):
        read.append(path)
        return read_object(path)

    monkeypatch.setattr("harness.merging.claims.read_object", noted)
    cache = FileCache(tmp_path / "cache")
    for _ in range(2):
        preflight(folders, cache)
    assert [path.name for path in read].count("tokenizer.json") == 1
    for folder in folders.values():
        (folder / "tokenizer.json").write_text('{"cut off": ')
    with pytest.raises(LayerswapError, match=r"tokenizer\.json: not JSON"):
        preflight(folders, cache)
