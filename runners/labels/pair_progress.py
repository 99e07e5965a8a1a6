"""How far people's labels alone tell two arms apart, and how many more decide it."""

from __future__ import annotations

from rag.evaluation.prediction_powered import MIN_LABELS, any_time_level, labels_needed, prediction_powered
from rag.text.words import count_noun
from runners.labels.labels import PairLabels
from runners.labels.records import PairProgress

ENOUGH_LABELS = 30
"""Labels of a pair from which the next one is asked for, once it is decided; a judge needs as many to count."""
STATED_FROM = 10
"""Labels from which it is said how many more decide: a few show too little of how grades differ."""


def pair_progress(a: str, b: str, labels: PairLabels) -> PairProgress:
    """Return how far the labels of a pair are."""
    of, counted = labels.differing, labels.counted
    every = counted >= of
    estimate = more = None
    if labels.rows and (counted >= MIN_LABELS or (every and counted)):
        rows = labels.differences({})
        estimate = prediction_powered(rows, any_time=True)
        more = labels_needed(rows, level=any_time_level())
    enough = every or counted >= ENOUGH_LABELS
    apart = enough and estimate is not None and not estimate.low <= 0 <= estimate.high and estimate.p <= 0.05
    left = of - counted
    decided = apart or every
    reachable = more is not None and more <= left
    return PairProgress(
        a=a,
        b=b,
        labels=counted,
        of=of,
        behind_gap=labels.behind_gap,
        difference=estimate.difference if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        decided=decided,
        settled=enough and (every or apart or not reachable),
        more=None if decided or not reachable or counted < STATED_FROM else more,
        text=_sentence(a, b, labels, apart, more if reachable else None),
    )


def _sentence(a: str, b: str, labels: PairLabels, apart: bool, more: int | None) -> str:
    count = f"{count_noun(labels.counted, 'label')} of {labels.differing}"
    left = labels.differing - labels.counted
    if not labels.differing:
        text = f"{a} and {b} give the same answers"
    elif apart:
        text = f"{count}: {a} and {b} are told apart by people's labels"
    elif not left:
        text = f"{count}: all are labelled, and {a} and {b} are not told apart"
    elif labels.counted < STATED_FROM:
        text = f"{count}: how many more decide {a} against {b} can be said after {min(STATED_FROM, labels.differing)}"
    elif more is None:
        text = f"{count}: {a} and {b} are so close that not even all {left} others would tell them apart"
    else:
        text = f"{count}: about {more} more decide {a} against {b}"
    if labels.behind_gap:
        text += f"; {labels.behind_gap} do not count before earlier ones are labelled"
    return text
