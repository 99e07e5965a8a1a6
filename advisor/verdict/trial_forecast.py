"""The forecast of a trial, and what the trial then measured beside it.

:func:`forecast_trial` says before a run in which order the advice ranks the arms, what share of right answers a probe or
trials of the like let expect, and how many minutes each arm takes. It is kept under :data:`TRIAL_FORECAST` in the plan's
prediction. :func:`compare_forecast` puts the measurements beside it for the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from advisor.evidence.trials import HAS_DOCUMENTS, MeasuredTrial, measured_trials
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.verdict.predictions import corrected_step_times, step_kind, why_incomparable
from rag.text.words import count_noun
from runners.plan.arm_names import arm_name, split_arm
from runners.plan.data import PlanData
from runners.plan.schema import Plan
from runners.report.json_records import from_json
from runners.report.records import ArmReport, Strength, Verdict
from runners.report.trial_report import ForecastArm, Share, TrialForecast

if TYPE_CHECKING:
    from advisor.recommendation.recommend import BaseRecommendation

TRIAL_FORECAST = "trial"
"""Key of the forecast in a plan's prediction."""
MIN_TRIALS = 3
"""Trials from which an expectation is given: two give no useful spread."""
COVERAGE = 0.95
"""Probability that a forecast interval is meant to hold the measured share."""
WIDEST_SHOWN = 0.5
"""Width from which an interval of a share says too little to be shown to people; JSON has it."""
PROBED_ARMS: Mapping[str, tuple[str, str]] = {
    "prompting": ("passes", "right and in style by prompting alone"),
    "few-shot": ("few_shot", "right and in style with examples in the prompt"),
    "rag": ("retrieved", "right with what the index returns"),
    "classifier": ("classifier", "right labels in cross-validation"),
}
"""The measurement of a probe that is nearest to an arm's share of right answers, and what it counts."""


def forecast_trial(
    plan: Plan, recommendation: BaseRecommendation, examples: int, questions: int, wordings: int = 0
) -> dict[str, Any]:
    """Return what is expected of each arm of a plan, in the order of the advice.

    Args:
        plan: the drafted plan.
        recommendation: the advice that it measures.
        examples: rows to train on.
        questions: all questions, of which the plan's dev share is not asked in the trial.
        wordings: other wordings of all questions, each of which takes as long as a question.

    Returns:
        ``probability`` that advice is right, ``questions`` of the trial, ``minutes`` of all steps with the note
        ``corrected`` by earlier runs here (None without any), ``ahead``: :func:`ahead_of_advised` ("" for none), and
        ``arms``: each with its ``fit`` in the ranking and the ``rank`` by it (None for arms that the advice does not weigh,
        which come last), the ``probability`` of the advised one (None for the others), the expected share of ``right``
        answers where a probe or enough trials of the like give one, and the ``minutes`` of its training and answers.
    """
    test, asked = asked_in_trial(questions, wordings, plan.data)
    steps, corrections = corrected_step_times(plan, examples, asked)
    seconds = {name: corrected for name, _, corrected in steps}
    probability = round(recommendation.probability.value, 4)
    order = _ranked(plan, _fits(recommendation))
    right = _right_of_advice([name for name, _, _ in order], recommendation, test)
    rows = [
        {
            "arm": name,
            "probability": probability if name == recommendation.choice else None,
            "fit": fit,
            "rank": rank,
            "right": right[name],
            "minutes": round(arm_seconds(seconds, name) / 60, 1),
        }
        for name, fit, rank in order
    ]
    used = {step_kind(name) for name in seconds}
    notes = [f"{kind}: {corrections[kind].text}" for kind in sorted(used) if corrections[kind].runs]
    return {
        "probability": probability,
        "ahead": ahead_of_advised(recommendation.choice, right),
        "questions": test,
        "minutes": round(sum(seconds.values()) / 60, 1),
        "corrected": "; ".join(notes) or None,
        "arms": rows,
    }


def expected_right(arms: Iterable[str], profile: Profile, questions: int) -> dict[str, dict[str, Any] | None]:
    """Return the expected share of right answers of each arm, by name; None where neither probe nor trials give one."""
    like = trials_like(profile, measured_trials())
    return {
        arm: _expected_of_probe(arm, profile.probe, questions) or expected_of_trials(arm, like)
        for arm in arms
    }


def expectation_against(recommendation: BaseRecommendation) -> str:
    """Return :func:`ahead_of_advised` for the questions of a recommendation, before a plan is drafted; "" without any."""
    if not recommendation.profile.question_count:
        return ""
    arms: list[str] = []
    for alias, advice in recommendation.by_alias.items():
        feasible = [scored.method.name for scored in advice.ranking.methods if not scored.blockers]
        probed = [arm for arm, (name, _) in PROBED_ARMS.items() if getattr(advice.profile.probe, name)]
        arms += [arm_name(arm, alias) for arm in dict.fromkeys([*feasible, *advice.also_measure, *probed])]
    questions, _ = asked_in_trial(recommendation.profile.question_count, 0, PlanData())
    return ahead_of_advised(recommendation.choice, _right_of_advice(arms, recommendation, questions))


def _fits(recommendation: BaseRecommendation) -> dict[str, float]:
    """Return how well each feasible method fits, by the name of its arm: of several models with each of them."""
    fits = {
        arm_name(scored.method.name, alias): scored.score
        for alias, advice in recommendation.by_alias.items()
        for scored in advice.ranking.methods
        if not scored.blockers
    }
    own = {
        scored.method.name: scored.score for scored in recommendation.ranking.methods if not scored.blockers
    }
    return fits | {name: score for name, score in own.items() if name not in fits}


def _right_of_advice(
    arms: Iterable[str], recommendation: BaseRecommendation, questions: int
) -> dict[str, dict[str, Any] | None]:
    """Return the expected share of right answers by arm, each from what is known of its own model."""
    right: dict[str, dict[str, Any] | None] = {}
    for arm in arms:
        method, alias = split_arm(arm)
        profile = recommendation.by_alias.get(alias, recommendation).profile
        right[arm] = expected_right([method], profile, questions)[method]
    return right


def ahead_of_advised(advised: str, right: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return which arm is surely ahead of the advised one by what is expected of both, as a sentence; "" for none.

    Surely: the whole interval of its share lies above that of the advised arm.

    Args:
        advised: name of the advised arm.
        right: the expected share of right answers by arm, as :func:`expected_right` returns it.
    """
    own = right.get(advised)
    ahead = {arm: share for arm, share in right.items() if own and share and share["low"] > own["high"]}
    if own is None or not ahead:
        return ""
    best = max(ahead, key=lambda arm: ahead[arm]["likely"])
    likely, least = (f"{share['likely']:.2f} of the answers right" for share in (ahead[best], own))
    return (
        f"{best} is expected to do better than {advised}, which is advised: {likely} ({ahead[best]['because']}) against "
        f"{least} ({own['because']})"
    )


def trials_like(profile: Profile, trials: Iterable[MeasuredTrial]) -> list[MeasuredTrial]:
    """Return the trials of the same model with the same form of answers, with documents where the profile has some."""
    return [
        trial
        for trial in trials
        if trial.model == profile.model
        and trial.features.get("output_format") == profile.output_format
        and bool(trial.features.get(HAS_DOCUMENTS)) == bool(profile.documents)
    ]


def expected_of_trials(arm: str, trials: Sequence[MeasuredTrial]) -> dict[str, Any] | None:
    """Return the share of right answers that trials let expect of an arm in the next one; None for fewer than three.

    The interval is that of one further value of a normal sample: mean plus and minus the quantile of Student's t times
    the standard deviation times sqrt(1 + 1/k), cut to 0 and 1. Tasks differ much, so it is wide.
    """
    rights = [
        measured.right / measured.n
        for trial in trials
        if (measured := trial.arm(arm)) is not None and measured.right is not None and measured.n
    ]
    if len(rights) < MIN_TRIALS:
        return None
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import

    count, likely = len(rights), fmean(rights)
    width = float(stdtrit(count - 1, (1 + COVERAGE) / 2)) * stdev(rights) * math.sqrt(1 + 1 / count)
    return {
        "low": round(max(0.0, likely - width), 4),
        "likely": round(likely, 4),
        "high": round(min(1.0, likely + width), 4),
        "because": f"{count} trials of the like",
    }


def arm_seconds(seconds: Mapping[str, float], arm: str) -> float:
    """Return the seconds of an arm's own training and answers; 0 where none is known."""
    return sum(seconds.get(f"{kind}:{arm}", 0.0) for kind in ("train", "evaluate"))


def predictive_interval(share: ProbeShare, n: int) -> tuple[float, float]:
    """Return the interval that holds the share of n further cases with a probability of :data:`COVERAGE`.

    The predictive distribution is beta-binomial, with the posterior of Jeffreys' prior; it is wider than the interval of
    the rate itself, since the further cases vary too.

    Args:
        share: what was counted.
        n: number of further cases, at least 1.
    """
    from scipy.stats import betabinom

    expected = betabinom(n, share.right + 0.5, share.n - share.right + 0.5)
    tail = (1 - COVERAGE) / 2
    return float(expected.ppf(tail)) / n, float(expected.ppf(1 - tail)) / n


def compare_forecast(
    plan: Plan, verdict: Verdict, arms: Sequence[ArmReport], seconds: Mapping[str, float]
) -> TrialForecast | None:
    """Return forecast and measurement of each arm for the report; None where the plan brings no probabilities.

    Args:
        plan: the plan that was run, with its prediction.
        verdict: the verdict on it.
        arms: the arms in the order of their measured means.
        seconds: of each step.
    """
    forecast = _recorded(plan)
    if forecast is None:
        return None
    measured = {arm.arm: (rank, arm) for rank, arm in enumerate(arms, 1)}
    rows = tuple(
        _compared_arm(row, *measured[row["arm"]], arm_seconds(seconds, row["arm"]))
        for row in forecast["arms"]
        if row["arm"] in measured
    )
    weighed = [row for row in rows if row.rank is not None]
    both = [(a, b) for at, a in enumerate(weighed) for b in weighed[at + 1 :]]
    pairs = [(a, b) for a, b in both if not _is_tie(a, b)]
    best = arms[0].arm
    return TrialForecast(
        probability=forecast["probability"],
        outcome=verdict.outcome,
        best=best,
        best_probability=next((row.probability for row in rows if row.arm == best), None),
        pairs_in_order=sum(a.measured_rank < b.measured_rank for a, b in pairs),
        pairs=len(pairs),
        ties=len(both) - len(pairs),
        minutes=forecast.get("minutes"),
        measured_minutes=round(sum(seconds.values()) / 60, 1),
        corrected=forecast.get("corrected"),
        not_compared=why_incomparable(plan, verdict.strength is Strength.PROXY),
        arms=rows,
    )


def forecast_sentence(forecast: TrialForecast) -> str:
    """Return what was forecast and what came, in words."""
    pairs = (
        f" In {forecast.pairs_in_order} of {count_noun(forecast.pairs, 'pair')} of arms the better one was forecast."
        if forecast.pairs
        else ""
    )
    if forecast.ties:
        pairs += f" {count_noun(forecast.ties, 'pair')} {'was a tie' if forecast.ties == 1 else 'were ties'}."
    text = (
        f"Before the trial the advice was given a probability of {forecast.probability:.2f}; it is now "
        f"{forecast.outcome}. {forecast.best} scored best.{pairs}"
    )
    if forecast.not_compared:
        text += f" Right answers and minutes cannot be compared with the forecast: {forecast.not_compared}."
    elif forecast.minutes:
        text += f" Forecast {forecast.minutes:.0f} minutes in all, took {forecast.measured_minutes:.0f}."
    return text


def forecast_rows(forecast: TrialForecast) -> list[tuple[str, str, str, str]]:
    """Return the cells of a table: arm, right forecast, right measured, minutes forecast and measured."""
    return [
        (
            row.arm,
            right_text(row.right),
            right_text(row.measured_right, row.right.inside if row.right else None),
            f"{_minutes(row.minutes)} / {_minutes(row.measured_minutes)}",
        )
        for row in forecast.arms
    ]


FORECAST_COLUMNS = (
    "arm",
    "right, forecast",
    "right, measured",
    "minutes, forecast / measured",
)
"""Titles of the cells of :func:`forecast_rows`."""


def right_text(share: Share | None, inside: bool | None = None) -> str:
    """Return a share as "0.52 (0.45–0.59)", without an interval that is wider than :data:`WIDEST_SHOWN`.

    It is marked where it lies outside of what was forecast.
    """
    if not share:
        return "–"
    narrow = share.high - share.low <= WIDEST_SHOWN
    value = f"{share.likely:.2f}" + (f" ({share.low:.2f}–{share.high:.2f})" if narrow else "")
    return value if inside is not False else f"{value}, outside"


def asked_in_trial(questions: int, wordings: int, data: PlanData) -> tuple[int, int]:
    """Return how many of all questions a trial tests, and how often it asks: each in its other wordings too.

    Tested are those that are no dev questions, up to the limit.
    """
    test = questions - round(questions * data.dev_share)
    test = min(test, data.max_test or test)
    return test, round(test * (questions + wordings) / questions) if questions else 0


def _recorded(plan: Plan) -> dict[str, Any] | None:
    """Return the forecast of a plan; of one that was drafted without minutes, the order of the arms alone; else None."""
    predicted = plan.predicted
    if TRIAL_FORECAST in predicted:
        return dict(predicted[TRIAL_FORECAST])
    if "probability" not in predicted:
        return None
    methods = predicted.get("ranked") or ()
    fits = {row["method"]: row.get("score") for row in methods if row.get("feasible", True)}
    shares = {row["method"]: row.get("probability") for row in methods}
    shares |= predicted.get("also_measure_probability") or {}
    # Up to 0.2.0 every arm had a probability of coming out best, and they were ranked by it.
    old = any(share is not None for arm, share in shares.items() if arm != plan.choice)
    rows = [
        {
            "arm": name,
            "probability": shares.get(name),
            "fit": None if old else value,
            "rank": rank,
            "right": None,
            "minutes": None,
        }
        for name, value, rank in _ranked(plan, shares if old else fits)
    ]
    return {"probability": predicted["probability"], "arms": rows}


def _ranked(plan: Plan, values: Mapping[str, float | None]) -> list[tuple[str, float | None, int | None]]:
    """Return each arm of a plan with its value and the rank by it, those without one last; equal ones keep their order."""
    names = [*(arm.arm for arm in plan.arms)]
    weighed = {name: value for name in values if name in names and (value := values[name]) is not None}
    ranked = sorted(weighed, key=lambda name: -weighed[name])
    rest = [(name, None, None) for name in names if name not in weighed]
    return [*((name, weighed[name], rank) for rank, name in enumerate(ranked, 1)), *rest]


def _expected_of_probe(arm: str, facts: ProbeFacts, test: int) -> dict[str, Any] | None:
    """Return the expected share of right answers among the test questions; None where no probe measured the like."""
    name, counted = PROBED_ARMS.get(arm, ("", ""))
    share = getattr(facts, name) if name else None
    if share is None or test < 1:
        return None
    low, high = predictive_interval(share, test)
    because = f"probe: {share.right} of {share.n} {counted}"
    return {"low": round(low, 4), "likely": round(share.rate, 4), "high": round(high, 4), "because": because}


def _compared_arm(row: Mapping[str, Any], rank: int, arm: ArmReport, seconds: float) -> ForecastArm:
    """Return the forecast of an arm with its measurements."""
    measured, expected = None, from_json(Share, row["right"]) if row["right"] else None
    if right := arm.right:
        measured = Share(likely=round(right.share, 4), low=right.low, high=right.high, n=right.of)
    if expected and measured:
        expected = replace(expected, inside=expected.low <= measured.likely <= expected.high)
    return ForecastArm(
        arm=row["arm"],
        probability=row["probability"],
        fit=row.get("fit"),
        rank=row["rank"],
        right=expected,
        minutes=row["minutes"],
        measured_rank=rank,
        measured_right=measured,
        score=arm.score,
        measured_minutes=round(seconds / 60, 1) if seconds else None,
    )


def _is_tie(a: ForecastArm, b: ForecastArm) -> bool:
    """Return whether two arms were forecast alike or came out alike, in the decimals that are shown."""
    forecasts = [arm.probability if arm.fit is None else arm.fit for arm in (a, b)]
    forecast_alike = len({round(value or 0.0, 2) for value in forecasts}) == 1
    return forecast_alike or round(a.score.mean, 2) == round(b.score.mean, 2)


def _minutes(minutes: float | None) -> str:
    return "–" if minutes is None else f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"
