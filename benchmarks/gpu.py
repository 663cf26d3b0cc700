"""The grid on a GPU: against a loop over lm-eval's HFLM, against itself with little memory, and what bounds it.

    python -m benchmarks.gpu contest --shape 1B
    python -m benchmarks.gpu contest --shape 8B --folder /dev/shm      # two experts of 16 GB, which are written there
    python -m benchmarks.gpu little --shape 8B --folder /dev/shm       # a device on which little more than one fits
    python -m benchmarks.gpu bounds --shape 8B                         # transfers, and steps of decoding
    python -m benchmarks.gpu decoding --shape 8B                       # steps replayed as graphs, and what these cost
    python -m benchmarks.gpu contest --shape 1B --plain                # without graphs
    python -m benchmarks.gpu agreement                                 # documents that differ, in float32 and bfloat16
    python -m benchmarks.gpu contest little --shape tiny --device cpu:0     # whether it works

Several of these words run one after the other. Weights are random, and prompts random words in the layout of MMLU of
about 600 tokens, 5-shot, or of 64 tokens to write: only times mean something. With random weights no variant's answer
foresees another's, so that generation shares nothing but batches. The loop asks HFLM of variants that are in memory
already, which favours it: nothing is written or loaded for it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from benchmarks.contest import Workload, _write_task
from harness.digests import remember
from harness.evaluation import room
from harness.evaluation.grid import Grid, Settings
from harness.identity import Digested
from harness.profiles import load_profile
from harness.recipe_text import parse_recipe

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 10, "num_attention_heads": 4},
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
VOCABULARY = 128256
VARIANTS = tuple(f"layer-swap(bottom={b}, top={u}, outer='math')" for b in (1, 2, 3, 4) for u in (1, 2, 3, 4))
SAMPLE = VARIANTS[5:7]  # of the loop: its time is scaled to all
WORKLOADS = {"letters": Workload("letters", shots=5, prompt=540), "generation": Workload("generation", prompt=160)}
EMBEDDED = ("expert('math')", "expert('language')", "soup", "ties(density=0.5)", "layer-swap", "layer-swap(top=0)")


def make(shape: str, folder: Path, device: str) -> dict[str, str]:
    """Random experts of a shape in bfloat16, by name; the base is the math expert."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    size = VOCABULARY if shape != "tiny" else len(tokenizer)
    few = {"num_key_value_heads": 8} if shape != "tiny" else {}
    config = LlamaConfig(vocab_size=size, max_position_embeddings=4096, **SHAPES[shape], **few, **ends)
    for seed, name in enumerate(("math", "language")):
        if (folder / name / "config.json").is_file():
            continue
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(device):
                model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(torch.float32)
        model.to("cpu").save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {"base": str(folder / "math"), "math": str(folder / "math"), "language": str(folder / "language")}


def profile_of(experts: dict[str, str], kind: str, documents: int, folder: Path) -> Any:
    """A profile of one benchmark."""
    _write_task(replace(WORKLOADS[kind], documents=documents), folder / "tasks")
    metric = "exact_match" if kind == "generation" else "acc"
    lines = ['name = "gpu"', 'tasks = "tasks"', "batch_size = 32", "[experts]"]
    lines += [f'{name} = "{path}"' for name, path in experts.items()]
    lines += ["[benchmarks.mmlu]", f'columns = [{{ name = "mmlu", task = "contest", metric = "{metric}" }}]']
    (folder / "gpu.toml").write_text("\n".join(lines), encoding="utf-8")
    return load_profile(str(folder / "gpu.toml"))


def timed(
    settings: Settings, folder: Path, variants: Sequence[str], digests: dict[str, Digested], plain: bool = False
) -> tuple[float, Grid]:
    """Seconds of a grid from its first question to its last answer, experts loaded and prompts built before.

    ``digests`` are those of the experts that are known, and become known.
    ``plain``: steps of decoding are not replayed as graphs.
    """
    grid = Grid(settings, folder)
    plans = [parse_recipe(text).plan(grid.layers, settings.profile.sizes) for text in variants]
    grid.expect("mmlu", plans)
    grid.columns("mmlu")
    places, base = settings.profile.expert_path, settings.profile.expert_path("base")
    for name, expert in digests.items():  # reading 32 GB for them once is enough
        remember(places(name), settings.dtype, base, grid.store, expert)
    grid.load(dict.fromkeys(name for plan in plans for name in plan.experts))
    digests |= grid.digests
    for column in grid.columns("mmlu"):
        grid.asker.portions(column)
    for plan in plans:  # weights go to the device before the clock starts, for both
        grid.variants.model(plan)
    if plain:
        grid.asker._engine.graphs = None  # type: ignore[union-attr]
    synchronize(settings.device)
    started = time.perf_counter()
    for plan in plans:
        grid.cell(plan, "mmlu")
    synchronize(settings.device)
    return time.perf_counter() - started, grid


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def contest(experts: dict[str, str], options: argparse.Namespace) -> None:
    """The grid of 16 variants against the loop over some of them, which is scaled."""
    digests: dict[str, Digested] = {}
    for kind, documents in (("letters", options.documents), ("generation", options.documents // 2)):
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            settings = Settings(profile_of(experts, kind, documents, folder), options.device, "bfloat16")
            loop, other = timed(replace(settings, backend="hf"), folder / "loop", SAMPLE, digests)
            other.store.close()
            del other
            gc.collect()  # its weights are to leave the device
            mine, grid = timed(settings, folder / "grid", VARIANTS, digests, options.plain)
            loop *= len(VARIANTS) / len(SAMPLE)
            requests = grid.asker._encoded(grid.columns("mmlu")[0])[0]  # type: ignore[union-attr]
            tokens = sum(len(request.context) for request in requests) // len(requests)
            print(
                f"{options.shape}, {kind}, {documents} documents of {tokens} tokens, {len(VARIANTS)} variants: grid "
                f"{mine:.1f} s, loop {loop:.1f} s ({len(SAMPLE)} of them, scaled): {loop / mine:.1f} times; "
                f"{grid.work}; {grid.variants.room and grid.variants.room.text}; "
                f"{grid.asker._engine.graphs}",  # type: ignore[union-attr]
                flush=True,
            )
            grid.store.close()


@contextmanager
def device_of(size: int) -> Iterator[None]:
    """A device that says that it has ``size`` bytes free."""
    with mock.patch.object(room, "free_bytes", return_value=size):
        yield


def little(experts: dict[str, str], options: argparse.Namespace) -> None:
    """The grid where all experts fit, and where little more than one variant does."""
    digests: dict[str, Digested] = {}
    weights = sum(path.stat().st_size for path in Path(experts["math"]).glob("*.safetensors"))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        profile = profile_of(experts, "letters", options.documents, folder)
        settings = Settings(profile, options.device, "bfloat16", memory=2**30)
        wide, first = timed(settings, folder / "wide", VARIANTS, digests)
        scores = [[s.values for s in first.cell(p, "mmlu").scores] for p in first._expected["mmlu"].values()]
        first.store.close()
        del first
        gc.collect()
        with device_of(int(1.1 * weights / room.USABLE) + 6 * 10**9):
            tight, second = timed(settings, folder / "tight", VARIANTS, digests)
        again = [[s.values for s in second.cell(p, "mmlu").scores] for p in second._expected["mmlu"].values()]
        pairs = [(a, b) for x, y in zip(scores, again, strict=True) for a, b in zip(x[0], y[0], strict=True)]
        held = second.variants._residence
        assert held is not None
        print(
            f"{options.shape}, little memory: {tight:.1f} s against {wide:.1f} s, {held.sent_bytes / 1e9:.1f} "
            f"GB sent; {sum(a != b for a, b in pairs)} of {len(pairs)} documents differ; "
            f"{second.variants.room and second.variants.room.text}",
            flush=True,
        )
        second.store.close()


def bounds(experts: dict[str, str], options: argparse.Namespace) -> None:
    """Bytes a second to the device, pageable and pinned; and how much of a step of decoding is the device's own."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(experts["language"], dtype="auto", use_safetensors=True)
    tensors = [p.data for p in model.parameters()]
    size = sum(t.numel() * t.element_size() for t in tensors)
    stages = [torch.empty(1 << 26, dtype=torch.uint8, pin_memory=torch.cuda.is_available()) for _ in range(2)]

    def staged(tensor: Any) -> Any:
        result = torch.empty_like(tensor, device=options.device)
        source, target = tensor.reshape(-1).view(torch.uint8), result.reshape(-1).view(torch.uint8)
        for i, begin in enumerate(range(0, len(source), 1 << 26)):
            part, stage = source[begin : begin + (1 << 26)], stages[i % 2]
            events[i % 2].synchronize()
            stage[: len(part)].copy_(part)
            target[begin : begin + len(part)].copy_(stage[: len(part)], non_blocking=True)
            events[i % 2].record()
        return result

    if options.device.startswith("cuda"):
        events = [torch.cuda.Event() for _ in range(2)]
        ways: list[tuple[str, Callable[[Any], Any]]] = [("first touch", lambda t: t.to(options.device))]
        for name, way in [*ways, ("pageable", ways[0][1]), ("staged", staged), ("pageable again", ways[0][1])]:
            started = time.perf_counter()
            for tensor in tensors:
                way(tensor)
            synchronize(options.device)
            print(f"{options.shape}, {name}: {size / 1e9 / (time.perf_counter() - started):.1f} GB/s", flush=True)
    model.to(options.device)
    for rows in (32, 256):
        print(f"{options.shape}, {rows} rows: {step_of(model, rows, options.device)}", flush=True)


def step_of(model: Any, rows: int, device: str) -> str:
    """Milliseconds of a step of decoding after 200 tokens, and those in which the device computes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    ids = torch.randint(5, 60, (rows, 200), device=device)
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        one = ids[:, :1]

        def steps(count: int) -> float:
            synchronize(device)
            started = time.perf_counter()
            for _ in range(count):
                model(input_ids=one, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1).tolist()
            return 1000 * (time.perf_counter() - started) / count

        steps(3)
        wall = steps(20)
        activities = [ProfilerActivity.CUDA] if device.startswith("cuda") else [ProfilerActivity.CPU]
        with profile(activities=activities) as found:
            steps(10)
    busy = sum(getattr(event, "self_device_time_total", 0.0) for event in found.key_averages()) / 10_000
    return f"{wall:.1f} ms a step, of which the device computes {busy:.1f}"


def decoding(experts: dict[str, str], options: argparse.Namespace) -> None:
    """Steps of decoding of padded rows after 200 tokens: plain, in buffers, and replayed; and what a capture takes."""
    from transformers import AutoModelForCausalLM

    from harness.evaluation.trials import can_step

    model = AutoModelForCausalLM.from_pretrained(experts["language"], dtype="auto", use_safetensors=True)
    model.to(options.device).eval()
    print(f"{options.shape}: {'can' if can_step(model) else 'CANNOT'} be asked in buffers", flush=True)
    for rows in (32, 256):
        print(f"{options.shape}, {rows} rows: {steps_of(model, rows, options.device)}", flush=True)


def steps_of(model: Any, rows: int, device: str) -> str:
    """Milliseconds of each kind of step, of a capture, and those of steps in which the device computes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from harness.evaluation.steps import Steps

    def took(what: Callable[[], Any], count: int = 1) -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(count):
            what()
        synchronize(device)
        return 1000 * (time.perf_counter() - started) / count

    def busy(what: Callable[[], Any], count: int = 10) -> float:
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
            took(what, count)
        return sum(getattr(event, "self_device_time_total", 0.0) for event in found.key_averages()) / 1000 / count

    cuda = device.startswith("cuda")
    ids = torch.randint(5, 60, (rows, 200), device=device)
    mask = torch.ones_like(ids)
    mask[::2, :8] = 0  # every other row is padded
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        first = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": True}
        past = model(**first, logits_to_keep=1).past_key_values
        next_, seen = {"input_ids": ids[:, :1], "position_ids": positions[:, -1:] + 1}, mask

        def eager() -> None:
            nonlocal seen
            seen = torch.cat([seen, seen.new_ones((rows, 1))], dim=1)
            output = model(**next_, attention_mask=seen, past_key_values=past, use_cache=True, logits_to_keep=1)
            output.logits[:, -1].argmax(-1).tolist()

        took(eager, 3)
        said = [f"plain {took(eager, 20):.1f} ms, the device {busy(eager):.1f}"]
        past = model(**first, logits_to_keep=1).past_key_values
        steps = Steps(model, past, next_["input_ids"], mask, next_["position_ids"], 256)
        said += [f"in buffers first {took(steps.plain):.1f} ms, then {took(steps.plain, 5):.1f}"]
        if steps.can_capture:
            said += [f"capture {took(steps.capture):.1f} ms", f"first replay {took(steps.replay):.1f}"]
            said += [f"replayed {took(steps.replay, 20):.1f} ms, the device {busy(steps.replay):.1f}"]
            said += [f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most"]
        steps.forget()
    return "; ".join(said)


def agreement(_: dict[str, str], options: argparse.Namespace) -> None:
    """Documents of the embedded benchmarks whose value is not HFLM's, and not HFLM's own at another batch size."""
    profile = load_profile("embedded")
    other = profile.model_copy(update={"batch_size": 8})
    for dtype in ("float32", "bfloat16"):
        with TemporaryDirectory() as temporary:
            common = Settings(profile, options.device, dtype, options.documents)
            asked = {"shared": common, "hf": replace(common, backend="hf")}
            asked["hf, 8 rows"] = replace(common, backend="hf", profile=other)
            found = {name: _values(settings, Path(temporary, name)) for name, settings in asked.items()}
        for name in ("shared", "hf, 8 rows"):
            different = sum(a != b for a, b in zip(found[name], found["hf"], strict=True))
            print(f"{dtype}: {name} against hf: {different} of {len(found['hf'])} documents differ", flush=True)


def _values(settings: Settings, folder: Path) -> list[float]:
    grid = Grid(settings, folder)
    plans = [parse_recipe(text).plan(grid.layers, settings.profile.sizes) for text in EMBEDDED]
    for benchmark in ("mgsm", "belebele", "flores", "mmlu"):
        grid.expect(benchmark, plans)
    values = [
        value
        for benchmark in grid.expected
        for plan in plans
        for score in grid.cell(plan, benchmark).scores
        for value in score.values
    ]
    grid.store.close()
    return values


STEPS = {"contest": contest, "little": little, "bounds": bounds, "decoding": decoding, "agreement": agreement}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=tuple(STEPS))
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--documents", type=int, default=64, help="of a task (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="contest: steps of decoding are not replayed as graphs")
    parser.add_argument("--folder", type=Path, help="where the experts are written (default: a temporary folder)")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        experts = make(options.shape, folder / f"experts-{options.shape}", options.device)
        for step in options.steps:
            started = time.perf_counter()
            STEPS[step](experts, options)
            print(f"{step}: {time.perf_counter() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
