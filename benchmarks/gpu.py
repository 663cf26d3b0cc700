"""The grid against a loop over lm-eval's HFLM on a GPU, on random models of real shapes. Has not been run on a GPU.

    python -m benchmarks.gpu --shape 1B
    python -m benchmarks.gpu --shape 8B                       # three experts of 16 GB: an 80 GB device
    python -m benchmarks.gpu --shape tiny --device cpu        # whether it works

The weights are random and the prompts those of the embedded benchmarks, so that only the times mean something. The loop
asks HFLM of variants that are in memory already, which favours it: nothing is written or loaded for it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.evaluation.grid import Grid, Settings
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


def make(shape: str, folder: Path) -> dict[str, str]:
    """Random experts of a shape in bfloat16, by name."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    size = VOCABULARY if shape != "tiny" else len(tokenizer)
    few = {"num_key_value_heads": 8} if shape != "tiny" else {}
    config = LlamaConfig(vocab_size=size, max_position_embeddings=4096, **SHAPES[shape], **few, **ends)
    for seed, name in enumerate(("base", "math", "language")):
        torch.manual_seed(seed)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        del model
    return {name: str(folder / name) for name in ("base", "math", "language")}


def timed(settings: Settings, folder: Path, variants: tuple[str, ...], benchmark: str) -> tuple[float, Grid]:
    """Seconds of a grid from its first question to its last answer, experts loaded and prompts built before."""
    import torch

    grid = Grid(settings, folder)
    plans = [parse_recipe(text).plan(grid.layers, settings.profile.sizes) for text in variants]
    grid.expect(benchmark, plans)
    grid.columns(benchmark)
    grid.load(settings.profile.experts)
    for column in grid.columns(benchmark):
        grid.asker.portions(column)
    started = time.perf_counter()
    for plan in plans:
        grid.cell(plan, benchmark)
    if settings.device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started, grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=int, default=100, help="documents of each task (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="rows a batch, of both (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the experts are written (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        experts = make(options.shape, folder)
        profile = load_profile("embedded").model_copy(update={"experts": experts, "batch_size": options.batch})
        common: dict[str, Any] = {"profile": profile, "device": options.device, "dtype": "bfloat16"}
        common["limit"] = options.limit
        for benchmark in ("mmlu", "mgsm"):
            loop, _ = timed(Settings(**common, backend="hf"), folder / f"loop-{benchmark}", SAMPLE, benchmark)
            mine, grid = timed(Settings(**common), folder / f"grid-{benchmark}", VARIANTS, benchmark)
            loop *= len(VARIANTS) / len(SAMPLE)
            print(
                f"{options.shape}, {options.device}, {benchmark}: grid {mine:.1f} s, loop {loop:.1f} s "
                f"({len(SAMPLE)} of {len(VARIANTS)} variants): {loop / mine:.1f} times; {grid.work}",
                flush=True,
            )


if __name__ == "__main__":
    main()
