"""Floors: what a case must not fall under, and what came of it.

A floor decides on the interval of the paired difference, never on a rounded number. See ``docs/gating.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from harness.errors import LayerswapError
from harness.evaluation.scores import Sample, Score
from harness.gating.pairing import IncomparableError, pair
from harness.gating.statistics import Comparison, compare, interval


class Verdict(str, Enum):
    """What came of a floor. ``INCONCLUSIVE`` fails only under ``--ablation-strict``."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NEW = "NEW"
    MISSING = "MISSING"
    INCOMPARABLE = "INCOMPARABLE"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Outcome:
    """A verdict with its evidence; ``reason`` is one sentence, ``comparison`` None where there was no baseline."""

    verdict: Verdict
    comparison: Comparison | None
    floor_text: str
    reason: str


@dataclass(frozen=True)
class Floor:
    """A bound on one score, made by :func:`no_worse`, :func:`at_least`, :func:`within` or :func:`better`.

    ``bound`` is a share of one (0.02 is two points), except for ``within``, where it is a percentage.
    """

    kind: Literal["no_worse", "at_least", "within", "better"]
    bound: float
    confidence: float = 0.95

    @property
    def text(self) -> str:
        """The floor in words, in points."""
        return {
            "no_worse": f"no more than {100 * self.bound:g} points below the baseline",
            "at_least": f"at least {100 * self.bound:g} points",
            "within": f"no more than {self.bound:g} % of its value below the baseline",
            "better": f"more than {100 * self.bound:g} points above the baseline",
        }[self.kind]

    def verdict(self, score: Score | None, baseline: Score | None = None) -> Outcome:
        """Hold ``score`` to this floor.

        MISSING without a score, NEW without a baseline (unless the floor needs none), INCOMPARABLE if the two
        scores differ in what makes numbers comparable or in their documents; otherwise the floor's own rule, as
        its maker describes it.
        """
        if score is None:
            return Outcome(Verdict.MISSING, None, self.text, "there is no result to compare")
        if self.kind == "at_least":
            return self._absolute(score, baseline)
        if baseline is None:
            return Outcome(Verdict.NEW, None, self.text, "there is no baseline for this case yet")
        try:
            comparison = compare(score, baseline, self.confidence)
        except IncomparableError as error:
            return Outcome(Verdict.INCOMPARABLE, None, self.text, str(error))
        verdict, reason = (self._superior if self.kind == "better" else self._not_inferior)(comparison)
        return Outcome(verdict, comparison, self.text, reason)

    def _not_inferior(self, c: Comparison) -> tuple[Verdict, str]:
        margin = self.bound if self.kind == "no_worse" else self.bound / 100 * c.baseline
        span, limit = _span(c), f"{0.0 - 100 * margin:+.2f} points"
        if c.identical:
            return Verdict.PASS, "every document got the same value as in the baseline"
        if c.low >= -margin:
            return Verdict.PASS, f"the whole interval {span} lies above {limit}"
        if c.high < -margin:
            return Verdict.FAIL, f"the whole interval {span} lies below {limit}"
        if c.difference < -margin and c.high < 0 and c.p < 1 - c.confidence:
            return Verdict.FAIL, (
                f"a real loss (interval {span}, p={c.p:.2g}), estimated at more than {_points(margin)} points"
            )
        return Verdict.INCONCLUSIVE, (f"the interval {span} crosses {limit}: {c.n} documents cannot tell")

    def _superior(self, c: Comparison) -> tuple[Verdict, str]:
        margin, span = _points(self.bound), _span(c)
        if c.identical:
            return Verdict.FAIL, "every document got the same value as in the baseline"
        if c.low > self.bound:
            return Verdict.PASS, f"the whole interval {span} lies above {margin} points"
        if c.high <= self.bound:
            return Verdict.FAIL, f"no part of the interval {span} lies above {margin} points"
        return Verdict.INCONCLUSIVE, f"the interval {span} crosses {margin} points: {c.n} documents cannot tell"

    def _absolute(self, score: Score, baseline: Score | None) -> Outcome:
        try:
            low, high = interval(score, self.confidence)
        except IncomparableError as error:
            return Outcome(Verdict.INCOMPARABLE, None, self.text, str(error))
        comparison = None
        if baseline is not None:
            try:
                comparison = compare(score, baseline, self.confidence)
            except IncomparableError:
                comparison = None  # it would only have been shown: the floor itself has no baseline
        verdict = Verdict.PASS if low >= self.bound else Verdict.FAIL if high < self.bound else Verdict.INCONCLUSIVE
        reason = f"{_points(score.value)} points, interval [{_points(low)}, {_points(high)}]"
        return Outcome(verdict, comparison, self.text, reason)


def no_worse(margin: float, confidence: float = 0.95) -> Floor:
    """Non-inferiority: the score is not more than ``margin`` (a share of one) below the baseline.

    PASS if the interval's lower bound is at or above ``-margin``, or no document differs at all. FAIL if the whole
    interval is below ``-margin``; also if the loss is real (interval below 0 and p under alpha) and its estimate
    is more than ``margin``: the best guess is a broken floor, and chance is no longer an excuse. INCONCLUSIVE
    otherwise.

    The interval is two-sided, so each bound is a one-sided test at ``(1 - confidence) / 2``, 2.5 % by default: a case
    truly ``margin`` worse passes at most that often, and one truly no worse fails at most that often.
    """
    return Floor("no_worse", _share("no_worse", margin), confidence)


def at_least(x: float, confidence: float = 0.95) -> Floor:
    """An absolute floor: PASS if the score's own interval is at or above ``x``, FAIL if all of it is below.

    A score that is merely near ``x`` is INCONCLUSIVE, because an absolute floor that looks at the estimate alone
    flakes: prefer :func:`no_worse`, whose paired interval is far narrower.
    """
    return Floor("at_least", _share("at_least", x), confidence)


def within(percent: float, confidence: float = 0.95) -> Floor:
    """As :func:`no_worse`, with a margin of ``percent`` % of the baseline's value (which counts as known)."""
    if not 0 <= percent <= 100:
        raise LayerswapError(f"within({percent}): expected a percentage, 0 to 100")
    return Floor("within", float(percent), confidence)


def better(margin: float = 0.0, confidence: float = 0.95) -> Floor:
    """Superiority: PASS if the whole interval is above ``margin``, FAIL if none of it is or no document differs."""
    return Floor("better", _share("better", margin), confidence)


def failure_text(
    outcome: Outcome,
    score: Score,
    baseline: Score | None,
    *,
    case: str,
    command: str,
    baseline_name: str = "baseline",
    width: int = 100,
) -> str:
    """One readable block of fewer than 25 lines: what fell, by how much, on which documents, and how to see it again.

    ``command`` is printed as it is. Up to three documents with the largest loss are shown, with question and answers
    where ``Score.samples`` has them, each cut to ``width`` characters.
    """
    c = outcome.comparison
    lines = [
        f"{outcome.verdict}: {case} on {score.column} ({score.metric})",
        f"  this case    {_points(c.value if c else score.value):>7} points",
    ]
    if baseline is not None:
        lines.append(f"  {_cut(baseline_name, 12):<12} {_points(c.baseline if c else baseline.value):>7} points")
    if c is not None:
        lines += [
            f"  difference   {100 * c.difference:>+7.2f} points, {100 * c.confidence:g} % interval {_span(c)}, "
            f"n={c.n}, p={c.p:.2g}",
            f"  documents    {c.gained} better, {c.lost} worse ({c.method})",
        ]
    lines += [f"  floor        {outcome.floor_text}", f"  because      {outcome.reason}"]
    if c is not None and baseline is not None:
        lines += _lost_documents(score, baseline, width)
    return "\n".join([*lines, f"  reproduce    {command}"])


def _lost_documents(score: Score, baseline: Score, width: int, most: int = 3) -> list[str]:
    paired = pair(score, baseline)
    losses = sorted((d, i) for i, d in enumerate(paired.differences) if d < 0)
    lines = []
    for _, i in losses[:most]:
        ours, theirs = _sample(score, paired.positions[i]), _sample(baseline, paired.baseline_positions[i])
        shown = ours or theirs
        if score.graded:
            change = f"from {_points(paired.baseline[i] / paired.scale)} to {_points(paired.values[i] / paired.scale)}"
        else:
            change = "right to wrong"
        lines.append(f"  {change}: document {paired.documents[i][:12]}")
        if shown is not None:
            lines += [
                f"    asked      {_tail(shown.prompt, width)}   (expected: {_cut(shown.target, width // 2)})",
                f"    baseline   {_cut(theirs.answer, width) if theirs else '(answer not stored)'}",
                f"    this case  {_cut(ours.answer, width) if ours else '(answer not stored)'}",
            ]
    return lines


def _sample(score: Score, position: int) -> Sample | None:
    return score.samples[position] if len(score.samples) == score.n else None


def _share(name: str, x: float) -> float:
    if not math.isfinite(x) or not 0 <= x <= 1:
        raise LayerswapError(f"{name}({x}): expected a share of one, 0 to 1 (two points are 0.02)")
    return float(x)


def _points(share: float) -> str:
    """Two decimals: with one, a bound just past the margin would print as the margin itself."""
    return f"{100 * share:.2f}"


def _span(c: Comparison) -> str:
    return f"[{100 * c.low:+.2f}, {100 * c.high:+.2f}]"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, width: int) -> str:
    text = _flat(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _tail(text: str, width: int) -> str:
    """The end of a prompt: its beginning is the instruction and the examples, the same for every document."""
    text = _flat(text)
    return text if len(text) <= width else "…" + text[1 - width :]
