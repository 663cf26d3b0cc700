from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import NamedTuple

import pytest

from harness.evaluation.bounds import MEASURES, least_end
from harness.evaluation.packing import COARSE, plan
from harness.evaluation.planning import (
    GAIN,
    Block,
    Piece,
    Prices,
    Task,
    divide,
    lower_bound,
    makespan,
    seconds,
    whole,
    work,
)
from harness.evaluation.sharing import Variant, layer_calls

BAR = 1.15
CLOSE = 1.1  # of the simplest bound: the tight one, which takes longer to find, is asked above only


def grid(random: Random) -> tuple[list[Block], int, Prices]:
    """Columns of any size, variants that share much or nothing, and workers up to far more than there is work for."""
    layers = random.choice((4, 10, 32, 80))
    names = [f"{n}" for n in range(random.randint(2, 4))]
    blocks = []
    for _ in range(random.randint(1, 8)):
        slots = set()
        for _ in range(random.choice((1, 3, 12, 40))):
            at, top = sorted(random.randint(0, layers) for _ in range(2))
            below, above = random.choices(names, k=2)
            slots.add((names[0], *([below] * at + [above] * (top - at) + [below] * (layers - top)), below, above))
        generated = random.random() < 0.4
        pieces = tuple(
            Piece(rows, tokens, rows, rows * random.randint(1, 256) if generated else 0)
            for rows, tokens in (
                (random.randint(1, 64), random.randint(1, 16384)) for _ in range(random.choice((1, 2, 30, 200)))
            )
        )
        blocks.append(Block(tuple(sorted(slots)), pieces, random.random() < 0.9))
    workers = random.choice((1, 2, 3, 4, 8, 64, 512))
    scale = 10 ** random.uniform(-1, 3)
    return blocks, workers, Prices(1e-2, *(scale * price for price in (2e-3, 1e-6, 1e-5, 4e-6, 2e-5)))


class Ratios(NamedTuple):
    """When a plan ends, over bounds that no plan is under.

    ``lossless``: as if cutting variants apart lost nothing. ``least``: the tight bound, or the other one if that is
    close. ``units`` are single variants on single pieces, a worker.
    """

    units: float
    lossless: float
    least: float


def check(seed: int) -> Ratios:
    """Plans one random grid."""
    blocks, workers, prices = grid(Random(seed))
    tasks = plan(blocks, workers, prices)
    done = Counter(
        (task.block, variant, piece)
        for task in tasks
        for variant in range(*task.variants)
        for piece in range(*task.pieces)
    )
    every = {
        (i, v, p) for i, block in enumerate(blocks) for v in range(len(block.slots)) for p in range(len(block.pieces))
    }
    assert set(done) == every
    assert set(done.values()) == {1}
    durations = seconds(blocks, tasks, prices)
    ends, bound = makespan(durations, workers), lower_bound(blocks, workers, prices)
    assert ends >= bound * (1 - 1e-9)
    assert ends <= makespan(seconds(blocks, whole(blocks), prices), workers) * (1 + GAIN + 1e-9)
    units = sum(len(block.slots) * len(block.pieces) for block in blocks)
    lossless = ends / bound
    least = ends / least_end(blocks, workers, prices, ends) if lossless > CLOSE else lossless
    assert 1 - 1e-9 <= least <= lossless * (1 + 1e-9)
    return Ratios(units / workers, lossless, least)


@pytest.mark.parametrize("part", range(4))
def test_every_variant_and_document_is_computed_once_and_the_last_task_does_not_straggle(part):
    assert max(check(seed).least for seed in range(50 * part, 50 * part + 50)) <= BAR


@pytest.mark.slow
def test_so_it_is_on_10000_grids():
    found = [check(seed) for seed in range(10_000)]
    for name, chosen in (
        ("all", found),
        (f"{COARSE} or more", [ratios for ratios in found if ratios.units >= COARSE]),
        ("fewer", [ratios for ratios in found if ratios.units < COARSE]),
    ):
        for kind in ("lossless", "least"):
            values = sorted(getattr(ratios, kind) for ratios in chosen)
            over = sum(value > BAR for value in values)
            print(
                f"\nunits a worker {name}, {kind} bound: n={len(values)}, mean {sum(values) / len(values):.3f}, "
                f"99th percentile {values[int(0.99 * len(values))]:.3f}, largest {values[-1]:.3f}, {over} over {BAR}"
            )
    assert max(ratios.least for ratios in found) <= BAR


def tilings(block: int, left: frozenset[tuple[int, int]]) -> Iterator[list[Task]]:
    """Every way to divide cells (variant, piece) into tasks."""
    if not left:
        yield []
        return
    variant, piece = min(left)
    for last, end in product(range(variant + 1, 5), range(piece + 1, 5)):
        cells = frozenset(product(range(variant, last), range(piece, end)))
        if cells <= left:
            for rest in tilings(block, left - cells):
                yield [Task(block, (variant, last), (piece, end)), *rest]


def soonest(durations: Sequence[float], loads: tuple[float, ...], best: float) -> float:
    """When tasks end on the best workers for each, or ``best`` if that is before."""
    if max(loads) >= best:
        return best
    if not durations:
        return max(loads)
    for at in {load: at for at, load in enumerate(loads)}.values():
        best = soonest(durations[1:], (*loads[:at], loads[at] + durations[0], *loads[at + 1 :]), best)
    return best


@pytest.mark.parametrize("shapes", [((4, 2),), ((3, 3),), ((1, 4), (4, 1)), ((2, 2), (2, 3))])
def test_no_plan_at_all_ends_before_the_least_and_the_one_found_comes_near_the_best(shapes):
    """Every division of small grids into tasks, on every worker; some where tasks take most of the time themselves."""
    random, ratios = Random(5), []
    while len(ratios) < 60:
        blocks, _, prices = grid(random)
        if len(blocks) < len(shapes):
            continue
        blocks = [
            replace(block, slots=block.slots[:variants], pieces=block.pieces[:pieces])
            for block, (variants, pieces) in zip(blocks, shapes, strict=False)
        ]
        workers = random.choice((2, 3))
        bare = replace(prices, tasks=0.0, variants=0.0)
        total = sum(seconds(blocks, whole(blocks), bare)) * 10 ** random.uniform(-3, 0) / workers
        prices = replace(prices, tasks=total, variants=total * random.choice((0.01, 0.3)))
        every = [
            list(tilings(at, frozenset(product(range(len(block.slots)), range(len(block.pieces))))))
            for at, block in enumerate(blocks)
        ]
        best = float("inf")
        for parts in product(*every):
            durations = sorted(seconds(blocks, [task for part in parts for task in part], prices), reverse=True)
            if sum(durations) < best * workers:
                best = soonest(durations, (0.0,) * workers, best)
        assert least_end(blocks, workers, prices, best * 2) <= best * (1 + 1e-9)
        ratios.append(makespan(seconds(blocks, plan(blocks, workers, prices), prices), workers) / best)
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) <= BAR
    assert sum(ratios) / len(ratios) <= 1.05


def test_what_is_measured_of_parts_is_no_more_than_of_the_whole():
    import numpy as np

    shares = np.arange(241) / 240
    for measure in MEASURES:
        values = measure(shares)
        assert values[-1] == 1
        for at in range(1, len(shares)):
            assert (values[1 : at + 1] + values[at - 1 :: -1][:at] <= values[at] + 1e-9).all()


def test_a_task_makes_the_layer_calls_of_its_variants_prefix_tree():
    random = Random(7)
    for _ in range(50):
        blocks, _, _ = grid(random)
        block = blocks[0]
        first = random.randrange(len(block.slots))
        last = random.randint(first + 1, len(block.slots))
        variants = [Variant("", slots, lambda: None) for slots in block.slots[first:last]]
        calls = layer_calls(variants) if block.shared else block.layers * len(variants)
        assert block.distinct(first, last) == calls


def test_documents_are_cut_before_variants_since_that_loses_nothing():
    slots = tuple(sorted(("e", *"a" * at, *"b" * (8 - at), "n", "h") for at in range(6)))
    blocks = [Block(slots, tuple(Piece(16, 1000, 16) for _ in range(64)))]
    tasks = divide(blocks, 8, Prices(tasks=0.0))
    assert {task.variants for task in tasks} == {(0, 6)}
    once = work(blocks[0], Task(0, (0, 6), (0, 64)))
    parts = [work(blocks[0], task) for task in tasks]
    assert sum(part.layer_tokens for part in parts) == once.layer_tokens == 64_000 * (8 + 4 + 5 + 6 + 7 + 8)


def test_one_piece_is_cut_where_variants_share_least():
    slots = tuple(("e", *("a" if first else "z") * 7, str(n), "n", "h") for first in (1, 0) for n in range(4))
    (first, second) = sorted(divide([Block(slots, (Piece(16, 1000, 16),))], 2, Prices(tasks=0.0)))
    assert (first.variants, second.variants) == ((0, 4), (4, 8))


def test_what_drafts_of_like_variants_do_not_foresee_is_less():
    def slots(math: int) -> tuple[str, ...]:
        return ("e", *"m" * math, *"l" * (10 - math), "n", "h")

    like = Block((slots(5), slots(6)), (Piece(8, 100, 0, 50),), drafts=(slots(4), slots(7)))
    unlike = replace(like, drafts=(slots(0), slots(10)))
    alone, half = (work(like, Task(0, (at, at + 1), (0, 1))) for at in (0, 1))
    both, other = (work(block, Task(0, (0, 2), (0, 1))) for block in (like, unlike))
    assert 0 < both.written == alone.written + half.written < other.written < 2 * 10 * 50
    # Prompts and drafts pass the layers of the prefix tree, and there is one draft at least, and two at most.
    assert 150 < both.layer_tokens / like.distinct(0, 2) < other.layer_tokens / like.distinct(0, 2) < 200
    same = replace(like, drafts=(slots(5),))
    assert work(same, Task(0, (0, 1), (0, 1))).written == 0
    assert work(same, Task(0, (0, 1), (0, 1))).layer_tokens == 150 * 10


@pytest.mark.parametrize("seed", [2812, 6800])
def test_a_better_plan_is_found_without_longer_tasks_where_there_is_enough_to_cut(seed):
    blocks, workers, prices = grid(Random(seed))
    assert sum(len(block.slots) * len(block.pieces) for block in blocks) >= COARSE * workers
    halved, found = (seconds(blocks, of(blocks, workers, prices), prices) for of in (divide, plan))
    assert makespan(found, workers) < 0.98 * makespan(halved, workers)
    assert max(found) <= max(halved)


def test_for_one_worker_hardly_anything_is_lost():
    blocks, _, prices = grid(Random(3))
    once = sum(seconds(blocks, whole(blocks), prices))
    tasks = divide(blocks, 1, prices)
    assert len(tasks) > len(blocks)
    assert once <= sum(seconds(blocks, tasks, prices)) <= once * (1 + GAIN + 1e-9)
