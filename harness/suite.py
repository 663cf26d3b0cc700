"""What an ablation file is written with: ``case``, ``benchmarks``, and the ``ablation`` fixture's object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from harness.cache import Cache
from harness.errors import LayerswapError
from harness.evaluation.benchmarks import CODE
from harness.evaluation.cells import Cell
from harness.evaluation.grid import Grid
from harness.evaluation.sandbox import no_sandbox
from harness.evaluation.scores import Score
from harness.gating.baselines import Baselines
from harness.gating.failures import failure_text
from harness.gating.floors import Floor, Outcome, Verdict, no_worse
from harness.gating.statistics import compare
from harness.options import Missing, failed
from harness.recipes import Expert, LayerSwap, Recipe
from harness.reporting.results import CaseResult, ColumnResult

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

_SEVERITY = (Verdict.PASS, Verdict.NEW, Verdict.INCONCLUSIVE, Verdict.MISSING, Verdict.INCOMPARABLE, Verdict.FAIL)
BENCHMARKS = ("mgsm", "belebele", "flores", "mbpp", "mmlu")
METHOD = LayerSwap()
METHOD_CASE = ("method", "layer-swap")


def case(name: str, recipe: Recipe) -> ParameterSet:
    """One ablation: a readable id, and what to merge."""
    return pytest.param(recipe, id=name)


def benchmarks(*names: str) -> pytest.MarkDecorator:
    """Every case of a test is evaluated on each of these: one test item for each."""
    return pytest.mark.parametrize("benchmark_name", names)


def expect(grid: Grid, asked: Iterable[tuple[Recipe, str]]) -> None:
    """Tells ``grid`` all that items will ask for (recipe, benchmark), so that each benchmark takes one sweep."""
    profile = grid.settings.profile
    method = METHOD.plan(grid.layers, profile.sizes)
    for recipe, benchmark in asked:
        try:
            plan = recipe.plan(grid.layers, profile.sizes)
        except LayerswapError:
            continue  # the item itself will say so
        if benchmark in profile.benchmarks and set(plan.experts) <= set(profile.experts):
            grid.expect(benchmark, [plan, method])


def ablations(*cases: ParameterSet) -> Callable[[Any], Any]:
    """These cases on all five benchmarks, a case's benchmarks one after the other."""

    def decorate(function: Any) -> Any:
        return benchmarks(*BENCHMARKS)(pytest.mark.parametrize("recipe", cases)(function))

    return decorate


@dataclass(frozen=True)
class Context:
    """What the session knows when an item runs.

    ``recording``: results are about to be accepted, so none is refused. ``missing``: what a case without accepted
    result comes to, as ``--ablation-missing`` has it. ``cache`` keeps comparisons between runs. ``shown`` names the
    benchmarks on which this process has recorded the method as every table's first row.
    """

    grid: Grid
    baselines: Baselines
    recording: bool
    missing: Missing
    strict: bool
    record: Callable[[CaseResult], None]
    command: str
    cache: Cache | None = None
    shown: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Ablation:
    """One recipe in one test item; its family and case give it a name."""

    context: Context
    family: str
    case: str
    recipe: Recipe
    properties: list[tuple[str, object]] = field(default_factory=list)

    def check(self, benchmark: str, floor: Floor | None = None) -> None:
        """Merges, evaluates on ``benchmark``, records the result, and fails the item if a floor is broken.

        The floor holds every column of the benchmark to the accepted result of this case or, where there is none yet,
        to the un-ablated method in this run. Skips if the profile lacks the benchmark or one of the experts, and where
        the benchmark's generated programs cannot be confined.
        """
        try:
            self._check(benchmark, floor)
        except LayerswapError as error:
            raise failed(error) from None

    def equals(self, expert: str, benchmark: str) -> None:
        """An exact control: the variant's weights are the expert's own, and so are its scores when evaluated again.

        A part of the documents is evaluated afresh, by the variant alone, although equal weights have their scores: so
        this also shows that evaluating twice, and with other variants or without, gives the same values.
        """
        try:
            self._equals(expert, benchmark)
        except LayerswapError as error:
            raise failed(error) from None

    def _note(self, benchmark: str, results: dict[str, ColumnResult]) -> None:
        """Flat primitives for JUnit XML and for the progress line; anything else would break under xdist."""
        worst = max((r.verdict for r in results.values() if r.verdict), key=_SEVERITY.index)
        case = f"{self.family}/{self.case}"
        self.properties.extend([("ablation", case), ("benchmark", benchmark), ("verdict", str(worst))])
        for name, result in results.items():
            self.properties.append((f"{name} value", result.value))
            if result.versus_method is not None:
                self.properties.append((f"{name} difference", result.versus_method.difference))

    def _prepare(self, recipe: Recipe, benchmark: str) -> Any:
        grid = self.context.grid
        profile = grid.settings.profile
        if benchmark not in profile.benchmarks:
            pytest.skip(f"profile {profile.name} has no benchmark {benchmark}")
        if benchmark in CODE and not grid.settings.unsafe_code and (reason := no_sandbox()):
            pytest.skip(f"{benchmark} runs generated programs. {reason}; --ablation-unsafe-code runs them unconfined")
        plan = recipe.plan(grid.layers, profile.sizes)
        if missing := [name for name in plan.experts if name not in profile.experts]:
            pytest.skip(f"profile {profile.name} has no expert {', '.join(missing)}")
        return plan

    def _check(self, benchmark: str, floor: Floor | None) -> None:
        grid = self.context.grid
        plan = self._prepare(self.recipe, benchmark)
        method_plan = METHOD.plan(grid.layers, grid.settings.profile.sizes)
        method = grid.cell(method_plan, benchmark)
        cell = grid.cell(plan, benchmark)
        floor = floor or no_worse(grid.settings.profile.benchmarks[benchmark].margin)
        results, failures = {}, []
        for score, reference in zip(cell.scores, method.scores, strict=True):
            result, failure = self._held(score, reference, floor, cell)
            results[score.column] = result
            failures += [failure] if failure else []
        # The method is every table's first row, whether or not its own items were selected.
        if benchmark not in self.context.shown:
            self.context.record(_result(*METHOD_CASE, METHOD, method_plan, method, _unheld(method)))
            self.context.shown.add(benchmark)
        self._note(benchmark, results)
        self.context.record(_result(self.family, self.case, self.recipe, plan, cell, results))
        if failures:
            pytest.fail("\n\n".join(failures), pytrace=False)

    def _held(self, score: Score, method: Score, floor: Floor, cell: Cell) -> tuple[ColumnResult, str]:
        name = f"{self.family}/{self.case}"
        is_method = (self.family, self.case) == METHOD_CASE
        accepted = self.context.baselines.get(name, score.column)
        if accepted is not None and self.context.grid.settings.limit is not None:
            accepted = accepted.restricted_to(score.documents)
        versus_method = None if is_method else compare(score, method, cache=self.context.cache)
        words = floor.describe(score.higher_is_better)
        missing = self.context.missing if accepted is None else "warn"
        if self.context.recording or missing == "record":
            outcome = Outcome(Verdict.NEW, None, words, "recorded, held to no floor")
        elif missing == "fail":
            reason = f"{self.context.baselines.path} has no accepted result for it: accept one with --ablation-update"
            outcome = Outcome(Verdict.MISSING, None, words, reason)
        elif accepted is None and is_method:
            outcome = Outcome(Verdict.NEW, None, words, "there is no accepted result for it yet")
        else:
            outcome = floor.verdict(score, accepted or method, self.context.cache)
        failing = {Verdict.FAIL, Verdict.INCOMPARABLE, Verdict.MISSING}
        failing |= {Verdict.INCONCLUSIVE} if self.context.strict else set()
        text = ""
        if outcome.verdict in failing:
            text = failure_text(
                outcome,
                score,
                None if outcome.verdict is Verdict.MISSING else accepted or method,
                case=name,
                command=self.context.command,
                baseline_name="accepted" if accepted else "un-ablated",
            )
        result = ColumnResult(
            value=score.value,
            n=score.n,
            metric=score.metric,
            verdict=outcome.verdict,
            graded=score.graded,
            reason=outcome.reason,
            corpus=dict(score.corpus),
            versus_method=versus_method,
            versus_accepted=outcome.comparison if accepted else None,
            seconds=cell.seconds / len(cell.scores),
        )
        return result, text

    def _equals(self, expert: str, benchmark: str) -> None:
        grid = self.context.grid
        plan, alone = self._prepare(self.recipe, benchmark), self._prepare(Expert(expert), benchmark)
        cell = grid.cell(plan, benchmark)
        control = grid.control(plan, alone, benchmark)
        if control.tensors:  # no assert: under python -O this module's are left out
            pytest.fail(
                f"{len(control.tensors)} tensors differ from {expert}'s, the first is {control.tensors[0]}",
                pytrace=False,
            )
        results = {}
        for score in cell.scores:
            changed, n = control.documents[score.column]
            verdict = Verdict.FAIL if changed else Verdict.PASS
            reason = (
                f"{changed} of {n} documents differ from {expert}'s when they are evaluated again"
                if changed
                else f"all weights are {expert}'s, and {n} documents evaluated again give equal values"
            )
            results[score.column] = ColumnResult(score.value, score.n, score.metric, verdict, score.graded, reason)
        self._note(benchmark, results)
        self.context.record(_result(self.family, self.case, self.recipe, plan, cell, results))
        broken = [f"{name}: {r.reason}" for name, r in results.items() if r.verdict is Verdict.FAIL]
        if broken:
            pytest.fail("; ".join(broken), pytrace=False)


def _unheld(cell: Cell) -> dict[str, ColumnResult]:
    return {
        s.column: ColumnResult(
            s.value, s.n, s.metric, None, s.graded, corpus=dict(s.corpus), seconds=cell.seconds / len(cell.scores)
        )
        for s in cell.scores
    }


def _result(
    family: str, case: str, recipe: Recipe, plan: Any, cell: Cell, columns: dict[str, ColumnResult]
) -> CaseResult:
    return CaseResult(
        family,
        case,
        recipe.title,
        repr(recipe),
        plan.drawing,
        plan.text,
        cell.identity,
        columns,
        merge_seconds=cell.merge_seconds,
        peak_bytes=cell.peak_bytes,
    )
