from __future__ import annotations

import json

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from harness.errors import LayerswapError
from harness.experts import LoadedExpert, as_expert, canonical_names, load_expert, slots_of
from harness.identity import config_digest, folder_digest, identity
from harness.merging.assemble import Assembler
from harness.plan import Plan, slot_names
from harness.recipes import DareTies, Expert, LayerSwap, Soup, Ties
from tests.merging.models import ARCHITECTURES, LAYERS, tiny_experts, tiny_model


@pytest.fixture
def folder(tmp_path):
    tiny_model("llama", True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_slots_hold_every_tensor_once(architecture, tied):
    model = tiny_model(architecture, tied)
    slots = slots_of(model)
    assert tuple(slots) == slot_names(LAYERS)
    assert sorted(name for names in slots.values() for name in names) == sorted(model.state_dict())
    assert all(slots.values())
    for index in range(LAYERS):
        assert all(f".{index}." in name for name in slots[f"layers.{index}"])
    assert len({len(slots[f"layers.{i}"]) for i in range(LAYERS)}) == 1
    head, embed = slots["head"][0], slots["embed"][0]
    assert (canonical_names(model)[head] == embed) == tied


def test_position_embeddings_belong_to_the_embeddings():
    assert slots_of(tiny_model("gpt2", True))["embed"] == ("transformer.wte.weight", "transformer.wpe.weight")
    opt = OPTForCausalLM(OPTConfig(vocab_size=20, hidden_size=8, ffn_dim=8, num_hidden_layers=2, num_attention_heads=2))
    assert slots_of(opt)["norm"] == ("model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias")
    assert slots_of(opt)["embed"] == ("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight")


def test_an_encoder_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_ff=8, d_kv=4, num_layers=2, num_heads=2))
    with pytest.raises(LayerswapError, match="encoder-decoder"):
        slots_of(model)


def test_a_loaded_expert_is_the_saved_model(folder):
    expert = load_expert("math", folder)
    original = as_expert("original", tiny_model("llama", True))
    assert isinstance(expert, LoadedExpert)
    assert (expert.name, expert.path, expert.layers) == ("math", folder, LAYERS)
    assert expert.slot_digests == original.slot_digests
    assert expert.config_digest == original.config_digest
    assert not expert.model.training
    assert not any(parameter.requires_grad for parameter in expert.model.parameters())


def test_weights_are_converted_on_request(folder):
    half = load_expert("math", folder, "bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.slot_digests["norm"] != load_expert("math", folder).slot_digests["norm"]


def test_digests_tell_slots_apart():
    one = as_expert("one", tiny_model("llama", True))
    model = tiny_model("llama", True)
    with torch.no_grad():
        model.model.layers[3].mlp.up_proj.weight[0, 0] += 1e-3
    other = as_expert("other", model)
    assert [slot for slot in one.slot_digests if one.slot_digests[slot] != other.slot_digests[slot]] == ["layers.3"]
    assert one.slot_digests["head"] == one.slot_digests["embed"]


def test_the_folder_digest_follows_the_files(folder):
    before = folder_digest(folder)
    assert before == folder_digest(folder)
    (folder / "notes.txt").write_text("not part of it")
    assert before == folder_digest(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1.0}))
    assert before != folder_digest(folder)


def test_the_config_digest_ignores_what_does_not_compute():
    config = {"hidden_size": 8, "text_config": {"rope_theta": 1.0, "use_cache": True}}
    same = {"text_config": {"rope_theta": 1.0, "use_cache": False}, "hidden_size": 8, "_name_or_path": "somewhere"}
    assert config_digest(config) == config_digest(same)
    assert config_digest(config) != config_digest(config | {"hidden_size": 9})


@pytest.fixture(scope="module")
def experts():
    """The usual three, and a twin: equal weights under another name."""
    return tiny_experts() | {"twin": as_expert("twin", tiny_model("llama", True, 1, 0.2))}


class TestIdentity:
    def of(self, recipe, experts, dtype="float32"):
        return identity(recipe.plan(LAYERS), experts, dtype)

    def test_swapping_nothing_is_the_math_expert(self, experts):
        math = self.of(Expert("math"), experts)
        assert self.of(LayerSwap(0, 0, outer="math"), experts) == math
        assert self.of(LayerSwap(language="math"), experts) == math
        assert self.of(LayerSwap(), experts) != math

    def test_names_do_not_matter(self, experts):
        assert self.of(Expert("twin"), experts) == self.of(Expert("math"), experts)
        assert self.of(LayerSwap(math="twin"), experts) == self.of(LayerSwap(), experts)
        both = [Ties(0.3, {name: 1.0, "language": 1.0}, trim="model") for name in ("math", "twin")]
        assert self.of(both[0], experts) == self.of(both[1], experts)

    def test_except_where_the_weights_depend_on_them(self, experts):
        both = [DareTies(0.3, {name: 1.0, "language": 1.0}) for name in ("math", "twin")]
        assert self.of(both[0], experts) != self.of(both[1], experts)

    def test_everything_that_changes_the_weights_matters(self, experts):
        recipes = [LayerSwap(), LayerSwap(transition=0), LayerSwap(weights=(1, 3)), Soup(), Soup((1, 2))]
        recipes += [Ties(0.3), Ties(0.4), Ties(0.3, trim="model"), DareTies(seed=1), DareTies(seed=2)]
        identities = {self.of(recipe, experts) for recipe in recipes} | {self.of(LayerSwap(), experts, "bfloat16")}
        assert len(identities) == len(recipes) + 1

    def test_a_whole_model_threshold_depends_on_every_slot(self, experts):
        model = tiny_model("llama", True, 1, 0.2)
        with torch.no_grad():
            model.model.layers[3].mlp.up_proj.weight.mul_(2)
        changed = experts | {"math": as_expert("math", model)}
        trimmed = {"layers.0": Ties(0.3, trim="model").plan(LAYERS)["layers.0"]}
        only_first = Plan.of(LAYERS, dict(Expert("base").plan(LAYERS).mixes) | trimmed)
        assert identity(only_first, experts, "float32") != identity(only_first, changed, "float32")

    def test_another_architecture_is_another_identity(self, experts):
        slower = {"math": as_expert("math", tiny_model("llama", True, 1, 0.2, rms_norm_eps=1e-2))}
        assert self.of(Expert("math"), slower) != self.of(Expert("math"), experts)


class TestErrors:
    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(LayerswapError, match="expert 'math': there is no folder"):
            load_expert("math", tmp_path / "nothing")

    def test_a_missing_config(self, tmp_path):
        with pytest.raises(LayerswapError, match=r"no config\.json"):
            load_expert("math", tmp_path)

    def test_pickled_weights_only(self, folder):
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        with pytest.raises(LayerswapError, match=r"only pickled weights: pytorch_model\.bin .*convert it"):
            load_expert("math", folder)

    def test_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(LayerswapError, match="has no safetensors weights"):
            load_expert("math", folder)

    def test_missing_tensors_are_not_made_up(self, folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        del state["model.norm.weight"]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(LayerswapError, match=r"1 tensors are missing .* model\.norm\.weight"):
            load_expert("math", folder)

    def test_an_unknown_architecture(self, folder):
        (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
        with pytest.raises(LayerswapError, match="cannot be loaded"):
            load_expert("math", folder)

    def test_a_damaged_file(self, folder):
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
        with pytest.raises(LayerswapError, match="is cut off or no safetensors file"):
            load_expert("math", folder)

    def test_an_unknown_dtype(self, folder):
        with pytest.raises(LayerswapError, match="unknown dtype 'int8'"):
            load_expert("math", folder, "int8")


class TestAdapters:
    @pytest.fixture
    def adapter(self, folder, tmp_path):
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(tiny_model("llama", True), config)
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_an_adapter_is_merged_into_its_base(self, adapter, folder):
        base, merged = load_expert("base", folder), load_expert("lora", adapter, base_path=folder)
        before, after = base.model.state_dict(), merged.model.state_dict()
        assert before.keys() == after.keys()
        changed = {name.rsplit(".", 2)[1] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"q_proj", "up_proj"}
        assert merged.config_digest == base.config_digest

    def test_merging_it_gives_what_merging_after_peft_gives(self, adapter, folder):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(folder)
        unloaded = as_expert("lora", PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload())
        base, ours = load_expert("base", folder), load_expert("lora", adapter, base_path=folder)
        plan = Soup({"base": 0.5, "lora": 0.5}).plan(LAYERS)
        merged, expected = (Assembler({"base": base, "lora": lora}).build(plan) for lora in (ours, unloaded))
        for name, tensor in expected.state_dict().items():
            assert torch.allclose(merged.state_dict()[name], tensor, rtol=0, atol=1e-6), name

    def test_it_needs_its_base(self, adapter):
        with pytest.raises(LayerswapError, match="'lora' is an adapter: give the folder of its base model"):
            load_expert("lora", adapter)

    def test_it_needs_peft(self, adapter, folder, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "peft", None)
        with pytest.raises(LayerswapError, match="install peft"):
            load_expert("lora", adapter, base_path=folder)

    def test_it_needs_safetensors(self, adapter, folder):
        (adapter / "adapter_model.safetensors").unlink()
        with pytest.raises(LayerswapError, match=r"has no adapter_model\.safetensors"):
            load_expert("lora", adapter, base_path=folder)
