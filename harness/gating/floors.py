"""Floors: what a case must not fall under, and what came of it.

A floor decides on the interval of the paired difference, never on a rounded number. See ``docs/gating.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from harness.cache import Cache
from harness.errors import LayerswapError
from harness.evaluation.scores import Score
from harness.gating.pairing import IncomparableError
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


class _Side(NamedTuple):
    """Where better and worse values lie, in words, and the sign of a gain."""

    better: str
    worse: str
    sign: int


@dataclass(frozen=True)
class Floor:
    """A bound on one score, made by :func:`no_worse`, :func:`at_least`, :func:`within` or :func:`better`.

    ``bound`` is a share of one (0.02 is two points), except for ``within``, where it is a percentage. For a score of
    which less is better (``Score.higher_is_better`` is False) every floor bounds it from above.
    """

    kind: Literal["no_worse", "at_least", "within", "better"]
    bound: float
    confidence: float = 0.95

    @property
    def text(self) -> str:
        """The floor in words, in points, for a metric of which more is better."""
        return self.describe()

    def describe(self, higher_is_better: bool = True) -> str:
        """The floor in words, in points; for a metric of which less is better it bounds from the other side."""
        worse, better, least = ("below", "above", "least") if higher_is_better else ("above", "below", "most")
        return {
            "no_worse": f"no more than {100 * self.bound:g} points {worse} the baseline",
            "at_least": f"at {least} {100 * self.bound:g} points",
            "within": f"no more than {self.bound:g} % of its value {worse} the baseline",
            "better": f"more than {100 * self.bound:g} points {better} the baseline",
        }[self.kind]

    def verdict(self, score: Score | None, baseline: Score | None = None, cache: Cache | None = None) -> Outcome:
        """Hold ``score`` to this floor; ``cache`` is where comparisons are kept.

        MISSING without a score, NEW without a baseline (unless the floor needs none), INCOMPARABLE if the two
        scores differ in what makes numbers comparable or in their documents; otherwise the floor's own rule, as
        its maker describes it.
        """
        known = score or baseline
        text = self.describe(known is None or known.higher_is_better)
        if score is None:
            return Outcome(Verdict.MISSING, None, text, "there is no result to compare")
        if self.kind == "at_least":
            return self._absolute(score, baseline, cache)
        if baseline is None:
            return Outcome(Verdict.NEW, None, text, "there is no baseline for this case yet")
        try:
            comparison = compare(score, baseline, self.confidence, cache)
        except IncomparableError as error:
            return Outcome(Verdict.INCOMPARABLE, None, text, str(error))
        verdict, reason = self.judge(comparison, score.higher_is_better)
        return Outcome(verdict, comparison, text, reason)

    def judge(self, comparison: Comparison, higher_is_better: bool = True) -> tuple[Verdict, str]:
        """The verdict on a comparison made before, with its reason in one sentence.

        ``comparison`` is value minus baseline whatever the direction, and has to have this floor's confidence. Raises
        :class:`ValueError` for ``at_least``, which holds a score and not a comparison.
        """
        if self.kind == "at_least":
            raise ValueError("at_least holds a score by itself: use verdict")
        # Seen from the baseline, a rise of a metric of which less is better is a drop.
        good = comparison if higher_is_better else comparison.reversed
        side = _Side("above", "below", 1) if higher_is_better else _Side("below", "above", -1)
        if self.kind == "better":
            return self._superior(good, side, interval_text(comparison))
        margin = self.bound if self.kind == "no_worse" else self.bound / 100 * comparison.baseline
        return self._not_inferior(good, margin, side, interval_text(comparison))

    def _not_inferior(self, good: Comparison, margin: float, side: _Side, span: str) -> tuple[Verdict, str]:
        limit = f"{0.0 - 100 * margin * side.sign:+.2f} points"
        if good.identical:
            return Verdict.PASS, "every document got the same value as in the baseline"
        if good.low >= -margin:
            return Verdict.PASS, f"the whole interval {span} lies {side.better} {limit}"
        if good.high < -margin:
            return Verdict.FAIL, f"the whole interval {span} lies {side.worse} {limit}"
        if good.difference < -margin and good.high < 0 and good.p < 1 - good.confidence:
            return Verdict.FAIL, (
                f"a real loss (interval {span}, p={good.p:.2g}), estimated at more than {points(margin)} points"
            )
        return Verdict.INCONCLUSIVE, f"the interval {span} crosses {limit}: {good.n} documents cannot tell"

    def _superior(self, good: Comparison, side: _Side, span: str) -> tuple[Verdict, str]:
        limit = f"{points(self.bound * side.sign)} points"
        if good.identical:
            return Verdict.FAIL, "every document got the same value as in the baseline"
        if good.low > self.bound:
            return Verdict.PASS, f"the whole interval {span} lies {side.better} {limit}"
        if good.high <= self.bound:
            return Verdict.FAIL, f"no part of the interval {span} lies {side.better} {limit}"
        return Verdict.INCONCLUSIVE, f"the interval {span} crosses {limit}: {good.n} documents cannot tell"

    def _absolute(self, score: Score, baseline: Score | None, cache: Cache | None) -> Outcome:
        text = self.describe(score.higher_is_better)
        try:
            low, high = interval(score, self.confidence)
        except IncomparableError as error:
            return Outcome(Verdict.INCOMPARABLE, None, text, str(error))
        comparison = None
        if baseline is not None:
            try:
                comparison = compare(score, baseline, self.confidence, cache)
            except IncomparableError:
                comparison = None  # it would only have been shown: the floor itself has no baseline
        if score.higher_is_better:
            passed, failed = low >= self.bound, high < self.bound
        else:
            passed, failed = high <= self.bound, low > self.bound
        verdict = Verdict.PASS if passed else Verdict.FAIL if failed else Verdict.INCONCLUSIVE
        reason = f"{points(score.value)} points, interval [{points(low)}, {points(high)}]"
        return Outcome(verdict, comparison, text, reason)


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

    Where less is better it reads at most: PASS if the interval is at or below ``x``, FAIL if all of it is above.

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


def _share(name: str, x: float) -> float:
    if not math.isfinite(x) or not 0 <= x <= 1:
        raise LayerswapError(f"{name}({x}): expected a share of one, 0 to 1 (two points are 0.02)")
    return float(x)


def points(share: float) -> str:
    """Two decimals: with one, a bound just past the margin would print as the margin itself."""
    return f"{100 * share:.2f}"


def interval_text(c: Comparison) -> str:
    """The interval of a comparison, in points."""
    return f"[{100 * c.low:+.2f}, {100 * c.high:+.2f}]"
