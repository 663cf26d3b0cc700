"""A verdict as a person reads it at the end of a failing test."""

from __future__ import annotations

from harness.evaluation.scores import Sample, Score
from harness.gating.floors import Outcome, interval_text, points
from harness.gating.pairing import pair


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
        f"  this case    {points(c.value if c else score.value):>7} points",
    ]
    if baseline is not None:
        lines.append(f"  {_cut(baseline_name, 12):<12} {points(c.baseline if c else baseline.value):>7} points")
    if c is not None:
        good = c if score.higher_is_better else c.reversed
        lines += [
            f"  difference   {100 * c.difference:>+7.2f} points, {100 * c.confidence:g} % interval {interval_text(c)}, "
            f"n={c.n}, p={c.p:.2g}",
            f"  documents    {good.gained} better, {good.lost} worse ({c.method})",
        ]
    lines += [f"  floor        {outcome.floor_text}", f"  because      {outcome.reason}"]
    if c is not None and baseline is not None:
        lines += _lost_documents(score, baseline, width)
    return "\n".join([*lines, f"  reproduce    {command}"])


def _lost_documents(score: Score, baseline: Score, width: int, most: int = 3) -> list[str]:
    paired = pair(score, baseline)
    sign = 1 if score.higher_is_better else -1
    losses = sorted((sign * d, i) for i, d in enumerate(paired.differences) if sign * d < 0)
    lines = []
    for _, i in losses[:most]:
        ours, theirs = _sample(score, paired.positions[i]), _sample(baseline, paired.baseline_positions[i])
        shown = ours or theirs
        if score.graded or not score.higher_is_better:
            change = f"from {points(paired.baseline[i] / paired.scale)} to {points(paired.values[i] / paired.scale)}"
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


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, width: int) -> str:
    text = _flat(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _tail(text: str, width: int) -> str:
    """The end of a prompt: its beginning is the instruction and the examples, the same for every document."""
    text = _flat(text)
    return text if len(text) <= width else "…" + text[1 - width :]
