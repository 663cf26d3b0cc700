"""The grid of one run: variants times benchmarks, each benchmark computed for all selected variants in one sweep."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.evaluation.cells import Cell, CellReader, keep_cell, key_of
from harness.evaluation.editions import built_edition, edition
from harness.evaluation.memory import peak_bytes, reset_peak
from harness.evaluation.sandbox import allowing
from harness.evaluation.variants import Settings, Variants

if TYPE_CHECKING:
    from harness.evaluation.benchmarks import Column
    from harness.evaluation.division import Division
    from harness.evaluation.responses import Store
    from harness.evaluation.sharing import Variant
    from harness.evaluation.stock import Stock
    from harness.evaluation.sweep import Sweeper
    from harness.experts import LoadedExpert
    from harness.identity import Digested
    from harness.merging.assemble import Assembler
    from harness.plan import Plan

CONTROL = "control"
CONTROL_DOCUMENTS = 50  # of each column that a control is evaluated on once more, by itself


@dataclass(frozen=True)
class Control:
    """What an exact control came to: tensors that differ, and by column how many of how many documents differ."""

    tensors: tuple[str, ...]
    documents: Mapping[str, tuple[int, int]]


class Grid:
    """Evaluates plans on benchmarks. ``folder`` is shared by the processes of one run; ``store`` outlives it.

    Variants are known by the digest of their weights, so plans that give equal weights are evaluated once.
    """

    def __init__(self, settings: Settings, folder: Path, store: Store | None = None) -> None:
        from harness.evaluation.responses import Store

        self.settings = settings
        self.folder = folder
        self.store = store or Store(folder / "responses.sqlite")
        self.variants = Variants(settings, self.store)
        self.sweeps = 0
        self._columns: dict[str, list[Column]] = {}
        self.cells = CellReader(self.store)
        self._expected: dict[str, dict[str, Plan]] = {}
        self._editions: dict[str, str] = {}
        self._failed: dict[tuple[str, str], LayerswapError] = {}

    @property
    def digests(self) -> Mapping[str, Digested]:
        """Digests of every expert that has been needed so far."""
        return self.variants.digests

    @property
    def experts(self) -> Mapping[str, LoadedExpert]:
        """Every expert whose weights are in memory."""
        return self.variants.experts

    @property
    def built_from(self) -> Settings:
        """What benchmarks' columns are built from."""
        return self.settings

    @property
    def layers(self) -> int:
        """The base's depth, from its config alone: no weights are read."""
        return self.variants.layers

    @property
    def seconds(self) -> dict[str, float]:
        """What stages of the work have taken, by name."""
        return self.variants.seconds

    def load(self, names: Iterable[str]) -> Assembler:
        """See :meth:`Variants.load`."""
        return self.variants.load(names)

    def identity(self, plan: Plan) -> str:
        """The digest of the weights that ``plan`` gives."""
        return self.variants.identity(plan)

    @property
    def work(self) -> dict[str, int]:
        """Layer calls that were made, those that variants by themselves would have made, and sweeps."""
        sweeper = self.__dict__.get("_sweeper")
        made, asked = (sweeper.counts.made, sweeper.counts.asked) if sweeper else (0, 0)
        return {"layer calls": made, "layer calls unshared": asked, "sweeps": self.sweeps}

    @property
    def editions(self) -> Mapping[str, str]:
        """The edition of every benchmark that has been asked for so far."""
        return self._editions

    def expect(self, benchmark: str, plans: Iterable[Plan]) -> None:
        """Notes variants that the run will ask for: the first that is asked for is computed together with them."""
        expected = self._expected.setdefault(benchmark, {})
        expected.update({plan.text: plan for plan in plans})

    @property
    def expected(self) -> tuple[str, ...]:
        """Every benchmark that the run will ask for."""
        return tuple(self._expected)

    def plans(self, benchmark: str) -> dict[str, Plan]:
        """A plan for each of the distinct weights that the run will ask for on a benchmark, by their digest."""
        return {self.identity(plan): plan for plan in self._expected[benchmark].values()}

    def missing(self, benchmark: str) -> list[Plan]:
        """The expected plans of distinct weights that have no cell yet, in the order in which neighbours share most."""
        missing = (plan for identity, plan in self.plans(benchmark).items() if self.known(benchmark, identity) is None)
        return sorted(missing, key=self.variants.slots)

    def columns(self, benchmark: str) -> list[Column]:
        """The columns of a benchmark, their requests built."""
        return self._built(benchmark)

    @property
    def asker(self) -> Sweeper | Stock:
        """What asks variants."""
        return self._sweeper

    def cell(self, plan: Plan, benchmark: str) -> Cell:
        """The scores of ``plan`` on ``benchmark``: of an earlier run, of another process of this run, or computed now.

        Computed are then all variants that were expected on the benchmark and are not there yet. Raises
        :class:`LayerswapError` if there was not enough memory for this one.
        """
        identity = self.identity(plan)
        if (cell := self.known(benchmark, identity)) is None:
            self._expected.setdefault(benchmark, {}).setdefault(plan.text, plan)
            if self.settings.workers > 1:
                self._division.answer(benchmark, identity)
            if (cell := self.known(benchmark, identity)) is None:
                self.sweep(self._expected[benchmark].values() if self.settings.workers == 1 else [plan], benchmark)
                cell = self.known(benchmark, identity)
        if cell is None and (benchmark, identity) in self._failed:
            raise self._failed[benchmark, identity]
        assert cell is not None
        return cell

    def control(self, plan: Plan, expert: Plan, benchmark: str) -> Control:
        """Compares ``plan`` with an expert alone: every tensor, and answers that are computed for each by itself.

        The answers are of a part of the documents, asked anew although equal weights have answered before: evaluating
        twice must give equal values.
        """
        key = key_of(self._edition(benchmark), f"{self.identity(plan)} {self.identity(expert)}")
        if (text := self.store.document(CONTROL, key)) is None:
            found = self._control(plan, expert, benchmark)
            text = json.dumps({"tensors": found.tensors, "documents": found.documents})
            self.store.add_document(CONTROL, key, text)
        data = json.loads(text)
        return Control(tuple(data["tensors"]), {k: (v[0], v[1]) for k, v in data["documents"].items()})

    def _control(self, plan: Plan, expert: Plan, benchmark: str) -> Control:
        import torch

        if self.settings.place not in ("", self.settings.device):
            raise LayerswapError(
                f"a control is evaluated by this process, which has no device {self.settings.device!r}: run the "
                "controls where there is one, or leave them out with -k 'not control'"
            )

        columns = self._built(benchmark)
        expected = {score.column: score for score in self.cell(expert, benchmark).scores}
        model = self.variants.model(plan)
        state, own = model.state_dict(), self.variants.model(expert).state_dict()
        different = [name for name, tensor in own.items() if name not in state or not torch.equal(state[name], tensor)]
        started = time.monotonic()
        found: dict[str, tuple[int, int]] = {}

        def compare(_: str, scores: Sequence[Any]) -> None:
            for score in scores:
                other = expected[score.column].restricted_to(score.documents)
                pairs = zip(score.values, other.values, strict=True)
                found[score.column] = (sum(a != b for a, b in pairs), score.n)

        parts = [column.part(CONTROL_DOCUMENTS) for column in columns]
        with allowing(self.settings.unsafe_code):
            self._sweeper.scores(parts, [self.variants.variant(plan)], None, compare)
        for error in self._sweeper.failed.values():
            raise error
        self.variants.add("controls", started)
        return Control(tuple(different), found)

    def sweep(self, plans: Iterable[Plan], benchmark: str, before: float = 0.0) -> None:
        """Computes what is not there of some plans' cells; a cell took ``before`` seconds already."""
        wanted = {self.identity(plan): plan for plan in plans}
        wanted = {i: p for i, p in wanted.items() if (benchmark, i) not in self._failed}
        wanted = {i: p for i, p in wanted.items() if self.known(benchmark, i) is None}
        if not wanted:
            return
        columns = self._built(benchmark)
        variants = [self.variants.variant(plan) for plan in wanted.values()]
        if self.settings.backend != "vllm" and not self._answered(columns, variants):
            # Here, since the store that notes their digests is for one thread, and variants are built in several.
            self.load(name for plan in wanted.values() for name in plan.experts)
        started, merged = time.monotonic(), self.seconds.get("merge", 0.0)
        reset_peak(self.settings.home)
        scored: dict[str, Any] = {}
        others = [self.variants.variant(plan) for plan in self._expected.get(benchmark, {}).values()]
        with allowing(self.settings.unsafe_code):
            self._sweeper.scores(columns, variants, self.store, scored.__setitem__, others)
        self._failed |= {(benchmark, identity): error for identity, error in self._sweeper.failed.items()}
        merged = self.seconds.get("merge", 0.0) - merged
        seconds = self.variants.add(f"evaluate {benchmark}", started, besides=merged) / len(wanted) + before
        peak = peak_bytes(self.settings.home)
        self.sweeps += 1
        for identity, scores in scored.items():
            cell = Cell(identity, benchmark, scores, seconds, self.variants.merging.get(identity, 0.0), peak)
            keep_cell(self.store, self._edition(benchmark), cell)
            self.cells.note(self._edition(benchmark), cell)

    def _answered(self, columns: Sequence[Column], variants: Sequence[Variant]) -> bool:
        """Whether the store has every answer, so that no weights are needed: other processes may have asked."""
        from harness.evaluation.benchmarks import distinct

        asked = [set(self._sweeper.digests(column)) for column in distinct(columns)]
        return all(
            len(self.store.responses(variant.identity, list(digests))) == len(digests)
            for variant in variants
            for digests in asked
        )

    def known(self, benchmark: str, identity: str) -> Cell | None:
        """The cell of a variant, if there is one."""
        return self.cells.read(self._edition(benchmark), benchmark, identity)

    def _edition(self, benchmark: str) -> str:
        if benchmark not in self._editions:
            known = edition(self.built_from, benchmark)
            self._editions[benchmark] = known or built_edition(self.settings, self._built(benchmark))
        return self._editions[benchmark]

    @cached_property
    def _division(self) -> Division:
        from harness.evaluation.division import Division

        return Division(self, self.folder / "parts")

    @cached_property
    def _sweeper(self) -> Sweeper | Stock:
        from harness.evaluation.backends import asker

        return asker(self.variants)

    def _built(self, benchmark: str) -> list[Column]:
        if benchmark not in self._columns:
            started = time.monotonic()
            from harness.evaluation.benchmarks import build_columns

            settings = self.built_from
            self._columns[benchmark] = build_columns(
                settings.profile, benchmark, settings.limit, settings.profile.batch_size, settings.dtype
            )
            self.variants.add("build prompts", started)
        return self._columns[benchmark]


__all__ = ["Control", "Grid", "Settings"]
