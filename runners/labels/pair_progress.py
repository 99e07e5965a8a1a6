"""How far people's labels alone tell two arms apart, and how many more decide it."""

from __future__ import annotations

import math

from rag.evaluation.prediction_powered import (
    MIN_LABELS,
    PredictionPowered,
    any_time_level,
    labels_needed,
    prediction_powered,
)
from rag.text.words import count_noun
from runners.labels.labels import PairLabels
from runners.labels.records import PairProgress

ENOUGH_LABELS = 30
"""Labels of a pair from which the next one is asked for, once it is decided; a judge needs as many to count."""
STATED_FROM = 20
"""Labels from which it is said how many more decide: a few show too little of how grades differ."""


def pair_progress(a: str, b: str, labels: PairLabels, waits_for: str = "") -> PairProgress:
    """Return how far the labels of a pair are.

    Args:
        a: an arm.
        b: the other one.
        labels: of the two.
        waits_for: who is asked the row in front of labels that do not count yet; "" where no one is.
    """
    of, counted = labels.differing, labels.counted
    every = counted >= of
    estimate = more = None
    if labels.rows and (counted >= MIN_LABELS or (every and counted)):
        rows = labels.differences({})
        estimate = prediction_powered(rows, any_time=True)
        more = None if every else labels_needed(rows, level=any_time_level())
    enough = every or counted >= ENOUGH_LABELS
    apart = enough and estimate is not None and not estimate.low <= 0 <= estimate.high and estimate.p <= 0.05
    more = None if apart or more is None or counted < STATED_FROM else _stated(more, labels)
    waiting = ""
    if behind := labels.behind_gap:
        label_counts = "label counts" if behind == 1 else "labels count"
        them, by = "it" if behind == 1 else "them", f" by {waits_for}" if waits_for else ""
        waiting = f"{behind} more {label_counts} once the question in front of {them} is labelled{by}"
    return PairProgress(
        a=a,
        b=b,
        labels=counted,
        of=of,
        behind_gap=labels.behind_gap,
        difference=estimate.difference if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        decided=apart or every,
        settled=enough and (every or apart or more is None),
        more=more,
        forecast=f"{count_of(labels)}; {_forecast(labels, apart, more)}",
        waiting=waiting,
        result=_result(a, b, labels, apart, estimate if enough else None),
    )


def count_of(labels: PairLabels) -> str:
    """Return how many labels of a pair there are."""
    return f"{labels.counted} of {count_noun(labels.differing, 'label')}, by all people"


def _stated(more: int, labels: PairLabels) -> int | None:
    """Return how many more labels are said to decide, above 10 a multiple of 5; None for more than there are."""
    left = labels.differing - labels.counted
    if more > left:
        return None
    needed = max(more, min(ENOUGH_LABELS - labels.counted, left))
    return min(left, needed if needed <= 10 else 5 * math.ceil(needed / 5))


def _forecast(labels: PairLabels, apart: bool, more: int | None) -> str:
    left = labels.differing - labels.counted
    if not labels.differing:
        return "their answers are the same"
    if apart:
        return "they are told apart"
    if not left:
        return "all are labelled, and do not tell them apart"
    if more is not None:
        return f"about {more} more, by all people together, decide"
    if labels.differing <= STATED_FROM:
        return "so few that all are needed"
    if labels.counted < ENOUGH_LABELS:
        if labels.counted < STATED_FROM:
            return f"how many more are needed is said after {STATED_FROM}"
        return f"how many more are needed cannot be said before {min(ENOUGH_LABELS, labels.differing)}"
    return f"so close so far that all {left} others would rather not tell them apart"


def _result(a: str, b: str, labels: PairLabels, apart: bool, estimate: PredictionPowered | None) -> str:
    if estimate is None:
        least = min(ENOUGH_LABELS, labels.differing)
        return (
            f"{a} against {b}: too few labels to say which is better ({count_of(labels)}; {least} are needed)"
        )
    sign = -1 if apart and estimate.difference < 0 else 1
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    by = f"{sign * estimate.difference:+.2f} [{low:+.2f}, {high:+.2f}], 95 %"
    if not apart:
        return f"{a} and {b} are not told apart: mean grade {by} ({count_of(labels)})"
    better, worse = (a, b) if sign > 0 else (b, a)
    return f"{better} is better than {worse}: mean grade {by} ({count_of(labels)})"
