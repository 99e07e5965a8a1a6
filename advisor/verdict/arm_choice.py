"""The arm to use, or none: :func:`choose_arm` decides it, and everything that names an arm reads its result.

Headline, figures, ``use`` and ``winner`` in JSON, ``history``, the exit code, and what ``ask``, ``chat``, ``serve`` and
``export`` take by default are this arm.

**What an arm must meet** (:data:`REQUIREMENTS`), where it was answered so:

- ``must_cite``: it retrieves, and at least one of its answers cites a passage that supports it;
- ``data_must_stay_local``, ``hosted_api_allowed``: it asks no hosted model;
- ``output_format`` labels, json or fixed: most of its answers have that form;
- ``latency_p95_ms``: an answer alone takes no longer, where that was measured;
- ``absence_is_legal``: it does not surely invent more values than the arm that invents fewest;
- ``wrong_answer_cost`` high: its right answers are not surely fewer than those of the arm with most, and it refuses
  questions without an answer where others do.

**Right answers** (:mod:`advisor.verdict.usable`): of the questions that have an answer it surely answers enough right.

**Which of those is taken.** None that surely has fewer right answers than the one with most, none that only explains the
others, unless it is surely better than all of them, and none that the recommended arm surely beats. Of the rest it is the
one that did best by the combined score, the cheapest of several; a cheaper one is taken in its place where the trial shows
that it is not worse: surely by less than the plan's ``gate.not_worse_by`` (:func:`advisor.verdict.comparison.not_worse`).
Where a cheaper one may be as good and that was not shown, it is named with the number of questions that would show it.
"Cheaper" is what was measured (:func:`advisor.costs.arm_costs.measured_ranks`). Where the plan prefers the best
(``gate.prefer``, and plans of several models), that one is taken, and the cheaper one that is not worse is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from advisor.costs.arm_costs import answer_costs, answers_in_usd, measured_ranks, only_explains
from advisor.verdict.comparison import (
    SIGNIFICANCE_LEVEL,
    ArmStanding,
    all_pairs,
    best_combined,
    compare_arms,
    corrected_comparisons,
    mean_combined,
    not_worse,
    surely_below,
)
from advisor.verdict.right_answers import RIGHT, UNANSWERABLE_SCORE, right_answers
from advisor.verdict.usable import UsableCheck, check_usable, why_none
from rag.text.words import count_noun
from runners.models.endpoint import is_private
from runners.models.resolve import parse_remote
from runners.plan.named_models import reference_arms
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.report.records import NotWorse, Unusable
from runners.trial.trial import ArmScores

MIN_VALID_SHARE = 0.5
"""Least share of answers in the demanded form; below it a program that reads them fails more often than not."""
MIN_UNANSWERABLE = 3
"""Fewest questions without an answer that show whether an arm refuses at all."""
REFERENCE = "is the teacher, measured for reference only"
"""Why an arm of a teacher that is none of the models compared is not used."""
REFUSING_SHARE = 0.5
"""Share of right refusals from which an arm counts as one that refuses."""


@dataclass(frozen=True, slots=True)
class ArmToUse:
    """The arm that is taken by default, and why."""

    arm: str | None
    """None where no arm can meet what was said, or none is above the threshold."""
    reason: str
    """One sentence."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Arms that cannot meet what was said, or were not trained as planned, each with the reason."""
    outdone: frozenset[str] = frozenset()
    """Those of them that are out only for their right answers: they stay alternatives."""
    usable_from: float | None = None
    """The threshold; None without gold."""
    tendency: bool = False
    """Whether the questions are too few to say whether any arm is above the threshold."""
    unusable: Unusable | None = None
    """Why no arm is above the threshold; None where one is."""
    in_place_of: str | None = None
    """The arm that did best, where this cheaper one is not worse; None where this one did best."""
    cheaper: NotWorse | None = None
    """The cheapest arm that may be as good as this one, which was not shown; None where there is none."""
    not_worse: str | None = None
    """The cheapest arm that is not worse, where the best is taken all the same; None where there is none."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The measured arms that can be compared, with what the choice among them needs."""

    plan: Plan
    arms: Mapping[str, ArmScores]
    costs: Mapping[str, int]
    """The rank of each arm from cheap to costly."""
    seconds_alone: Mapping[str, float] = field(default_factory=dict)
    """95th percentile of the seconds of an answer that is asked alone; arms that were not timed so are missing."""
    in_usd: Mapping[str, bool] = field(default_factory=dict)
    """Of several models: whether an arm's cost is a price, else seconds; {} where all are of one kind."""
    family: int = 0
    """How many comparisons are corrected together: of several models all pairs of their arms; 0: each set for itself."""
    gpu: str = ""
    """The GPU by whose rent answers are priced."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Arms that were not trained as planned, each with the count of its rows in words; they are not among ``arms``."""
    incomplete: Mapping[str, str] = field(default_factory=dict)
    """Arms that did not answer all questions, each with the reason; they are not among ``arms``."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        arms: Mapping[str, ArmScores],
        seconds_alone: Mapping[str, float],
        gpu: str = "",
    ) -> Trial:
        """Return the trial of these arms, with their costs as they were measured."""
        several = len(plan.models) > 1
        gpu = gpu if several else ""  # plans of one model keep their order of costs
        return cls(
            plan,
            arms,
            measured_ranks(plan, list(arms.values()), gpu),
            seconds_alone,
            answers_in_usd(plan, list(arms.values()), gpu) if several else {},
            all_pairs(len(arms)) if several else 0,
            gpu,
        )

    @property
    def left_out(self) -> dict[str, str]:
        """The arms that cannot be compared, each with the reason as a clause."""
        lost = {name: f"was not trained as planned: {rows}" for name, rows in self.lost.items()}
        return lost | {name: f"is incomplete: {reason}" for name, reason in self.incomplete.items()}

    @property
    def prefers_best(self) -> bool:
        """Whether the best arm is taken where a cheaper one is not worse."""
        prefer = self.plan.gate.prefer
        return prefer == "best" if prefer else len(self.plan.models) > 1

    def comparable(self, one: str, other: str) -> bool:
        """Return whether the costs of two arms are in one unit; an arm that asks no model costs less in any."""
        return len({self.in_usd[name] for name in (one, other) if name in self.in_usd}) < 2

    def cheaper_than(self, arm: str) -> list[str]:
        """Return the arms whose answers cost less, the cheapest first."""
        cheaper = [
            name for name in self.arms if self.costs[name] < self.costs[arm] and self.comparable(name, arm)
        ]
        return sorted(cheaper, key=lambda name: self.costs[name])

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
        return replace(self, arms={name: self.arms[name] for name in names})


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


def choose_arm(trial: Trial, standing: ArmStanding) -> ArmToUse:
    """Return the arm to use, by the rule of this module.

    Args:
        trial: the arms that were compared.
        standing: the recommended arm compared with the others.
    """
    excluded = dict.fromkeys(reference_arms(trial.plan), REFERENCE) | trial.left_out
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
    check = check_usable(trial.plan, remaining.arms)
    if check is None:
        return replace(
            _cheapest_good(_useful(remaining), standing), excluded=excluded, outdone=frozenset(outdone)
        )
    excluded |= check.failing
    outdone |= set(check.failing)
    known = ArmToUse(None, "", excluded, frozenset(outdone), check.threshold, check.tendency)
    if not check.usable:
        return _none_usable(trial, check, known)
    above = remaining.only([name for name in remaining.arms if name in check.usable])
    chosen = _cheapest_good(_useful(above), standing)
    reason = chosen.reason
    if check.tendency:
        reason += "; a tendency, with too few questions to say whether any arm can be used"
    return replace(
        chosen,
        reason=reason,
        excluded=excluded,
        outdone=known.outdone,
        usable_from=known.usable_from,
        tendency=known.tendency,
    )


def _none_usable(trial: Trial, check: UsableCheck, known: ArmToUse) -> ArmToUse:
    """Return that no arm is above the threshold, with why and what to do."""
    model_of = {name: trial.plan.model_of(trial.step(name)).name for name in trial.arms}
    why = why_none(check, [name for name in trial.arms if trial.step(name).retrieval], model_of)
    return replace(known, reason=why.text, unusable=why)


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
        trial = trial.only(
            [
                name
                for name, arm in trial.arms.items()
                if name in counted and (counted[name].n > 0 or arm.graded)
            ]
        )
        if not trial.arms:
            return trial
        most = _most_right(trial)
        behind = surely_below(most, trial.arms, RIGHT, trial.plan.seed, trial.family)
        trial = trial.only([name for name in trial.arms if name not in behind])
    others = [name for name in trial.arms if not only_explains(name)]
    if not others:
        return trial
    best = best_combined(trial.only(others).arms, trial.costs)
    explaining = [name for name in trial.arms if only_explains(name)]
    pairs = (compare_arms(trial.arms[best], trial.arms[name], trial.plan.seed) for name in explaining)
    compared = corrected_comparisons(pairs, family=trial.family)
    better = [name for name, c in compared.items() if c.pair.high < 0 and c.pair.p_holm <= SIGNIFICANCE_LEVEL]
    return trial.only([*others, *better])


def _most_right(trial: Trial) -> str:
    """Return the arm with the most right answers; of several the one with the better combined score, then the cheapest.

    Where the grades of a judge count, it is the best by them.
    """
    if any(arm.graded for arm in trial.arms.values()):
        return best_combined(trial.arms, trial.costs)
    return min(
        trial.arms,
        key=lambda name: (
            -fmean(trial.arms[name].of(RIGHT) or [0.0]),
            -round(mean_combined(trial.arms[name]), 9),
            trial.costs[name],
        ),
    )


def _cheapest_good(trial: Trial, standing: ArmStanding) -> ArmToUse:
    """Return the best of the useful arms, or a cheaper one that is not worse, and why."""
    names = list(trial.arms)
    if standing.loses_to(names):
        names = [name for name in names if name != standing.choice]
    if standing.choice in names:
        names = [name for name in names if name not in standing.beaten]
    trial = trial.only(names)
    best = best_combined(trial.arms, trial.costs)
    cheaper = trial.cheaper_than(best)
    by = trial.plan.gate.not_worse_by
    compared = not_worse(best, cheaper, trial.arms, by, trial.plan.seed)
    shown = next((name for name in cheaper if compared[name].shown), best)
    use = best if trial.prefers_best else shown
    surely = corrected_comparisons((compared[name].pair for name in cheaper), family=trial.family)
    open_ones = [
        name
        for name in cheaper
        if name != shown
        and trial.costs[name] < trial.costs[shown]
        and not surely[name].above
        # Corrected for all pairs hardly any arm is clearly worse: then it is named where more questions may show it.
        and (not trial.family or compared[name].questions_needed)
    ]
    perhaps = None
    if open_ones:
        needed = compared[open_ones[0]].questions_needed
        perhaps = NotWorse(arm=open_ones[0], than=best, by=by, more_questions_needed=needed)
    saved = _not_worse_text(trial, shown, best)
    if use != best:
        reason = saved
    elif len(names) > 1:
        reason = f"{use} did best of the arms that can be used" + (f"; {saved}" if saved else "")
    else:
        reason = f"{use} is the only arm that can be used"
    return ArmToUse(
        use,
        reason,
        in_place_of=None if use == best else best,
        cheaper=perhaps,
        not_worse=None if shown == use else shown,
    )


def _not_worse_text(trial: Trial, arm: str, best: str) -> str:
    """Return that an arm is not worse than the best and what it saves, as a clause; "" of the best itself."""
    if arm == best:
        return ""
    compared = [trial.arms[arm], trial.arms[best]] if trial.family else list(trial.arms.values())
    costs = answer_costs(trial.plan, compared, trial.gpu).text(arm, best) or "it takes less to keep running"
    by = trial.plan.gate.not_worse_by
    return f"{arm} is not worse than {best} by {by:g} or more, and costs less: {costs}"


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
        step = trial.plan.routed(step)[1] if step.route else step
        server = trial.plan.servers.model_of(step)
        remote = parse_remote(trial.plan.model_of(step).name)
        urls = server.urls if server else (remote.url,) if remote and not step.without_model else ()
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
    measured = {name: arm.mean_of("spurious") for name, arm in trial.arms.items() if arm.of("spurious")}
    if not trial.says_yes("absence_is_legal") or not measured:
        return {}
    best = min(measured, key=lambda name: (measured[name], trial.costs[name]))
    arms = trial.only(list(measured)).arms
    behind = surely_below(best, arms, "spurious", trial.plan.seed, trial.family)
    return {
        name: f"invents values where none are: {measured[name]:.0%} of them, {best} {measured[best]:.0%}"
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
    arms = trial.only(list(measured)).arms
    behind = surely_below(best, arms, UNANSWERABLE_SCORE, trial.plan.seed, trial.family)
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
    behind = surely_below(most, trial.arms, RIGHT, trial.plan.seed, trial.family)
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
