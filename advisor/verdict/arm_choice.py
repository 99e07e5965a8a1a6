"""The arm to use: which arms can meet what was said in the answers, and which of those is taken by default.

``ask``, ``chat``, ``serve`` and ``export`` take this arm. The verdict's ``winner`` is the measured one by the combined
score alone; an arm can win there and still be of no use, because it names no sources where they are demanded.

**What an arm must meet** (:data:`REQUIREMENTS`), where it was answered so:

- ``must_cite``: it retrieves, and at least one of its answers cites a passage that supports it;
- ``data_must_stay_local``, ``hosted_api_allowed``: it asks no hosted model;
- ``output_format`` labels, json or fixed: most of its answers have that form;
- ``latency_p95_ms``: an answer alone takes no longer, where that was measured;
- ``absence_is_legal``: it does not surely invent more values than the arm that invents fewest;
- ``wrong_answer_cost`` high: its right answers are not surely fewer than those of the arm with most, and it refuses
  questions without an answer where others do.

**Which of those is taken.** An arm without a right answer never is, nor one that surely has fewer right answers than
the one with most. An arm that only explains the others is left out unless it is surely better than all of them. Of the
rest it is the recommended arm when the verdict is confirmed, else the cheapest within noise of the best. With fewer
than :data:`advisor.verdict.comparison.LEANING_BELOW` questions, or ten documents, "within noise" holds for nearly every
arm: 1 of 24 and 6 of 24 right are within noise of each other. So there the best one is taken, unless a cheaper one is
close by its own numbers: at most :data:`CLOSE_SHARE` of the questions, or a single question, fewer right, and a combined
score no more than that below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from advisor.costs.arm_costs import COMPARISON_ARMS, UpkeepCost
from advisor.verdict.comparison import (
    SIGNIFICANCE_LEVEL,
    ArmStanding,
    best_combined,
    compare_arms,
    corrected_comparisons,
    finds_little,
    mean_combined,
    surely_below,
)
from advisor.verdict.right_answers import RIGHT, UNANSWERABLE_SCORE, right_answers
from rag.text.words import count_noun
from runners.models.endpoint import is_private
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.trial.trial import ArmScores

CLOSE_SHARE = 0.05
"""Share of the questions by which a cheaper arm may be behind with few questions: one of twenty."""
MIN_VALID_SHARE = 0.5
"""Least share of answers in the demanded form; below it a program that reads them fails more often than not."""
MIN_UNANSWERABLE = 3
"""Fewest questions without an answer that show whether an arm refuses at all."""
REFUSING_SHARE = 0.5
"""Share of right refusals from which an arm counts as one that refuses."""


@dataclass(frozen=True, slots=True)
class ArmToUse:
    """The arm that is taken by default, and why."""

    arm: str | None
    """None where no arm can meet what was said."""
    reason: str
    """One sentence."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Arms that cannot meet what was said, or were not trained as planned, each with the reason."""
    outdone: frozenset[str] = frozenset()
    """Those of them that are out only because another arm does better: they stay alternatives."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The measured arms that can be compared, with what the choice among them needs."""

    plan: Plan
    arms: Mapping[str, ArmScores]
    costs: Mapping[str, UpkeepCost]
    seconds_alone: Mapping[str, float] = field(default_factory=dict)
    """95th percentile of the seconds of an answer that is asked alone; arms that were not timed so are missing."""

    def step(self, arm: str) -> EvaluateStep:
        """Return an arm's step; one without any settings for an arm that the plan does not have."""
        return next((step for step in self.plan.arms if step.arm == arm), EvaluateStep(arm=arm))

    def answer(self, key: str) -> Any:
        """Return an answer that the plan records; None when it is unknown."""
        recorded = self.plan.answers.get(key)
        return None if recorded is None else recorded.value

    def says_yes(self, key: str) -> bool:
        """Return whether a question was answered with yes."""
        return self.answer(key) in (True, "yes", "true")

    def only(self, names: Sequence[str]) -> Trial:
        """Return the same trial with these arms only."""
        return Trial(self.plan, {name: self.arms[name] for name in names}, self.costs, self.seconds_alone)


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that was said and that an arm must meet."""

    demand: str
    """What was said, as a clause."""
    remedy: str
    """What to do when no arm meets it."""
    failing: Callable[[Trial], Mapping[str, str]]
    """Returns the arms that do not meet it, each with the reason; {} where it was not said."""
    relative: bool = False
    """Whether it compares the arms that are left, so that it never fails for all of them."""


def choose_arm(
    trial: Trial,
    standing: ArmStanding,
    confirmed: bool,
    lost: Mapping[str, str] | None = None,
) -> ArmToUse:
    """Return the arm to use, by the rule of this module.

    Args:
        trial: the arms that were compared.
        standing: the recommended arm compared with the others.
        confirmed: whether the verdict confirms the recommended arm.
        lost: arms that were not trained as planned, each with the count of its rows in words.
    """
    excluded = {name: f"was not trained as planned: {rows}" for name, rows in (lost or {}).items()}
    remaining = trial
    failed: list[tuple[Requirement, Sequence[str]]] = []
    outdone: set[str] = set()
    for requirement in REQUIREMENTS:
        failing = requirement.failing(remaining)
        if failing:
            excluded |= failing
            failed.append((requirement, tuple(failing)))
            outdone |= set(failing) if requirement.relative else set()
            remaining = remaining.only([name for name in remaining.arms if name not in failing])
    if not remaining.arms:
        return ArmToUse(None, _nothing_meets(failed, excluded), excluded)
    useful = _useful(remaining)
    if not useful.arms:
        asked = max(right.of for right in map(right_answers, remaining.arms.values()) if right)
        reason = (
            f"no arm that could be used answers one of the {asked} questions right: look at the answers in report.html, "
            "then try a larger model"
        )
        return ArmToUse(None, reason, excluded)
    if confirmed and standing.choice in useful.arms:
        return ArmToUse(
            standing.choice, f"the trial confirms {standing.choice}", excluded, frozenset(outdone)
        )
    use, reason = _cheapest_good(useful, standing)
    return ArmToUse(use, reason, excluded, frozenset(outdone))


def _nothing_meets(failed: Sequence[tuple[Requirement, Sequence[str]]], excluded: Mapping[str, str]) -> str:
    """Return which requirements no arm meets together, and what to do about the one that most arms fail."""
    if not failed:
        return "no arm was trained as planned: correct the rows that were skipped, then run the plan again"
    if len(failed) == 1:
        text = f"{failed[0][0].demand}, and no arm of this run does that"
    else:
        parts = [f"{requirement.demand} (not met by {', '.join(arms)})" for requirement, arms in failed]
        text = f"no arm meets all requirements of your answers: {'; '.join(parts)}"
    return f"{text}: {max(failed, key=lambda pair: len(pair[1]))[0].remedy}"


def _useful(trial: Trial) -> Trial:
    """Return the trial without arms that have no right answer, surely fewer than the best, or only explain others."""
    counted = {name: right for name, arm in trial.arms.items() if (right := right_answers(arm))}
    if counted:
        trial = trial.only([name for name in trial.arms if name in counted and counted[name].n > 0])
        if not trial.arms:
            return trial
        most = _most_right(trial)
        behind = surely_below(most, trial.arms, RIGHT, trial.plan.seed)
        trial = trial.only([name for name in trial.arms if name not in behind])
    others = [name for name in trial.arms if name not in COMPARISON_ARMS]
    if not others:
        return trial
    best = best_combined(trial.only(others).arms, trial.costs)
    explaining = [name for name in trial.arms if name in COMPARISON_ARMS]
    compared = corrected_comparisons(
        compare_arms(trial.arms[best], trial.arms[name], trial.plan.seed) for name in explaining
    )
    better = [name for name, c in compared.items() if c.pair.high < 0 and c.pair.p_holm <= SIGNIFICANCE_LEVEL]
    return trial.only([*others, *better])


def _most_right(trial: Trial) -> str:
    """Return the arm with the most right answers; of several the one with the better combined score, then the cheapest."""
    return min(
        trial.arms,
        key=lambda name: (
            -fmean(trial.arms[name].of(RIGHT) or [0.0]),
            -round(mean_combined(trial.arms[name]), 9),
            trial.costs[name],
        ),
    )


def _cheapest_good(trial: Trial, standing: ArmStanding) -> tuple[str, str]:
    """Return the cheapest of the useful arms within noise of the best, with few questions only a close one, and why."""
    names = list(trial.arms)
    if standing.loses_to(names):
        names = [name for name in names if name != standing.choice]
    if standing.choice in names:
        names = [name for name in names if name not in standing.beaten]
    trial = trial.only(names)
    best = best_combined(trial.arms, trial.costs)
    cheaper = [name for name in names if trial.costs[name] < trial.costs[best]]
    compared = corrected_comparisons(
        compare_arms(trial.arms[best], trial.arms[name], trial.plan.seed) for name in cheaper
    )
    within = [name for name in cheaper if not compared[name].above]
    little = any(map(finds_little, trial.arms.values()))
    if little:
        within = [name for name in within if _is_close(trial.arms[name], trial.arms[best])]
    use = min([best, *within], key=lambda name: trial.costs[name])
    if use != best:
        near = "close to" if little else "not clearly worse than"
        reason = f"{use} is {near} {best}, the best of the arms that can be used, and costs less"
    elif cheaper and little:
        reason = f"{use} did best of the arms that can be used, and no cheaper one comes close"
    elif len(names) > 1:
        reason = f"{use} did best of the arms that can be used"
    else:
        reason = f"{use} is the only arm that can be used"
    return use, reason


def _is_close(arm: ArmScores, best: ArmScores) -> bool:
    """Return whether an arm is at most a twentieth of the questions, or one question, behind by its own numbers."""
    allowed = max(CLOSE_SHARE, 1 / best.question_count) + 1e-9
    behind = [mean_combined(best) - mean_combined(arm)]
    if arm.of(RIGHT) and best.of(RIGHT):
        behind.append(fmean(best.of(RIGHT)) - fmean(arm.of(RIGHT)))
    return all(gap <= allowed for gap in behind)


def _without_sources(trial: Trial) -> dict[str, str]:
    if not trial.says_yes("must_cite"):
        return {}
    reasons = {}
    for name, arm in trial.arms.items():
        shares = arm.of("citation")
        if not trial.step(name).retrieval:
            reasons[name] = "names no sources"
        elif shares and not any(shares):
            reasons[name] = f"names a source that supports it in none of {count_noun(len(shares), 'answer')}"
    return reasons


def _hosted(trial: Trial) -> dict[str, str]:
    forbidden = trial.says_yes("data_must_stay_local") or trial.answer("hosted_api_allowed") in (
        False,
        "no",
        "false",
    )
    reasons = {}
    for name in trial.arms if forbidden else ():
        step = trial.step(name)
        server = trial.plan.servers.model_of(step)
        remote = parse_remote((step.model or trial.plan.model).name)
        urls = server.urls if server else (remote.url,) if remote and not step.classifier else ()
        if public := [url for url in urls if not is_private(url)]:
            reasons[name] = f"sends the data to {', '.join(public)}"
    return reasons


def _without_form(trial: Trial) -> dict[str, str]:
    form = trial.answer("output_format")
    kinds = {check.kind for check in trial.plan.checks}
    scores: dict[str, tuple[str, ...]] = {
        "labels": ("style",) if "labels" in kinds else (),
        "json": ("valid_json", *(("style",) if "json_schema" in kinds else ())),
        "fixed": ("style",) if kinds else (),
    }
    reasons = {}
    for name, arm in trial.arms.items():
        values = next((arm.of(score) for score in scores.get(str(form), ()) if arm.of(score)), [])
        if values and fmean(values) < MIN_VALID_SHARE:
            reasons[name] = (
                f"has the required form in {round(sum(values))} of {count_noun(len(values), 'answer')}"
            )
    return reasons


def _too_slow(trial: Trial) -> dict[str, str]:
    limit = trial.answer("latency_p95_ms")
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        return {}
    return {
        name: f"takes {seconds:.2g} s for an answer alone, and {limit / 1000:g} s is the most"
        for name, seconds in trial.seconds_alone.items()
        if name in trial.arms and seconds * 1000 > limit
    }


def _inventing(trial: Trial) -> dict[str, str]:
    measured = {name: arm.of("spurious") for name, arm in trial.arms.items() if arm.of("spurious")}
    if not trial.says_yes("absence_is_legal") or not measured:
        return {}
    best = min(measured, key=lambda name: (fmean(measured[name]), trial.costs[name]))
    behind = surely_below(best, trial.only(list(measured)).arms, "spurious", trial.plan.seed)
    return {
        name: f"invents values where none are: {fmean(measured[name]):.0%} of them, {best} {fmean(measured[best]):.0%}"
        for name in behind
    }


def _never_refusing(trial: Trial) -> dict[str, str]:
    measured = {
        name: values
        for name, arm in trial.arms.items()
        if len(values := arm.of(UNANSWERABLE_SCORE)) >= MIN_UNANSWERABLE
    }
    if trial.answer("wrong_answer_cost") != "high" or not measured:
        return {}
    best = min(measured, key=lambda name: (-fmean(measured[name]), trial.costs[name]))
    if fmean(measured[best]) < REFUSING_SHARE:
        return {}
    behind = surely_below(best, trial.only(list(measured)).arms, UNANSWERABLE_SCORE, trial.plan.seed)
    return {
        name: f"refuses {round(sum(values))} of {count_noun(len(values), 'question')} without an answer, {best} "
        f"{round(sum(measured[best]))}"
        for name, values in measured.items()
        if name in behind or not any(values)
    }


def _surely_more_wrong(trial: Trial) -> dict[str, str]:
    counted = {name: right for name, arm in trial.arms.items() if (right := right_answers(arm))}
    if trial.answer("wrong_answer_cost") != "high" or not counted:
        return {}
    most = _most_right(trial)
    behind = surely_below(most, trial.arms, RIGHT, trial.plan.seed)
    return {name: f"answers {counted[name].text} right, {most} {counted[most].n}" for name in behind}


REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement(
        "answers must name their source",
        "give the plan documents that contain the answers, so that an arm can retrieve them, try a larger model, "
        "or answer must_cite with no",
        _without_sources,
    ),
    Requirement(
        "no hosted model may be asked",
        "measure arms of a model on this machine, or change data_must_stay_local or hosted_api_allowed",
        _hosted,
    ),
    Requirement(
        "answers must have the required form",
        "give more examples of that form, try a larger model, or change output_format",
        _without_form,
    ),
    Requirement(
        "an answer must come in time",
        "use a faster machine or a smaller model, or raise latency_p95_ms",
        _too_slow,
    ),
    Requirement(
        "values that are not stated must not be invented",
        "give examples in which values are missing, or change absence_is_legal",
        _inventing,
        relative=True,
    ),
    Requirement(
        "a question without an answer must be refused, since a wrong answer is expensive",
        "give examples that refuse, or an index, or change wrong_answer_cost",
        _never_refusing,
        relative=True,
    ),
    Requirement(
        "a wrong answer is expensive",
        "give more examples, try a larger model, or change wrong_answer_cost",
        _surely_more_wrong,
        relative=True,
    ),
)
"""What an arm must meet, in the order of checking; the last ones compare the arms that are left."""
