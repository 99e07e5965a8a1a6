"""Where an arm is sure enough to answer: the cut of nearest replies (:func:`fit_reply_cut`) and of a router.

Both are questions of selective prediction (Geifman and El-Yaniv 2017, arXiv 1705.08500): the surer answers are right more
often, and a cut says from where on they are given. The first keeps the share of wrong replies below a share that is stated.
The second (:func:`choose_route_cut`) gives as many questions as it can to the cheap arm of two, without losing what could be
told from noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from rag.refusal.gate import MIN_PER_CUT
from rag.text.words import count_noun
from runners.plan.schema import Plan

MOST_WRONG: Mapping[str, float] = {"low": 0.3, "high": 0.05}
"""Largest share of the given replies that may be wrong, by the plan's answer ``wrong_answer_cost``."""
USUAL_MOST_WRONG = 0.15
"""The same where that is not known."""
CHANCE_ABOVE = 0.2
"""Chance that more than that share of the replies to other questions is wrong, over samples of questions to fit on."""
MIN_ROUTE_QUESTIONS = MIN_PER_CUT
"""Dev questions that both arms of a router must have answered for its cut to be chosen on them."""


def most_wrong_of(plan: Plan) -> float:
    """Return the largest share of given replies that may be wrong, by what a wrong answer costs."""
    answer = plan.answers.get("wrong_answer_cost")
    return MOST_WRONG.get(str(answer.value), USUAL_MOST_WRONG) if answer else USUAL_MOST_WRONG


def enough_for_cut(most_wrong: float) -> int:
    """Return how many questions a cut needs: twice as many as right replies alone would show the share with.

    That is 10, 20 and 63 where 30, 15 and 5 % of the replies may be wrong.
    """
    return max(MIN_PER_CUT, math.ceil(2 * math.log(CHANCE_ABOVE) / math.log(1 - most_wrong)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyCut:
    """From which similarity on a reply is given, and what that did on the questions it was fitted on."""

    cut: float | None
    """None: no similarity was found from which on few enough replies are wrong, so none is given."""
    most_wrong: float
    """Share of the given replies that may be wrong."""
    questions: int
    given: int
    wrong: int


def fit_reply_cut(similarities: Sequence[float], right: Sequence[bool], most_wrong: float) -> ReplyCut:
    """Return the lowest cut at and above which at most a share of the replies is wrong.

    Such a cut has so few wrong replies that they would come by chance in :data:`CHANCE_ABOVE` of the samples, were the share
    just above the stated one (the exact binomial test of Geifman and El-Yaniv 2017, without their correction for several
    cuts: simulated in tests/runners/selective/test_cuts.py, the share on other questions is above the stated one in a fifth
    of the samples at most). It lies in the middle of the gap below the last reply that is given, as that of the refusal
    gate does.

    Args:
        similarities: of each question's nearest reply.
        right: whether that reply is right.
        most_wrong: the share.
    """
    from scipy.special import bdtr

    values = np.asarray(similarities, float)
    order = np.argsort(-values, kind="stable")
    ordered, wrong = values[order], np.cumsum(~np.asarray(right, bool)[order])
    given = np.arange(1, len(values) + 1)
    last_of_equal = np.append(ordered[:-1] > ordered[1:], True) if len(values) else np.empty(0, bool)
    allowed = np.flatnonzero(last_of_equal & (bdtr(wrong.astype(float), given, most_wrong) <= CHANCE_ABOVE))
    if not len(allowed):
        return ReplyCut(cut=None, most_wrong=most_wrong, questions=len(values), given=0, wrong=0)
    last = int(allowed[-1])
    below = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 2e-6
    return ReplyCut(
        cut=float((ordered[last] + below) / 2),
        most_wrong=most_wrong,
        questions=len(values),
        given=last + 1,
        wrong=int(wrong[last]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCut:
    """How sure the first arm of a router must be to answer, and what that did on the dev questions."""

    cut: float | None
    """None: it is never sure enough, and the other arm answers everything."""
    questions: int
    """Dev questions that both arms answered."""
    routed: int
    """Those that the first arm answers."""
    scores: tuple[float, float, float]
    """Mean dev scores: of the first arm alone, of the other one alone, of the router."""
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the cut as `trial/routes.json` has it."""
        return {
            "cut": self.cut,
            "questions": self.questions,
            "routed": self.routed,
            "scores": [round(score, 4) for score in self.scores],
            "reason": self.reason,
        }


def choose_route_cut(
    sure: Sequence[float | None],
    first: Sequence[float],
    otherwise: Sequence[float],
    names: tuple[str, str],
    without_dev: float | None,
) -> RouteCut:
    """Return the cut that gives most questions to the first arm among those that are not clearly worse than the best one.

    A cut is not clearly worse where its mean score is within one standard error of the difference, question by question, of
    the best cut's (the rule of Breiman et al. 1984, with the paired error). The first arm costs next to nothing, so of such
    cuts the one with most questions for it has the lowest price.

    Args:
        sure: of each dev question how sure the first arm is; None where it gives no answer.
        first: the score of its answer.
        otherwise: the score of the other arm's answer.
        names: of the two arms.
        without_dev: the cut where there are fewer than :data:`MIN_ROUTE_QUESTIONS` questions; None for never.
    """
    one, other = (np.asarray(scores, float) for scores in (first, otherwise))
    surety = np.array([-np.inf if value is None else value for value in sure], float)
    count = len(surety)
    if count < MIN_ROUTE_QUESTIONS:
        routed = surety >= (np.inf if without_dev is None else without_dev)
        where = "never" if without_dev is None else f"where it is at least {without_dev:.2f} sure"
        reason = (
            f"{count_noun(count, 'dev question')} are fewer than {MIN_ROUTE_QUESTIONS}: {names[0]} is taken {where}, by "
            "what a wrong answer costs"
        )
        return _route(without_dev, routed, one, other, reason)
    cuts = [None, *sorted({float(value) for value in surety if np.isfinite(value)}, reverse=True)]
    choices = [surety >= (np.inf if cut is None else cut) for cut in cuts]
    scores = [np.where(routed, one, other) for routed in choices]
    best = max(range(len(cuts)), key=lambda n: (fmean(scores[n]), n))
    within = [n for n in range(len(cuts)) if _not_clearly_worse(scores[best] - scores[n])]
    taken = max(within, key=lambda n: int(choices[n].sum()))
    share, asked = int(choices[taken].sum()), count_noun(count, "dev question")
    if not share:
        reason = f"{names[0]} is never sure enough: {names[1]} is better on {asked}"
    elif share == count:
        reason = f"{names[0]} is always sure enough: on {asked} {names[1]} is not clearly better"
    else:
        reason = (
            f"{names[0]} is taken for {share} of {asked}, the most within one standard error of the best cut "
            f"({fmean(scores[taken]):.2f} and {fmean(scores[best]):.2f})"
        )
    cut = cuts[taken]
    if cut is not None and taken + 1 < len(cuts):
        cut = (cut + float(cuts[taken + 1] or 0.0)) / 2
    return _route(cut, choices[taken], one, other, reason)


def _not_clearly_worse(differences: np.ndarray) -> bool:
    """Return whether a mean difference is within one standard error of zero."""
    return fmean(differences) <= stdev(differences) / len(differences) ** 0.5 + 1e-12


def _route(
    cut: float | None, routed: np.ndarray, one: np.ndarray, other: np.ndarray, reason: str
) -> RouteCut:
    count = len(routed)
    means = (
        tuple(float(fmean(scores)) for scores in (one, other, np.where(routed, one, other)))
        if count
        else (0.0,) * 3
    )
    return RouteCut(
        cut=cut,
        questions=count,
        routed=int(routed.sum()),
        scores=(means[0], means[1], means[2]),
        reason=reason,
    )
