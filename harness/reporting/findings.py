"""What a run says, computed: what each family bought, which variants nothing beats, and where to look first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.gating.adjust import benjamini_hochberg
from harness.gating.statistics import Comparison
from harness.reporting.results import CaseResult, RunResult
from harness.reporting.tables import (
    ALPHA,
    compared,
    difference,
    markdown,
    p_value,
    points,
    significance,
)

MOST_EXPLORATORY = 20
MOST_NAMED = 3


def bought(run: RunResult, family: str) -> str:
    """One sentence: on which columns an ablation of this family costs or gains something, and how much at most.

    Only differences to the un-ablated method that are significant after Holm over the family count.
    """
    cases = [case for case in run.cases if case.family == family and case.case_id != run.reference]
    found = compared(cases)
    if not found:
        return ""
    arrows = significance(cases)
    real = [entry for entry in found if (entry[0].case_id, entry[1]) in arrows]
    columns = [column for column in run.columns if any(column == name for _, name, _ in found)]
    lost = _extremes([entry for entry in real if entry[2].difference < 0], columns)
    gained = _extremes([entry for entry in real if entry[2].difference > 0], columns)
    silent = [column for column in columns if all(column != name for _, name, _ in real)]
    parts = [
        f"costs {_list(lost)}" if lost else "costs nothing that is significant",
        f"gains {_list(gained)}" if gained else "gains nothing that is significant",
    ]
    if real and silent:
        parts.append(f"changes nothing significantly on {_list(silent)}")
    return f"Ablated in {several(len(cases), 'way')}, `{family}` {'; '.join(parts)}."


def _extremes(entries: Sequence[tuple[CaseResult, str, Comparison]], columns: Iterable[str]) -> list[str]:
    """The largest change of each column, the three largest of all in words: ``up to 6.5 on flores en-sw (removed)``."""
    largest = []
    for column in columns:
        mine = [(abs(c.difference), case.case) for case, name, c in entries if name == column]
        if mine:
            largest.append((*max(mine), column))
    ranked = sorted(largest, key=lambda entry: -entry[0])
    words = [f"up to {points(size)} on {column} (`{case}`)" for size, case, column in ranked[:MOST_NAMED]]
    rest = [column for _, _, column in ranked[MOST_NAMED:]]
    return [*words, f"less on {' and '.join(rest)}"] if rest else words


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)


def several(count: int, thing: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


@dataclass(frozen=True)
class Aims:
    """The three columns that a merge is made for: math and reading in the target language, and math in English."""

    target_math: str
    target_language: str
    english_math: str


def aims(run: RunResult) -> Aims | None:
    """Found by name (``mgsm sw``, ``belebele sw``, ``mgsm en``); None if the run lacks one of them.

    Of several languages the average stands for all, if it is named so (``mgsm average``).
    """
    columns = [column.split() for column in run.columns]
    targets = [column[1] for column in columns if column[:1] == ["mgsm"] and len(column) == 2 and column[1] != "en"]
    if not targets:
        return None
    target = "average" if "average" in targets else targets[0]
    chosen = (f"mgsm {target}", f"belebele {target}", "mgsm en")
    return Aims(*chosen) if all(name in run.columns for name in chosen) else None


def pareto(run: RunResult) -> tuple[CaseResult, ...]:
    """The cases than which no other is at least as good on all three aims and better on one; best target math first.

    Of several cases with equal weights the first stands for all.
    """
    goal = aims(run)
    if goal is None:
        return ()
    names = (goal.target_math, goal.target_language, goal.english_math)
    distinct = {case.identity: case for case in reversed(run.cases) if all(name in case.columns for name in names)}
    scored = [(case, tuple(case.columns[name].value for name in names)) for case in distinct.values()]
    best = [
        (values, case)
        for case, values in scored
        if not any(other != values and all(o >= v for o, v in zip(other, values, strict=True)) for _, other in scored)
    ]
    return tuple(case for _, case in sorted(best, key=lambda entry: (*(-v for v in entry[0]), entry[1].case_id)))


def pareto_table(run: RunResult) -> str:
    """The Pareto set as Markdown, or nothing."""
    goal, cases = aims(run), pareto(run)
    if goal is None or not cases:
        return ""
    names = (goal.target_math, goal.target_language, goal.english_math)
    rows = [
        [case.case_id, f"`{case.drawing}`", *(points(case.columns[name].value) for name in names)] for case in cases
    ]
    return markdown(rows, ["case", "layers", *names])


def exploratory_table(run: RunResult) -> tuple[str, int, int]:
    """The strongest differences of the whole run with Benjamini-Hochberg q-values; how many have q ≤ 5 %, of how many.

    Cases with equal weights count once.
    """
    first = {case.identity: case.case_id for case in reversed(run.cases)}
    found = compared(case for case in run.cases if first[case.identity] == case.case_id)
    q = benjamini_hochberg([c.p for _, _, c in found])
    ranked = sorted(
        zip(q, found, strict=True), key=lambda entry: (entry[0], -abs(entry[1][2].difference), entry[1][0].case_id)
    )
    rows = [
        [case.case_id, column, points(c.value), difference(c), p_value(c.p), p_value(value)]
        for value, (case, column, c) in ranked[:MOST_EXPLORATORY]
    ]
    table = markdown(rows, ["case", "column", "value", "difference [95 % interval]", "p", "q"]) if rows else ""
    return table, sum(value <= ALPHA for value in q), len(q)


def movers(run: RunResult, most: int = 3) -> list[str]:
    """A sentence for each expert: which layers it changed most, relative to the base's weights."""
    sentences = []
    for expert in dict.fromkeys(change.expert for change in run.changes):
        layers: dict[str, list[tuple[float, int]]] = {}
        for change in run.changes:
            if change.expert == expert and change.slot.startswith("layers.") and change.relative is not None:
                layers.setdefault(change.slot, []).append((change.relative, change.parameters))
        means = {slot: sum(r * n for r, n in rows) / sum(n for _, n in rows) for slot, rows in layers.items()}
        top = sorted(means, key=lambda slot: -means[slot])[:most]
        if top:
            named = ", ".join(f"{slot.removeprefix('layers.')} ({100 * means[slot]:.1f} %)" for slot in top)
            sentences.append(f"`{expert}` changed layers {named} most.")
    return sentences


def drop_sentence(drops: dict[str, float]) -> str:
    """Which losses this run could have missed."""
    if not drops:
        return ""
    worst, best = max(drops, key=drops.__getitem__), min(drops, key=drops.__getitem__)
    return (
        f"A loss smaller than the *detectable drop* of a column (from {points(drops[best])} points on {best} to "
        f"{points(drops[worst])} on {worst}) is missed in more than one of five such runs."
    )
