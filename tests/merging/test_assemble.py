from __future__ import annotations

import pytest
import torch

from harness.errors import LayerswapError
from harness.experts import as_expert
from harness.merging.assemble import Assembler
from harness.plan import Plan, copy
from harness.recipes import Expert, LayerSwap, Placement, Soup, Ties
from tests.merging.models import ARCHITECTURES, LAYERS, tiny_experts

TIED = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)
IDS = torch.arange(1, 17).reshape(2, 8)


def outer(embed: str, head: str) -> Plan:
    return Plan.of(LAYERS, dict(Expert("math").plan(LAYERS).mixes) | {"embed": copy(embed), "head": copy(head)})


@TIED
@EVERY
def test_pure_slots_are_the_experts_own_tensors(architecture, tied, experts_of):
    experts = experts_of(architecture, tied)
    plan = LayerSwap(outer="language").plan(LAYERS)
    variant = Assembler(experts).build(plan)
    from harness.experts import slots_of

    state = variant.state_dict()
    for slot, names in slots_of(variant).items():
        if plan[slot].is_copy:
            theirs = experts[plan[slot].sources[0][0]].model.state_dict()
            assert names
            assert all(state[name].data_ptr() == theirs[name].data_ptr() for name in names)
    assert state.keys() == experts["base"].model.state_dict().keys()


@TIED
@EVERY
def test_swapping_nothing_is_math_everything_is_language_equal_experts_are_the_expert(architecture, tied, experts_of):
    experts = experts_of(architecture, tied)
    assembler = Assembler(experts)
    for recipe, name in (
        (LayerSwap(0, 0, outer="math"), "math"),
        (LayerSwap(bottom=1.0, outer="language"), "language"),
        (LayerSwap(math="base", language="base"), "base"),
    ):
        assert torch.equal(assembler.build(recipe.plan(LAYERS))(IDS).logits, experts[name].model(IDS).logits)


@TIED
@EVERY
def test_a_variant_computes_what_a_model_with_these_weights_computes(architecture, tied, experts_of):
    experts = experts_of(architecture, tied)
    variant = Assembler(experts).build(LayerSwap().plan(LAYERS))
    fresh = type(variant)(experts["base"].model.config)
    fresh.load_state_dict(variant.state_dict())
    assert torch.equal(variant(IDS).logits, fresh.eval()(IDS).logits)
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    generated = variant.generate(IDS, **options)
    assert torch.equal(generated, fresh.generate(IDS, **options))
    assert torch.equal(generated, variant.generate(IDS, use_cache=False, **options))


def test_building_changes_no_expert(experts_of):
    experts = experts_of("llama", True)
    before = {name: {k: v.clone() for k, v in e.model.state_dict().items()} for name, e in experts.items()}
    logits = experts["math"].model(IDS).logits
    assembler = Assembler(experts)
    for recipe in (LayerSwap(), Soup(), Ties(), LayerSwap(outer="base")):
        assembler.build(recipe.plan(LAYERS)).generate(IDS, max_new_tokens=2)
    assembler.build(outer("language", "math")).tie_weights()
    assert torch.equal(experts["math"].model(IDS).logits, logits)
    assert experts["math"].model.config.tie_word_embeddings is True
    for name, expert in experts.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in expert.model.state_dict().items())


def test_averaged_slots_are_computed_once_and_shared(experts_of):
    assembler = Assembler(experts_of("llama", False))
    one, other = assembler.build(LayerSwap().plan(LAYERS)), assembler.build(LayerSwap(top=0).plan(LAYERS))
    assert one.model.layers[1] is other.model.layers[1]
    assert one.model.embed_tokens is other.model.embed_tokens
    assembler.clear()
    assert assembler.build(LayerSwap().plan(LAYERS)).model.layers[1] is not one.model.layers[1]


def test_layers_keep_their_index_for_the_cache(experts_of):
    variant = Assembler(experts_of("llama", True)).build(Placement("exchanged").plan(LAYERS))
    assert [layer.self_attn.layer_idx for layer in variant.model.layers] == list(range(LAYERS))


def test_a_variant_has_a_config_of_its_own_and_no_gradients(experts_of):
    experts = experts_of("llama", True)
    plan = LayerSwap().plan(LAYERS)
    one, other = (Assembler(experts).build(plan) for _ in range(2))
    one.config.use_cache = False
    one.generation_config.max_new_tokens = 3
    assert other.config.use_cache is True
    assert experts["math"].model.config.use_cache is True
    assert experts["math"].model.generation_config.max_new_tokens is None
    assert one.model.config is one.config
    assert plan.digest.startswith(one.config._name_or_path.removeprefix("layerswap:"))
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gemma", "gpt_neox", "gpt2"])
def test_tied_averages_stay_one_tensor_and_distinct_heads_survive_tying(architecture, experts_of):
    assembler = Assembler(experts_of(architecture, True))
    same = assembler.build(LayerSwap().plan(LAYERS))
    assert same.get_output_embeddings().weight is same.get_input_embeddings().weight
    assert same.config.tie_word_embeddings is True
    split = assembler.build(outer("language", "math"))
    head = split.get_output_embeddings().weight.clone()
    split.tie_weights()
    assert split.config.tie_word_embeddings is False
    assert torch.equal(split.get_output_embeddings().weight, head)
    assert not torch.equal(split.get_input_embeddings().weight, head)


def test_a_variant_can_be_saved_by_transformers(experts_of, tmp_path):
    variant = Assembler(experts_of("llama", True)).build(outer("language", "math"))
    variant.save_pretrained(tmp_path)
    loaded = type(variant).from_pretrained(tmp_path)
    assert torch.equal(loaded(IDS).logits, variant(IDS).logits)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_every_variant_reports_each_hidden_state_once(architecture):
    experts = tiny_experts(architecture)
    assembler = Assembler(experts)
    for recipe in (LayerSwap(), LayerSwap(outer="math"), Soup()):
        for _ in range(2):
            assert len(assembler.build(recipe.plan(LAYERS))(IDS, output_hidden_states=True).hidden_states) == LAYERS + 1


def test_hooks_on_a_variant_do_not_reach_the_expert(experts_of):
    experts = experts_of("llama", True)
    called = []
    variant = Assembler(experts).build(LayerSwap().plan(LAYERS))
    variant.model.register_forward_hook(lambda *_: called.append(1))
    experts["math"].model(IDS)
    assert called == []
    variant(IDS)
    assert called == [1]


def bytes_of(assembler: Assembler, plan: Plan) -> int:
    """What a plan's computed tensors take by themselves."""
    alone = Assembler(assembler._experts)
    alone.build(plan)
    return alone.held_bytes


def soup(share: float) -> Plan:
    return Soup((share, 1 - share)).plan(LAYERS)


@TIED
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_computed_slots_stay_within_their_budget(architecture, tied, experts_of):
    experts = experts_of(architecture, tied)
    mixed = soup(0.1).mixes[0][1]
    plans = [soup(share) for share in (0.2, 0.4, 0.6, 0.8)] + [LayerSwap().plan(LAYERS), Ties().plan(LAYERS)]
    # Tied names that are filled differently: the head alone is an average.
    plans += [Plan.of(LAYERS, dict(Expert(name).plan(LAYERS).mixes) | {"head": mixed}) for name in ("math", "base")]
    free = Assembler(experts)
    expected = [free.build(plan)(IDS).logits for plan in plans]
    sizes = [bytes_of(free, plan) for plan in plans]
    largest = max(sizes)
    for budget in (0, 2 * largest):
        assembler = Assembler(experts, budget)
        for plan, size, logits in [*zip(plans, sizes, expected, strict=True)] * 2:
            assert torch.equal(assembler.build(plan)(IDS).logits, logits)
            assert assembler.held_bytes <= max(budget, size)
    assert free.held_bytes > 2 * largest


def test_what_no_variant_has_used_for_longest_goes_first(experts_of):
    experts = experts_of("llama", False)
    size = bytes_of(Assembler(experts), soup(0.2))
    assembler = Assembler(experts, 2 * size)
    first, second = (assembler.build(soup(share)) for share in (0.2, 0.4))
    assert assembler.build(soup(0.2)).model.layers[3] is first.model.layers[3]  # used again
    assembler.build(soup(0.6))
    assert assembler.held_bytes == 2 * size
    assert assembler.build(soup(0.2)).model.layers[3] is first.model.layers[3]
    again = assembler.build(soup(0.4))
    assert again.model.layers[3] is not second.model.layers[3]
    assert torch.equal(again(IDS).logits, second(IDS).logits)  # a variant in use keeps what it has


def test_a_head_that_is_averaged_apart_from_tied_embeddings_is_let_go(experts_of):
    experts = experts_of("llama", True)
    heads = [soup(share).mixes[0][1] for share in (0.2, 0.4, 0.6)]
    assembler = Assembler(experts, 0)
    for mix in heads:
        assembler.build(Plan.of(LAYERS, dict(Expert("math").plan(LAYERS).mixes) | {"head": mix}))
        assert assembler.held_bytes == experts["math"].model.get_input_embeddings().weight.numel() * 4
    assembler.build(Expert("math").plan(LAYERS))
    assert assembler.held_bytes == 0


def test_one_layer_is_a_list_of_the_variants_own():
    experts = tiny_experts("llama", False, num_hidden_layers=1)
    variant = Assembler(experts).build(LayerSwap(outer="language", bottom=0, top=0, transition=0).plan(1))
    assert variant.model.layers is not experts["math"].model.model.layers
    assert variant.model.layers[0] is experts["math"].model.model.layers[0]


def test_whole_model_trimming_uses_one_threshold(experts_of):
    experts = experts_of("llama", True)
    variant = Assembler(experts).build(Ties(0.1, {"math": 1.0}, trim="model").plan(LAYERS))
    start, mine = experts["base"].model, variant.state_dict()
    names = [name for name, _ in start.named_parameters()]
    base, math = start.state_dict(), experts["math"].model.state_dict()
    delta = torch.cat([(math[n] - base[n]).reshape(-1) for n in names]).abs()
    kept = torch.cat([(mine[n] != base[n]).reshape(-1) for n in names])
    cut = delta.sort(descending=True).values[int(0.1 * delta.numel()) - 1]
    assert torch.equal(kept, delta >= cut)


def test_unfitting_plans_are_refused(experts_of):
    assembler = Assembler(experts_of("llama", True))
    with pytest.raises(LayerswapError, match="for 10 layers, the experts have 6"):
        assembler.build(LayerSwap().plan(10))
    with pytest.raises(LayerswapError, match="'nobody' is not loaded: loaded are base, math, language"):
        assembler.build(Expert("nobody").plan(LAYERS))
    with pytest.raises(LayerswapError, match="no experts"):
        Assembler({})


def test_one_expert_is_enough_for_its_own_plan(experts_of):
    math = experts_of("llama", True)["math"]
    assert torch.equal(Assembler({"math": math}).build(Expert("math").plan(LAYERS))(IDS).logits, math.model(IDS).logits)
    assert as_expert("again", math.model).slot_digests == math.slot_digests
