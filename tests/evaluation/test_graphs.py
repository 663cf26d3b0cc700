"""Steps of decoding in buffers of a fixed size, as CUDA graphs replay them; here without a graph."""

from __future__ import annotations

import copy
from functools import wraps
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypotheses
from hypothesis import strategies as st

from harness.evaluation.decoding import Ending, Limits, greedy
from harness.evaluation.graphs import ALIGNED, Graphs
from harness.evaluation.grid import Grid, Settings
from harness.evaluation.requests import Stop
from harness.evaluation.steps import Steps
from harness.evaluation.trials import can_step
from harness.profiles import load_profile
from harness.recipes import Expert, LayerSwap
from tests.evaluation.architectures import MODELS, config_of, model_of, variants_of
from tests.evaluation.asking import encoded, questions, words
from tests.evaluation.test_engine import FEW, asked, collecting, engine_of, prompts_of

STEPPED = ("llama", "llama-tied", "qwen2", "qwen3", "mistral", "phi3", "gpt_neox", "gpt2", "opt", "falcon")
FIVE = Limits(5, 10_000)
Case = tuple[list[list[int]], list[Stop]]


def case_of(seed: int, count: int = 8, most: int = 40) -> Case:
    """Prompts of many lengths, half of seeds all beginning alike, and answers that end at different times."""
    random = Random(seed)
    stem = [random.randrange(5, 61) for _ in range(20)]
    prompts, stops = [], []
    for i in range(count):
        tail = [random.randrange(5, 61) for _ in range(random.randrange(1, 9))]
        prompts.append([*stem * (seed % 2 or i % 2), *tail])
        ends = tuple(random.sample(range(2, 61), random.randrange(4)))
        stops.append(Stop(("w7 w8",), ends, random.randrange(1, most)))
    return prompts, stops


def written(model: Any, case: Case, graphs: Graphs | None, limits: Limits = FIVE) -> list[list[int]]:
    prompts, stops = case
    ends = {stop: Ending(words(), stop) for stop in stops}
    found: dict[int, list[int]] = {}
    greedy(model, prompts, [[]] * len(prompts), [ends[stop] for stop in stops], 0, limits, found.update, graphs)
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in sorted(found)]


def is_step(options: Any) -> bool:
    """Whether these are the arguments of a step in buffers."""
    mask = options.get("attention_mask")
    return mask is not None and mask.dim() == 4


def shapes(model: Any, run: Any) -> list[tuple[int, int]]:
    """Rows and columns of the masks of the steps that ``run`` takes in buffers."""
    found: list[tuple[int, int]] = []

    def note(_: Any, __: Any, options: Any) -> None:
        if is_step(options):
            found.append((options["attention_mask"].shape[0], options["attention_mask"].shape[3]))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_it_is_known_which_models_can_be_asked_so(name):
    assert can_step(model_of(name)) is (name in STEPPED)


def test_a_model_whose_attention_depends_on_the_masks_form_is_found_out():
    from transformers import AutoModelForCausalLM

    config = config_of("falcon")
    config.alibi = True
    assert not can_step(AutoModelForCausalLM.from_config(config).eval())


def test_a_model_that_counts_what_it_has_seen_is_found_out(monkeypatch):
    model = copy.deepcopy(model_of("llama"))
    own = model.forward

    @wraps(own)
    def forward(**options: Any) -> Any:
        past = options.get("past_key_values")
        seen = {} if past is None else {"position_ids": options["position_ids"] * 0 + past.get_seq_length()}
        return own(**(options | seen))

    assert can_step(model)
    monkeypatch.setattr(model, "forward", forward)
    assert not can_step(model)


@pytest.mark.parametrize("name", STEPPED)
def test_answers_are_those_of_plain_decoding(name):
    model = model_of(name)
    for seed in (1, 2):
        case = case_of(seed)
        for graphs in (Graphs(room=1, least=1, worth=1), Graphs(room=20, least=5, worth=40), Graphs()):
            assert written(model, case, graphs) == written(model, case, None)
            assert graphs.plain > 0
            assert not graphs.failed


def record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has steps captured on this device as lists of torch's operations, with all that is not a tensor as it was."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map_only

    class Recording(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.done: list[Any] = []

        def __torch_dispatch__(self, function: Any, _: Any, arguments: Any = (), options: Any = None) -> Any:
            result = function(*arguments, **(options or {}))
            self.done.append((function, arguments, options or {}, result))
            return result

        def replay(self) -> None:
            anew: dict[int, Any] = {}

            def current(tensor: Any) -> Any:
                return anew.get(id(tensor), tensor)

            for function, arguments, options, before in self.done:
                arguments, options = tree_map_only(torch.Tensor, current, (arguments, options))
                after = function(*arguments, **options)
                anew |= {id(a): b for a, b in zip(tree_leaves(before), tree_leaves(after), strict=True)}

        def reset(self) -> None:
            self.done.clear()

    def capture(steps: Steps) -> None:
        state = steps._ids, steps._positions, steps._place, steps._mask
        before = [tensor.clone() for tensor in state]
        with Recording() as graph:
            steps.forward()
        for tensor, was in zip(state, before, strict=True):  # a capture takes no step
            tensor.copy_(was)
        steps._graph = graph

    monkeypatch.setattr(Steps, "can_capture", property(lambda steps: steps._warm))
    monkeypatch.setattr(Steps, "capture", capture)


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_repeated_as_it_was_recorded_is_the_next_one(name, monkeypatch):
    model, case = model_of(name), case_of(1)
    expected = written(model, case, None)
    record(monkeypatch)
    for graphs in (Graphs(room=20, least=1, worth=1), Graphs()):
        assert written(model, case, graphs) == expected
        assert not graphs.failed
        assert graphs.replayed > graphs.captured > 0
        assert graphs.plain >= graphs.captured  # each is made after a step of its shape


@given(
    seed=st.integers(0, 10**6),
    room=st.integers(1, 40),
    least=st.integers(1, 20),
    worth=st.integers(1, 60),
    rows=st.integers(1, 9),
    tokens=st.sampled_from([1, 150, 300, 10_000]),
)
@hypotheses(max_examples=25)
def test_no_size_changes_an_answer(seed, room, least, worth, rows, tokens):
    model, case, limits = model_of("llama"), case_of(seed), Limits(rows, tokens)
    assert written(model, case, Graphs(room, least, worth), limits) == written(model, case, None, limits)


def test_buffers_grow_lose_rows_and_stay_within_limits():
    model = model_of("llama")
    prompts = [[9, 8, 7 + i] for i in range(8)]
    stops = [Stop((), (), most) for most in (60, 60, 60, 40, 40, 20, 20, 20)]
    expected = written(model, (prompts, stops), None, Limits(8, 10_000))
    graphs = Graphs(room=16, least=8, worth=1)
    seen = shapes(model, lambda: written(model, (prompts, stops), graphs, Limits(8, 10_000)))
    assert [len(tokens) for tokens in expected] == [stop.most for stop in stops]
    assert {rows for rows, _ in seen} == {8, 3}
    assert {columns for _, columns in seen} == {32, 48, 64}
    assert all(columns % ALIGNED == 0 for _, columns in seen)
    assert len(seen) == graphs.plain == 59  # the first token comes with the prompt
    seen = shapes(model, lambda: written(model, (prompts, stops), Graphs(worth=8192), Limits(8, 10_000)))
    assert set(seen) == {(8, 64)}  # leaving would not pay
    limited = Limits(8, 200)
    seen = shapes(model, lambda: written(model, (prompts, stops), Graphs(), limited))
    assert seen
    assert all(rows * columns <= limited.tokens for rows, columns in seen)


def test_short_answers_and_other_caches_are_left_to_plain_decoding():
    model, (prompts, _) = model_of("llama"), case_of(1)
    short = (prompts, [Stop((), (), 8)] * len(prompts))
    assert not shapes(model, lambda: written(model, short, Graphs(least=8)))
    assert shapes(model, lambda: written(model, short, Graphs(least=7)))
    window, case = model_of("gemma3"), case_of(1)
    assert not shapes(window, lambda: written(window, case, Graphs()))


def test_a_model_that_fails_is_asked_plainly_from_then_on(monkeypatch):
    model, case = copy.deepcopy(model_of("llama")), case_of(1)
    expected, graphs, own = written(model, case, None), Graphs(least=1), model.forward

    @wraps(own)
    def forward(**options: Any) -> Any:
        if is_step(options) and graphs.plain >= 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return own(**options)

    monkeypatch.setattr(model, "forward", forward)
    assert written(model, case, graphs) == expected
    assert graphs.failed == "RuntimeError: operation not permitted when stream is capturing"
    assert graphs.plain == 3
    assert written(model, case, graphs) == expected
    assert graphs.plain == 3


@pytest.mark.parametrize("broken_off", [False, True])
def test_memory_that_runs_out_is_said(monkeypatch, broken_off):
    import torch

    model, case = copy.deepcopy(model_of("llama")), case_of(1)
    own, graphs = model.forward, Graphs(least=1)

    @wraps(own)
    def forward(**options: Any) -> Any:
        if is_step(options):
            try:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            finally:
                if broken_off:  # as torch does where a capture ends
                    raise RuntimeError("operation failed due to a previous error during capture")
        return own(**options)

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        written(model, case, graphs)
    assert not graphs.failed


def test_an_engine_with_graphs_gives_every_variants_answers(monkeypatch):
    _, variants = variants_of("llama", FEW)
    opened = asked(encoded(model_of("llama"), questions(prompts_of(2), until=["w9"], max_gen_toks=19)))
    monkeypatch.setattr("harness.evaluation.engine.ANCHORS", 1)
    (plain, keep), (stepped, note) = collecting(), collecting()
    engine_of("llama").generate(variants, opened, {}, keep)
    engine = engine_of("llama")
    engine.graphs = Graphs(room=8, least=1, worth=1)
    engine.generate(variants, opened, {}, note)
    assert stepped == plain
    assert engine.graphs.plain > 0


def test_embedded_experts_give_the_same_scores(tmp_path):
    profile = load_profile("embedded")
    found = []
    for graphs in (None, Graphs(room=16, least=1, worth=1)):
        grid = Grid(Settings(profile, "cpu", "float32", limit=20), tmp_path / str(graphs is None))
        plans = [recipe.plan(grid.layers, profile.sizes) for recipe in (LayerSwap(), Expert("math"))]
        grid.expect("mgsm", plans)
        grid.asker._engine.graphs = graphs  # type: ignore[union-attr]
        found.append([[score.values for score in grid.cell(plan, "mgsm").scores] for plan in plans])
        grid.store.close()
        assert graphs is None or (graphs.plain > 0 and not graphs.failed)
    assert found[0] == found[1]
