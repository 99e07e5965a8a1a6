"""How many more questions would decide an open verdict: a power calculation at the difference seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from advisor.comparison import SURE, Contest
from rag.clusters import FEWEST

POWER = 0.8
"""Chance that so many questions decide, if the difference is the one seen."""


@dataclass(frozen=True, slots=True)
class Needed:
    """Further questions, and the documents' worth of them where questions share documents."""

    questions: int
    documents: int | None


def more_needed(open_contests: Sequence[Contest]) -> Needed | None:
    """Return what would decide; None when no number would, because a difference is exactly what it must exceed.

    An open verdict ends in one of two ways. If an arm that must be beaten is ahead, it ends when the nearest such arm
    is surely ahead, at the strictest of Holm's levels; else when the last of the open pairs is surely beaten. The
    standard error shrinks with the square root of the number of documents, new ones holding as many questions each.
    """
    behind = [c for c in open_contests if c.pair.difference < c.by]
    if behind:
        return _least([_needed(c, SURE / len(open_contests)) for c in behind])
    found = [_needed(c, SURE) for c in open_contests]
    if not found or None in found:
        return None
    return max((each for each in found if each), key=lambda each: each.questions)


def _least(found: Sequence[Needed | None]) -> Needed | None:
    return min((each for each in found if each), key=lambda each: each.questions, default=None)


def _needed(contest: Contest, level: float) -> Needed | None:
    pair, gap = contest.pair, abs(contest.pair.difference - contest.by)
    if gap == 0 or math.isnan(pair.error):
        return None
    normal = NormalDist()
    wanted = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)
    fewest = FEWEST * pair.questions / pair.units
    total = max(fewest, pair.questions * (wanted * pair.error / gap) ** 2)
    more = max(1, math.ceil(total) - pair.questions)
    clustered = pair.units < pair.questions
    return Needed(more, math.ceil(more * pair.units / pair.questions) if clustered else None)
