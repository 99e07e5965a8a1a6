"""What the answers took of a model that searches by itself: a histogram each of requests, tokens and seconds.

Answers that ended at a limit of the plan are drawn in a colour of their own, on top of the others; so is the limit itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from advisor.report.charts import Axis
from advisor.report.statements import spread_text
from rag.text.words import count_noun
from runners.plan.steps import EvaluateStep
from runners.report.lookups import LookupSummary, Spread
from runners.report.trial_report import TrialReport

BINS = 24
"""Bars over the width of a histogram, at most."""
BARS_HEIGHT = 44
"""Pixels."""
FAR_LIMIT = 2.5
"""A limit beyond so many times the largest value is not drawn: all answers would be at the left end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupChart:
    """The histograms of an arm, each as its name, SVG, the labels of its scale, and its quartiles."""

    arm: str
    answers: str
    """How many there are."""
    rows: tuple[tuple[str, str, str, Spread], ...]
    limits: bool
    """Whether an answer ended at a limit, or a limit is drawn."""


def lookup_charts(
    report: TrialReport, answers: Sequence[Mapping[str, Any]], steps: Sequence[EvaluateStep]
) -> list[LookupChart]:
    """Draw what the answers of each arm took that looks things up itself.

    Args:
        report: of the run.
        answers: the rows of the trial's journal, of all arms.
        steps: the evaluate steps of the plan, for their limits.
    """
    limits = {step.arm: step.lookups for step in steps}
    charts = []
    for arm in report.arms:
        rows = [row for row in answers if row["arm"] == arm.arm and "lookups" in row]
        if arm.lookups is not None and rows:
            own = limits.get(arm.arm)
            most = (own.steps, own.tokens, own.seconds) if own else (None, None, None)
            charts.append(_chart(arm.arm, arm.lookups, rows, most))
    return charts


def _chart(
    arm: str,
    summary: LookupSummary,
    rows: Sequence[Mapping[str, Any]],
    most: Sequence[float | None],
) -> LookupChart:
    """Draw the answers of an arm; ``most`` has the limits of requests, tokens and seconds."""
    ended = [bool(row["lookups"].get("limit")) for row in rows]
    taken = {
        "requests": ([row["lookups"]["requests"] for row in rows], summary.requests),
        "tokens": ([row["prompt_tokens"] + row["completion_tokens"] for row in rows], summary.tokens),
        "seconds": ([row["seconds"] for row in rows], summary.seconds),
    }
    drawn = []
    any_limit = any(ended)
    for (name, (values, spread)), limit in zip(taken.items(), most, strict=True):
        shown = limit if limit is not None and limit <= FAR_LIMIT * max(values) else None
        any_limit = any_limit or shown is not None
        whole = name == "requests"  # each number of requests has a bar
        end = max(*values, shown or 0.0, 0.001)
        axis = Axis(name, 0.5, end + 0.5) if whole else Axis(name, 0.0, 1.05 * end)
        bins = _counts(values, ended, axis, min(BINS, round(end)) if whole else BINS)
        marks = spread.median, None if shown is None else shown + 0.5 * whole
        alt_text = f"{name} of {count_noun(len(values), 'answer')}: {spread_text(spread)}; {sum(ended)} ended at a limit"
        drawn.append((name, _histogram(bins, axis, marks, alt_text), _scale(axis, whole), spread))
    return LookupChart(arm=arm, answers=count_noun(len(rows), "answer"), rows=tuple(drawn), limits=any_limit)


def _counts(values: Sequence[float], ended: Sequence[bool], axis: Axis, bins: int) -> list[tuple[int, int]]:
    """Return how many values are in each bin, those of answers that ended at a limit apart from the others."""
    counts = [[0, 0] for _ in range(bins)]
    for value, at_limit in zip(values, ended, strict=True):
        counts[min(bins - 1, int(bins * axis.share(value)))][at_limit] += 1
    return [(others, limited) for others, limited in counts]


def _histogram(
    bins: Sequence[tuple[int, int]], axis: Axis, marks: tuple[float, float | None], alt_text: str
) -> str:
    """Draw counts from left to right, with marks at the median and at the limit."""
    height = BARS_HEIGHT / max(map(sum, bins))
    parts = f'<line class="grid" x1="0" x2="100%" y1="{BARS_HEIGHT}" y2="{BARS_HEIGHT}"/>'
    for number, pair in enumerate(bins):
        top = float(BARS_HEIGHT)
        for count, css_class in zip(pair, ("answers", "answers ended"), strict=True):
            top -= height * count
            if count:
                parts += (
                    f'<rect class="{css_class}" x="{100 * (number + 0.05) / len(bins):.2f}%" width="{90 / len(bins):.2f}%" '
                    f'y="{top:.1f}" height="{height * count:.1f}"/>'
                )
    for css_class, value in zip(("likely", "room"), marks, strict=True):
        if value is not None:
            at = axis.x_percent(value)
            parts += f'<line class="{css_class}" x1="{at}" x2="{at}" y1="-2" y2="{BARS_HEIGHT + 4}"/>'
    return f'<svg width="100%" height="{BARS_HEIGHT + 4}" role="img" aria-label="{escape(alt_text)}">{parts}</svg>'


def _scale(axis: Axis, whole: bool) -> str:
    """Draw the labels of a scale below its histogram; ``whole`` for whole numbers alone."""
    ticks = [tick for tick in axis.ticks if not whole or tick == int(tick)]
    text = "".join(
        f'<text x="{axis.x_percent(tick)}" y="12" text-anchor="{axis.anchor(tick)}">{axis.label(tick)}</text>'
        for tick in ticks[:: 2 if len(ticks) > 4 else 1]
    )
    return f'<svg class="scale" width="100%" height="16" aria-hidden="true" focusable="false">{text}</svg>'
