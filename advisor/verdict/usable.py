"""How many of ten questions an arm must surely answer right before it is used, and why none reaches that threshold.

**The rule.** Counted are the questions that have an answer, so refusing is never right. An arm is usable when its share of
right answers is surely above the threshold: the lower bound of :func:`rag.evaluation.statistics.clustered_share`, one-sided
at 5 %, corrected for the number of arms by Holm's steps; of an arm for which a judge counts
(:mod:`runners.judging.calibration`) that of its mean grade. So where no arm is above the threshold, one is called usable in
at most 5 % of trials. With fewer than :data:`advisor.verdict.comparison.LEANING_BELOW` such questions, with questions of one
or two documents, and after ``--quick`` nothing is sure: an arm passes when its own share reaches the threshold, which is a
tendency, and "too few to say whether any can be used" is said. Without gold there is no threshold.

The threshold is the answer ``usable_from``; unknown, it is :data:`USABLE_FROM`, or :data:`USABLE_FROM_COSTLY` where a wrong
answer is expensive.

:func:`why_none` splits what was measured of the arm that comes closest: whether the search finds the right document, what
the model answers when it is shown a passage of it, and what is refused wrongly. The first of these that alone keeps the
share below the threshold is named as the cause; a model that cannot read its passages is the cause where these are found.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from advisor.verdict.comparison import LEANING_BELOW, SIGNIFICANCE_LEVEL, STATISTICAL_POWER, mean_grade
from advisor.verdict.predictions import is_quick
from advisor.verdict.right_answers import RIGHT, UNANSWERABLE_SCORE, counted
from rag.evaluation.clusters import cluster_by_document, clustered_error, document_groups
from rag.evaluation.statistics import Interval, clustered_share
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.report.arm_scores import ITSELF
from runners.report.records import AnswerCount, Estimate, Unusable
from runners.trial.trial import ArmScores

USABLE_FROM = 0.5
"""Share of right answers from which an arm is usable, where it was not answered."""
USABLE_FROM_COSTLY = 0.8
"""The same where a wrong answer is expensive."""
FALSE_REFUSAL = "false_refusal"
"""The score that exactly the questions with an answer have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableCheck:
    """Which arms are above the threshold."""

    threshold: float
    answerable: Mapping[str, ArmScores]
    """Each arm's scores of the questions that have an answer and gold; without gold only where a judge counts for it."""
    usable: frozenset[str]
    tendency: bool
    """Whether nothing is sure, so that the arms' own shares decided."""

    @property
    def counts(self) -> dict[str, AnswerCount]:
        """Right answers of each arm to the questions that have one."""
        return {
            name: replace(counted(arm.of(RIGHT)), asked_share=arm.mean_of(RIGHT) if arm.asked else None)
            for name, arm in self.answerable.items()
        }

    @property
    def failing(self) -> dict[str, str]:
        """The arms below the threshold, each with the reason."""
        reasons = {}
        for name, count in self.counts.items():
            graded = mean_grade(self.answerable[name])
            share = count.share if graded is None else graded.difference
            short = "below" if share < self.threshold else "not clearly above"
            least = f"{10 * self.threshold:g} of 10"
            if name not in self.usable and graded is not None:
                grade = f"{graded.difference:.2f} [{graded.low:.2f}, {graded.high:.2f}]"
                reasons[name] = (
                    f"has a mean grade of {grade} by {count_noun(graded.labels, 'label')} and the judge, {short} {least}"
                )
            elif name not in self.usable:
                reasons[name] = f"is right on {count.text} answerable questions, {short} {least}"
        return reasons


def usable_from(plan: Plan) -> float:
    """Return the threshold of a plan's answers."""
    answer = plan.answers.get("usable_from")
    value = None if answer is None else answer.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    cost = plan.answers.get("wrong_answer_cost")
    return USABLE_FROM_COSTLY if cost is not None and cost.value == "high" else USABLE_FROM


def check_usable(plan: Plan, arms: Mapping[str, ArmScores]) -> UsableCheck | None:
    """Return which arms are above the threshold, by the rule of this module; None where no answer with gold was judged."""
    answerable = {name: _answerable(arm) for name, arm in arms.items()}
    answerable = {name: arm for name, arm in answerable.items() if arm.of(RIGHT)}
    if not answerable:
        return None
    threshold = usable_from(plan)
    tendency = is_quick(plan) or any(map(_shows_a_tendency, answerable.values()))
    if tendency:
        usable = [name for name, arm in answerable.items() if _share(arm) >= max(threshold, 1e-9)]
    else:
        usable = _surely_above(threshold, answerable)
    return UsableCheck(
        threshold=threshold, answerable=answerable, usable=frozenset(usable), tendency=tendency
    )


def _answerable(arm: ArmScores) -> ArmScores:
    graded = ITSELF in arm.graded
    return arm.part(
        [(graded or RIGHT in scores) and UNANSWERABLE_SCORE not in scores for scores in arm.scores]
    )


def _shows_a_tendency(arm: ArmScores) -> bool:
    return arm.question_count < LEANING_BELOW or not cluster_by_document(arm.sources()).by_document


def _surely_above(threshold: float, arms: Mapping[str, ArmScores]) -> list[str]:
    """Return the arms whose share is surely above the threshold: Holm's steps, the arm that is furthest above first."""
    above: list[str] = []
    while left := [name for name in arms if name not in above]:
        level = 1 - 2 * SIGNIFICANCE_LEVEL / len(left)
        low = {name: _lower_bound(arms[name], level) for name in left}
        best = max(left, key=lambda name: low[name])
        if not low[best] > threshold:
            break
        above.append(best)
    return above


def _share(arm: ArmScores) -> float:
    graded = mean_grade(arm)
    return arm.mean_of(RIGHT) if graded is None else graded.difference


def _lower_bound(arm: ArmScores, level: float) -> float:
    if (graded := mean_grade(arm, level)) is not None:
        return graded.low
    return clustered_share(
        arm.by_question(RIGHT), arm.sources(RIGHT), level, arm.weights_by_question(RIGHT)
    ).low


def why_none(check: UsableCheck, retrieving: Collection[str], model_of: Mapping[str, str]) -> Unusable:
    """Return why no arm is above the threshold, split by what was measured.

    Args:
        check: of a trial in which no arm is usable.
        retrieving: the arms that search.
        model_of: the name of each arm's model.
    """
    share = {name: _share(arm) for name, arm in check.answerable.items()}
    best = max(share, key=lambda name: share[name])
    searching = [name for name in share if name in retrieving]
    # The arm that searches says most about the cause: one without may be right as seldom, but shows no passage.
    split = max(searching, key=lambda name: share[name]) if searching else best
    arm = check.answerable[split]
    hits = arm.hits or (None,) * len(arm.questions)
    shown = [
        scores[RIGHT] for scores, hit in zip(arm.scores, hits, strict=True) if hit == 1 and RIGHT in scores
    ]
    retrieved, read, wrongly = (
        counted(values) if values else None
        for values in ([hit for hit in hits if hit is not None], shown, arm.of(FALSE_REFUSAL))
    )
    cause = (
        "few"
        if share[best] > check.threshold
        else _cause(check.threshold, share[split], retrieved, read, wrongly if searching else None)
    )
    grade = mean_grade(check.answerable[best])
    why = Unusable(
        arm=best,
        right=check.counts[best],
        usable_from=check.threshold,
        split=split,
        retrieved=retrieved,
        read=read,
        refused_wrongly=wrongly,
        cause=cause,
        tendency=check.tendency and _interval(check.answerable[best]).high >= check.threshold,
        more_questions_needed=_needed(check, best) if cause == "few" and grade is None else None,
        grade=Estimate(mean=grade.difference, low=grade.low, high=grade.high) if grade else None,
        why="",
        next="",
    )
    model = model_of[split]
    labels_left = grade is not None and None in check.answerable[best].graded[ITSELF].differences.labels
    return replace(why, why=_why(why, model), next=_next(why, model, labels_left))


def _cause(
    threshold: float,
    share: float,
    retrieved: AnswerCount | None,
    read: AnswerCount | None,
    wrongly: AnswerCount | None,
) -> str:
    """Return what alone keeps the share low: search, refusals or model; "arms" where no search was measured.

    ``wrongly`` is of an arm that searches: questions of others are refused by the model, not by the gate.
    """
    answered = 1 - wrongly.share if wrongly else 1.0
    if retrieved and retrieved.share < threshold:
        return "search"
    if wrongly and answered < threshold and (not answered or share / answered >= threshold):
        return "refusals"
    if retrieved and read:
        return "model"
    return "arms"


def _needed(check: UsableCheck, best: str) -> int | None:
    """Return how many more questions would show that an arm is above the threshold, at the share seen."""
    import numpy as np

    arm, level = check.answerable[best], SIGNIFICANCE_LEVEL / len(check.answerable)
    values = np.array(arm.by_question(RIGHT))
    share, least = float(values.mean()), check.threshold
    weights = arm.weights_by_question(RIGHT)
    error = clustered_error(values, document_groups(values, arm.sources(RIGHT), weights))
    # The bound is reached at the error of an arm at the threshold; what varies about the share seen is its own error.
    at_least = math.sqrt(
        least * (1 - least) * (error**2 / (share * (1 - share)) if share < 1 else 1 / values.size)
    )
    normal = NormalDist()
    away = normal.inv_cdf(1 - level) * at_least + normal.inv_cdf(STATISTICAL_POWER) * error
    total = max(values.size * (away / (share - least)) ** 2, LEANING_BELOW)
    return max(1, math.ceil(total) - values.size)


def _interval(arm: ArmScores) -> Interval:
    return clustered_share(arm.by_question(RIGHT), arm.sources(RIGHT), weights=arm.weights_by_question(RIGHT))


def _why(why: Unusable, model: str) -> str:
    """Return why no arm can be used yet, in one line."""
    parts = []
    if why.retrieved:
        parts.append(f"the search finds the right document for {why.retrieved.share:.0%}")
    if why.read:
        parts.append(f"{model} answers {why.read.share:.0%} right with it")
    if why.refused_wrongly and (parts or why.refused_wrongly.n):
        parts.append(f"{why.refused_wrongly.share:.0%} are refused wrongly")
    line = why.shortfall
    if why.cause == "few":
        line += ", which is not clearly above that"
    if why.tendency:
        line += ": too few questions to say whether any can be used"
    return line + (f"; measured on {why.split}: {_listed(parts)}" if parts else "")


def _next(why: Unusable, model: str, labels_left: bool) -> str:
    """Return what to do where no arm can be used yet, by its cause, and by whether people can still label answers."""
    if why.cause == "few":
        if labels_left:
            return f"more labels would show whether {why.arm} can be used: tunewise label QUESTIONS --run RUN"
        needed = why.more_questions_needed
        return (
            f"{f'about {needed:,} ' if needed else ''}more questions would show whether {why.arm} can be used"
        )
    return {
        "model": f"the cause is the model and not the method, as {model} does not read its passages: try a larger model, "
        "or give more examples whose replies are taken from passages",
        "search": "the cause is the search: give the documents that contain the answers, or more wordings of the questions, "
        "and tune the index on them (tunewise index tune)",
        "refusals": "the cause is the gate that refuses: set refusal.gate to lenient in the plan, or give other documents",
        "arms": "try a larger model, more examples, or documents that contain the answers",
    }[why.cause]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
