"""The shared sweep against the loop a user would write, each contestant in a process of its own, in turns.

    pytest benchmarks/test_grid.py -s                     # all: about an hour on two quiet cores
    pytest benchmarks/test_grid.py -s -k "suite"          # the embedded experts only
    python -m benchmarks.test_grid                        # how the cost grows: the table of docs/performance.md

The loop, for each variant: write the checkpoint, load it into lm-eval's HFLM, ``simple_evaluate``. Its time is measured
on a sample of the variants and scaled to all; the answers on the sample must be the sweep's, document by document.
Ratios are of processor and of wall seconds, the libraries' import excluded for both. The bars hold wall seconds. On a
busy machine set LAYERSWAP_BENCH_THREADS=1: each contestant then has one thread, and the bars hold processor seconds
(of several threads of torch those that wait keep a core busy, so that a machine with other work counts them double).
The real small model is SmolLM2-135M in float32 (see ``benchmarks/models.py``) with seeded changes; it is skipped with
the reason where it cannot be had.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from benchmarks.contest import Workload, run, suite_plans, sweep
from benchmarks.models import missing

ROUNDS = 3
THREADS = int(os.environ.get("LAYERSWAP_BENCH_THREADS", "0")) or None
SWAP = "LayerSwap(bottom=2, top=2, outer='math')"
SWEEP = tuple(f"LayerSwap(bottom={b}, top={u}, outer='math')" for b in (2, 4, 6, 8) for u in (2, 4, 6, 8))
GROWN = tuple(f"LayerSwap(bottom={b}, top={u}, outer='math')" for b in (1, 2, 3, 4) for u in (1, 2, 3, 4))
SMALL = pytest.mark.skipif(missing("135M") is not None, reason=missing("135M") or "")


@dataclass(frozen=True)
class Contest:
    """Seconds of the loop for every second of the sweep, a ratio for each round, and what the sweep reports."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    sweep: dict[str, Any]

    @property
    def ratio(self) -> float:
        """The median that a bar holds."""
        return median(self.cpu if THREADS == 1 else self.wall)

    def line(self, name: str) -> str:
        parts = (
            f"{kind} {median(ratios):.1f} times [{min(ratios):.1f}, {max(ratios):.1f}]"
            for kind, ratios in (("processor", self.cpu), ("wall", self.wall))
        )
        return f"{name}: {', '.join(parts)}, n={len(self.cpu)}, load {os.getloadavg()[0]:.1f}"


def contest(name: str, workload: Workload, sample: tuple[str, ...], sizes: tuple[int, ...], rounds: int) -> Contest:
    """Both contestants in turns. ``sizes`` are batch sizes of HFLM, of which the one that takes least is used."""
    workload = replace(workload, threads=THREADS)
    one, kind = replace(workload, variants=sample[:1]), "cpu" if THREADS == 1 else "wall"
    best = sizes[0] if len(sizes) == 1 else min(sizes, key=lambda size: run("loop", replace(one, batch=size))[kind])
    wall, cpu = [], []
    for _ in range(rounds):
        mine = run("sweep", workload)
        theirs = run("loop", replace(workload, variants=sample, batch=best))
        scale = mine["variants"] / theirs["variants"]
        wall.append(scale * theirs["wall"] / mine["wall"])
        cpu.append(scale * theirs["cpu"] / mine["cpu"])
        for variant, columns in theirs["values"].items():
            for column, values in columns.items():
                assert mine["values"][variant][column] == values, (variant, column)
    found = Contest(tuple(wall), tuple(cpu), mine)
    print(f"\n{found.line(name)}; HFLM at batch size {best}, {len(sample)} of {mine['variants']} variants in the loop")
    print(f"  {mine['work']}, seconds by stage { {k: round(v, 1) for k, v in mine['stages'].items()} }")
    return found


def test_the_default_suite_takes_a_fifth_of_the_loop() -> None:
    plans = tuple(suite_plans())
    plain = [text for text in plans if "lora" not in text]  # an adapter would have to be merged first
    sample = (plain[0], plain[len(plain) // 2], plain[-1])
    assert contest("default suite", Workload("suite", plans), sample, (16, 64, 256), ROUNDS).ratio >= 5


@SMALL
@pytest.mark.parametrize("shots", [0, 5])
def test_a_sweep_of_16_takes_a_third_of_the_loop(shots: int) -> None:
    workload = Workload("letters", SWEEP, documents=4, shots=shots)
    found = contest(f"sweep of 16, {shots}-shot", workload, SWEEP[5:6], (4, 16), 1)
    # Layers of the prefix tree once for each batch, and by themselves all of every variant.
    work, floor = found.sweep["work"], found.sweep["floor"]
    made, asked = work["layer calls"], work["layer calls unshared"]
    assert made * len(SWEEP) * floor["layers"] == asked * floor["nodes"]
    assert found.ratio >= 3


@SMALL
@pytest.mark.parametrize(("kind", "documents"), [("letters", 48), ("texts", 16)])
def test_five_shots_take_a_third_of_hflm(kind: str, documents: int) -> None:
    """One variant: what is shared are the exemplars, and the choices of a question, of which HFLM reads each."""
    workload = Workload(kind, (SWAP,), documents=documents, shots=5)
    assert contest(f"5-shot, {kind}", workload, (SWAP,), (4, 16), ROUNDS).ratio >= 3


@SMALL
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("variants", [1, 8])
def test_generating_64_tokens(variants: int, shots: int) -> None:
    """No bar: what is measured is written in docs/performance.md."""
    prompt = 600 if shots else 120
    workload = Workload("generation", SWEEP[:variants], documents=8, shots=shots, prompt=prompt)
    contest(f"64 tokens, {shots}-shot, {variants} variants", workload, SWEEP[:1], (8,), 1)


def growth() -> None:
    """Prints what a sweep takes against variants, documents, shots and layers, beside its floor; in this process."""
    rate = multiply_adds_a_second()
    print(f"matrices: {rate / 1e9:.1f} thousand million multiply-adds a processor second")
    base = Workload("letters", GROWN[:4], documents=4, shots=5, layers=12)
    grown = {
        "variants": [replace(base, variants=GROWN[:n]) for n in (1, 4, 16)],
        "documents": [replace(base, documents=n) for n in (2, 4, 8, 16)],
        "shots": [replace(base, shots=n, prompt=100 * (n + 1)) for n in (0, 2, 5)],
        "layers": [replace(base, layers=n) for n in (12, 18, 24)],
    }
    for name, workloads in grown.items():
        for workload in workloads:
            with TemporaryDirectory() as folder:
                found = sweep(workload, Path(folder))
            value = len(workload.variants) if name == "variants" else getattr(workload, name)
            spent = found["evaluate"]
            floor = found["floor"]["multiply-adds"] / rate
            print(
                f"{name} {value}: {spent:.1f} processor seconds, floor {floor:.1f}"
                f" ({floor / spent:.0%}), {found['floor']['nodes']} layers, {found['floor']['tokens']} tokens",
                flush=True,
            )


def multiply_adds_a_second(seconds: float = 3.0) -> float:
    """Of float32 matrices of the small model's shape, on one thread, by processor time, as the engine does it."""
    import time

    import torch

    from harness.evaluation.kernels import quicken

    torch.set_num_threads(1)
    x, model = torch.randn(512, 576), torch.nn.Sequential(torch.nn.Linear(576, 1536, bias=False))
    quicken(model)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.process_time()
        for _ in range(20):
            with torch.inference_mode():
                model(x)
        best = max(best, 20 * 512 * 576 * 1536 / (time.process_time() - started))
    return best


if __name__ == "__main__":
    growth()
