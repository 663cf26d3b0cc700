from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from harness.evaluation import kernels, trees
from harness.evaluation.kernels import LEAST_ROWS, quicken
from harness.evaluation.rows import Cost, pack
from harness.evaluation.sharing import Held, Step, Tensors, Variant, forward
from harness.evaluation.trees import Batch, Row
from harness.evaluation.trials import cost_of
from harness.experts import layers_prefix
from tests.evaluation.architectures import BRANCHING, MODELS, close, model_of

AVX512 = pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="a processor without AVX-512")


def kinds(model: torch.nn.Module) -> set[str]:
    return {type(module).__name__ + str(type(module) is torch.nn.Linear) for module in model.modules()}


@pytest.fixture(params=["intel", "other"])
def maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kernels, "_is_intel", lambda: request.param == "intel")
    return str(request.param)


@AVX512
@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", [5, 33, 60])
def test_logits_are_those_of_the_model_itself(name: str, length: int) -> None:
    plain = model_of(name)
    quick = copy.deepcopy(plain)
    quicken(quick)
    ids = torch.randint(3, 61, (LEAST_ROWS // length + 1, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    with torch.inference_mode():
        assert close(quick(input_ids=ids).logits, plain(input_ids=ids).logits)
        asked = {"input_ids": ids, "attention_mask": mask}
        found, expected = quick(**asked).logits, plain(**asked).logits
    assert close(found[mask.bool()], expected[mask.bool()])


@AVX512
@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize("name", sorted(BRANCHING))
@pytest.mark.parametrize("short", [96, 4])
def test_branching_rows_are_scored_alike(name: str, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rows take the products, long ones torch's own attention."""
    monkeypatch.setattr(kernels, "SHORT", short)
    plain = model_of(name)
    quick = copy.deepcopy(plain)
    quicken(quick)
    stem = list(range(3, 9))
    rows = pack([[*stem, 10, 11, 12], [*stem, 13, 14, 9], [*stem, 10, 15, 9, 9]], Cost(1.0))
    batch = Batch(tuple(Row(rows[0].tokens, rows[0].parents, rows[0].paths) for _ in range(40)))
    tensors = Tensors(batch, [(i, node) for i in range(40) for node in range(len(rows[0]))], 0, "cpu")

    def logits(model: torch.nn.Module) -> torch.Tensor:
        step = Step(Variant("", (), lambda: model), 0, ())
        return forward(model, layers_prefix(model), tensors, Held(), step)

    assert close(logits(quick), logits(plain))


@pytest.mark.parametrize("capability", [torch.backends.cpu.get_cpu_capability(), "AVX2"])
@pytest.mark.parametrize("name", sorted(BRANCHING))
@pytest.mark.parametrize("part", [1, 6])
def test_branches_of_a_row_by_itself_are_computed_apart(
    name: str, part: int, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(kernels, "SHORT", 4)
    monkeypatch.setattr(trees, "PART", part)
    plain = model_of(name)
    quick = copy.deepcopy(plain)
    quicken(quick)
    stem = list(range(3, 9))
    ends = [[10, 11, 12], [13, 14, 9], [10, 15, 9, 9], [16], [17, 18], [17, 19, 20, 21, 22]]
    (row,) = pack([[*stem, *end] for end in ends], Cost(1.0), joined=[len(stem)] * len(ends))
    tensors = Tensors(Batch((row,)), [(0, node) for node in range(len(row))], 0, "cpu")
    parts: list[int] = []
    computed = kernels._by_parts

    def counted(*given: Any) -> torch.Tensor:
        parts.append(len(given[3]))
        return computed(*given)

    monkeypatch.setattr(kernels, "_by_parts", counted)

    def logits(model: torch.nn.Module) -> torch.Tensor:
        return forward(model, layers_prefix(model), tensors, Held(), Step(Variant("", (), lambda: model), 0, ()))

    assert close(logits(quick), logits(plain))
    whole = name in {"gemma2", "gemma3", "qwen2-window"}  # layers see a window, or are not asked by this package
    assert (cost_of(quick).branch is None) == whole
    assert whole or parts == [len(row.parts)] * quick.config.num_hidden_layers
    masks = tensors.masks(plain.config, torch.float32)  # of a model that would not read them
    assert not any(hasattr(mask, "parts") for mask in (masks.values() if isinstance(masks, dict) else [masks]))


@AVX512
@pytest.mark.usefixtures("maker")
def test_the_last_layer_computes_the_positions_that_are_asked_for_only() -> None:
    plain = model_of("llama")
    quick = copy.deepcopy(plain)
    quicken(quick)
    rows = pack([list(range(3, 23)), list(range(23, 38))], Cost(1.0))
    tensors = Tensors(Batch(tuple(rows)), [(0, 19), (1, 2), (0, 4)], 0, "cpu")
    depth = plain.config.num_hidden_layers
    seen: list[torch.Size] = []
    feed = quick.get_submodule(f"{layers_prefix(quick)}{depth - 1}.mlp")
    feed.forward = lambda hidden: seen.append(hidden.shape) or type(feed).forward(feed, hidden)

    def logits(model: torch.nn.Module, held: Held, step: Step) -> torch.Tensor:
        return forward(model, layers_prefix(model), tensors, held, step)

    held, variant = Held(), Variant("", (), lambda: quick)
    expected = logits(plain, Held(), Step(variant, 0, ()))
    assert close(logits(quick, held, Step(variant, 0, (depth,))), expected)
    assert close(logits(quick, held, Step(variant, depth, ())), expected)  # another head on what is held
    assert [tuple(shape) for shape in seen] == [(1, 3, plain.config.hidden_size)]


@AVX512
def test_linear_layers_and_attention_are_replaced_and_gradients_still_flow(maker: str) -> None:
    model = copy.deepcopy(model_of("llama"))
    before = kinds(model)
    quicken(model)
    assert kinds(model) != before
    assert (type(model.lm_head) is torch.nn.Linear) == (maker == "intel")  # whose own products are the faster ones
    assert model.config._attn_implementation == "sdpa_or_products"
    model.requires_grad_(True)
    ids = torch.randint(3, 61, (8, 40), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("listed", "processor", "intel"),
    [
        ("vendor_id : GenuineIntel", "", True),
        ("vendor_id : AuthenticAMD", "", False),
        (None, "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", True),
        (None, "AMD64 Family 25", False),
    ],
)
def test_the_makers_name_is_read_where_the_system_shows_it(listed, processor, intel, monkeypatch):
    def read(*_: object, **__: object) -> str:
        if listed is None:
            raise FileNotFoundError
        return str(listed)

    monkeypatch.setattr(kernels.Path, "read_text", read)
    monkeypatch.setattr(kernels.platform, "processor", lambda: processor)
    assert kernels._is_intel.__wrapped__() is intel


@pytest.mark.parametrize("other", ["processor", "dtype"])
def test_other_processors_and_dtypes_have_their_attention_by_parts_alone(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(model_of("llama"))
    if other == "processor":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    else:
        model = model.to(torch.bfloat16)
    before = kinds(model)
    quicken(model)
    assert (kinds(model), model.config._attn_implementation) == (before, "sdpa_by_parts")


@pytest.mark.parametrize("name", MODELS)
def test_attention_by_parts_alone_gives_a_models_own_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    plain = model_of(name)
    quick = copy.deepcopy(plain)
    quicken(quick)
    ids = torch.randint(3, 61, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    with torch.inference_mode():
        for asked in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
            assert torch.equal(quick(**asked).logits, plain(**asked).logits)
        assert torch.equal(quick.generate(ids, max_new_tokens=4), plain.generate(ids, max_new_tokens=4))


def test_short_rows_get_a_mask_that_is_added_and_long_plain_texts_none() -> None:
    def mask(tokens: int) -> torch.Tensor | None:
        found: torch.Tensor | None = kernels._mask(
            batch_size=1, q_length=tokens, kv_length=tokens, allow_is_causal_skip=True, dtype=torch.float32
        )
        return found

    short = mask(kernels.SHORT)
    assert short is not None
    assert short.is_floating_point()
    assert short[0, 0, 0].eq(0).sum() == 1
    assert mask(kernels.SHORT + 1) is None


@pytest.mark.parametrize("masks", [1, 4])
@pytest.mark.parametrize("rows", [2, LEAST_ROWS])
def test_attention_of_short_rows_is_that_of_torch_with_a_mask_for_all_heads_or_for_each(masks: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((rows, 7, 4, 6), generator=generator).transpose(1, 2)
    key, value = (torch.randn((rows, 7, 2, 6), generator=generator).transpose(1, 2) for _ in range(2))
    mask = torch.randn((rows, masks, 7, 7), generator=generator)
    many = [tensor.repeat_interleave(2, 1) for tensor in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *many, attn_mask=mask, scale=0.3)
    found, _ = kernels._attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_keys_that_heads_share_are_not_repeated_for_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own, product = ALL_ATTENTION_FUNCTIONS["sdpa"], torch.nn.functional.scaled_dot_product_attention
    read: list[tuple[int, ...]] = []

    def noted(query: torch.Tensor, key: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        read.append(tuple(key.shape))
        return product(query, key, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    generator, module = torch.Generator().manual_seed(0), torch.nn.Module()
    key, value = (torch.randn((3, 2, 5, 6), generator=generator) for _ in range(2))
    for tokens, heads in ((1, 8), (2, 8), (1, 2)):
        module.num_key_value_groups = heads // 2  # type: ignore[assignment]
        query = torch.randn((3, heads, tokens, 6), generator=generator)
        mask = torch.randn((3, 1, tokens, 5), generator=generator)
        many = [tensor.repeat_interleave(heads // 2, 1) for tensor in (key, value)]
        expected = product(query, *many, attn_mask=mask, scale=0.3).transpose(1, 2)
        with kernels.grouped():
            found, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, scaling=0.3)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-6)
    assert read[0] == (3, 2, 5, 6)
    with pytest.raises(KeyError), kernels.grouped():
        raise KeyError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
