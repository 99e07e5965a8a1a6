"""The verdict: whether the recommendation is confirmed, overturned or still undecided.

The gate requires the chosen arm to surely beat the arms named in the plan, on the same questions
(:mod:`advisor.verdict.comparison` defines "surely"). An arm that costs more must win by more than noise. So the outcome is

- confirmed, when the gate is met, no cheaper arm is within noise of the recommended one, and it is the arm to use;
- overturned, when an arm is surely better, or the gate is surely not met, or a cheaper arm scored the same on
  every question;
- undecided otherwise, with the number of questions that would decide; also where another arm than the
  recommended one is held to account, since that one was not measured.

Where the plan prefers the best arm (``gate.prefer``, and plans of several models), cheaper arms do not count: the
recommended one is confirmed when the gate is met and it is the arm to use.

Beside the outcome stands the arm to use (:mod:`advisor.verdict.arm_choice`), which must meet what was said and answer enough
questions right; ``winner`` is the same arm.

:func:`judge_trial` is the entry point. :func:`gains_by_score` says which scores tuning raised and which it
did not: a format is soon learned, a skill or a fact seldom.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from advisor.costs.arm_costs import only_explains
from advisor.verdict.arm_choice import ArmToUse, Trial, choose_arm
from advisor.verdict.comparison import (
    LEANING_BELOW,
    ArmComparison,
    ArmStanding,
    best_combined,
    cheapest_within_noise,
    compare_arms,
    compare_on_score,
    compare_with_others,
    corrected_comparisons,
    is_rival,
    mean_combined,
    questions_needed,
)
from advisor.verdict.predictions import is_quick
from advisor.verdict.right_answers import right_answers
from advisor.verdict.sentences import VerdictFacts
from rag.evaluation.clusters import cluster_by_document
from rag.evaluation.prediction_powered import any_time_level, labels_needed
from rag.evaluation.statistics import PairedDifference
from rag.text.words import count_noun
from runners.models.registry import planned_model
from runners.plan.arm_names import arm_name, method_of, split_arm
from runners.plan.named_models import reference_arms
from runners.plan.schema import Plan
from runners.plan.score_names import SCORE_BY_NAME
from runners.report.records import Compared, ComparedArm, Margin, Outcome, Strength, Verdict
from runners.trial.trial import ArmScores

LOW_SCORE = 0.5
"""A score that tuning did not raise is only mentioned where it is below this: a good one could not be raised
much.
"""
USEFUL_SHARE = 0.5
"""Share of the used arm's right answers from which a cheaper arm counts as an alternative to it."""
TODAY = "prompting"
"""The method that answers as today: the instructions that are in use, and nothing else."""


def today_arm(plan: Plan, measured: Collection[str]) -> str:
    """Return the arm that answers as today: of several models with the plan's own, else with the first that was measured."""
    own = next((alias for alias, model in plan.models.items() if model == plan.model), "")
    name = arm_name(TODAY, own)
    others = [arm for arm in measured if method_of(arm) == TODAY]
    return name if name in measured else next(iter(others), name)


def gains_by_score(plan: Plan, arms: Mapping[str, ArmScores]) -> str:
    """Return a sentence on which weighted scores tuning raised over the untuned base, and which not.

    The base is asked in the same way, of several models with the same one: with passages (rag) where the choice has them,
    else by the prompt alone. "" unless some score was surely raised (interval and Holm-corrected p, as everywhere) and some
    other was not.
    """
    step = next((step for step in plan.arms if step.arm == plan.choice), None)
    if step is None or step.weights is None:
        return ""
    base = arm_name("rag" if step.retrieval else TODAY, split_arm(step.arm)[1])
    if base not in arms or plan.choice not in arms:
        return ""
    names = ["right", *(name for name, weight in plan.weights.items() if weight > 0 and name != "right")]
    pairs = [
        replace(pair, b=name)
        for name in names
        if (pair := compare_on_score(arms[plan.choice], arms[base], name, plan.seed))
    ]
    comparisons = corrected_comparisons(pairs)
    raised = [f"{_spaced(name)} ({c.pair.difference:+.2f})" for name, c in comparisons.items() if c.above]
    stayed = [
        f"{_spaced(name)} ({_mean_score(arms[plan.choice], name):.2f}, {_mean_score(arms[base], name):.2f} before)"
        for name, c in comparisons.items()
        if not c.above and SCORE_BY_NAME[name].gain(_mean_score(arms[plan.choice], name)) < LOW_SCORE
    ]
    if not (raised and stayed):
        return ""
    return f"Tuning clearly raised {_joined(raised)} over {base}, but not {_joined(stayed)}."


def judge_trial(
    plan: Plan,
    arms: Sequence[ArmScores],
    model: str,
    lost: Mapping[str, str] | None = None,
    seconds_alone: Mapping[str, float] | None = None,
    incomplete: Mapping[str, str] | None = None,
    gpu: str = "",
) -> tuple[Verdict, tuple[PairedDifference, ...]]:
    """Compare the chosen arm with every other on the combined score of the same questions.

    Arms that are measured for reference, a teacher's, are compared with none.

    Args:
        plan: the plan.
        arms: the scores of every arm.
        model: the name of the base model; of several that of the choice is named.
        lost: arms that were not trained as planned, each with the count of its rows in words. They are compared with no
            arm; where the choice is one of them there is no verdict on it.
        seconds_alone: 95th percentile of the seconds of an answer asked alone, by arm, where that was measured.
        incomplete: arms that did not answer all questions, each with the reason; treated like ``lost``, and never scored.
        gpu: the GPU of this machine as its driver names it, by whose rent answers of several models are priced.

    Raises:
        ValueError: the plan's choice was neither measured nor incomplete, or no arm was measured.
    """
    arms = [arm for arm in arms if arm.arm not in reference_arms(plan)]
    lost, incomplete = lost or {}, incomplete or {}
    by_name = {arm.arm: arm for arm in arms if arm.combined and arm.arm not in incomplete}
    if not by_name or plan.choice not in (*by_name, *incomplete):
        raise ValueError(f"the arm {plan.choice} was not measured")
    if alias := split_arm(plan.choice)[1]:
        model = plan.models[alias].name
    rest = {name: arm for name, arm in by_name.items() if name not in lost}
    trial = Trial.of(plan, by_name, seconds_alone or {}, gpu).only(list(rest))
    trial = replace(trial, lost=lost, incomplete=incomplete)
    if plan.choice in trial.left_out:
        return _without_verdict(trial, by_name, model), ()
    standing = compare_with_others(
        plan.choice, rest, plan.gate.must_beat, plan.gate.by, plan.seed, trial.family
    )
    verdict = _judge_choice(trial, standing, model)
    return verdict, tuple(comparison.pair for comparison in standing.shown.values())


def _judge_choice(trial: Trial, standing: ArmStanding, model: str) -> Verdict:
    """Return the verdict on the arm that is held to account, by its comparisons with the others."""
    plan, by_name = trial.plan, trial.arms
    missing = tuple(name for name in plan.gate.must_beat if name not in by_name)
    gate = None if standing.gate_met and missing else standing.gate_met
    advised = advised_arm(plan)
    use = choose_arm(trial, standing)
    unbeaten = _unbeaten(trial, standing, use)
    outcome = _outcome(standing, gate, unbeaten, use) if advised == plan.choice else Outcome.UNDECIDED
    blocking = _undecided_comparisons(standing, unbeaten) if outcome is Outcome.UNDECIDED else []
    needed = None if missing or advised != plan.choice else questions_needed(blocking, trial.family)
    rival = _rival(outcome, standing, by_name, blocking)
    more_labels = _more_labels(rival, by_name) if outcome is Outcome.UNDECIDED else None
    count = min([by_name[plan.choice].question_count, *(c.pair.questions for c in standing.shown.values())])
    strength, limits = _strength_and_limits(plan, by_name, rival, count)
    facts = VerdictFacts(
        outcome=outcome,
        unbeaten=unbeaten,
        standing=standing,
        arms=by_name,
        rival=rival,
        missing=missing,
        needed=needed,
        count=count,
        model=model,
        limits=(*limits, *_left_out_sentences(trial)),
        use=use,
        lost=frozenset(trial.lost),
        incomplete=frozenset(trial.incomplete),
        substitute=substitute_sentence(plan, by_name),
        more_labels=more_labels,
        quick=is_quick(plan),
        prefers_best=trial.prefers_best,
    )
    return Verdict(
        outcome=outcome,
        strength=strength,
        recommended=plan.choice,
        winner=use.arm,
        model=model,
        text=facts.text,
        more_questions_needed=needed.questions if needed else None,
        gate_met=gate,
        more_documents_needed=needed.documents if needed else None,
        margin=_margin(standing, rival),
        taught=gains_by_score(plan, by_name),
        advised=advised,
        use=use.arm,
        use_reason=use.reason,
        excluded=dict(use.excluded),
        compared=_compared(trial, use),
        usable_from=use.usable_from,
        unusable=use.unusable,
        tendency=use.tendency,
        in_place_of=use.in_place_of,
        cheaper=use.cheaper,
        not_worse=use.not_worse,
        judged_labels=_judged_labels(standing, rival),
        more_labels_needed=more_labels,
    )


def _judged_labels(standing: ArmStanding, rival: ArmComparison | None) -> int | None:
    """Return the labels behind the grades that decided: of the named comparison, else the fewest of one.

    None where there are none: also where the named comparison is by computed scores, whatever others are by.
    """
    if rival:
        return rival.pair.labels
    compared = (*standing.gate.values(), *standing.shown.values())
    return min((c.pair.labels for c in compared if c.pair.labels is not None), default=None)


def _more_labels(rival: ArmComparison | None, arms: Mapping[str, ArmScores]) -> int | None:
    """Return about how many more labels decide the named comparison; None of one by computed scores."""
    if rival is None or rival.pair.labels is None:
        return None
    rows = arms[rival.pair.a].graded[rival.pair.b].differences
    return labels_needed(rows, rival.by, any_time_level()) or None


def _unbeaten(trial: Trial, standing: ArmStanding, use: ArmToUse) -> str:
    """Return the arm that a recommendation must be to be confirmed: the cheapest within noise, or the best to use."""
    if trial.prefers_best:
        return use.arm if use.arm and use.arm not in standing.beaten else standing.choice
    against = {*standing.better, *standing.gate}  # these count whatever their costs are in
    arms = {
        name: arm
        for name, arm in trial.arms.items()
        if name in against or trial.comparable(name, standing.choice)
    }
    return cheapest_within_noise(arms, trial.costs, standing, trial.plan.seed, trial.family)


def advised_arm(plan: Plan) -> str:
    """Return the arm that was recommended: the plan's choice, unless the plan records that another one was."""
    return str(plan.predicted.get("choice") or plan.choice)


def substitute_sentence(plan: Plan, measured: Collection[str]) -> str:
    """Return a sentence on the recommended arm where the plan holds another one to account; "" where it does not."""
    advised = advised_arm(plan)
    if advised == plan.choice:
        return ""
    if advised in measured:
        return f"{advised} was recommended, but this plan tests {plan.choice}."
    why = f"the plan has no arm {advised}"
    if method_of(advised) in ("rag", "hybrid") and plan.data.documents is None:
        why = "the plan has no documents"
    elif method_of(advised) not in (TODAY, "rag") and plan.data.examples is None:
        why = "the plan has no file of examples"
    elif any(step.arm == advised for step in plan.arms):
        why = "it has no answers in this run"
    return f"{advised} was recommended but not measured, because {why}."


def _compared(trial: Trial, use: ArmToUse) -> Compared:
    """Return the used arm against today's prompt and against the cheapest useful alternative.

    Useful is an arm that can meet what was said, is no mere explanation, and has at least half as many right answers
    as the used one; without such an arm the one with most right answers is taken.
    """
    arms, today, alternative = trial.arms, None, None
    if use.arm is None:
        return Compared(today=None, alternative=None)
    own = today_arm(trial.plan, arms)
    if own in arms and use.arm != own:
        today = _pair_with(trial, use.arm, own)
    right = {name: answers.n for name in arms if (answers := right_answers(arms[name]))}
    others = [
        name
        for name in arms
        if name not in (use.arm, own)
        and not only_explains(name)
        and (name not in use.excluded or name in use.outdone)
        and right.get(name, 1) > 0
    ]
    least = USEFUL_SHARE * right.get(use.arm, 0)
    useful = [name for name in others if right.get(name, 0) >= least]
    if useful := [name for name in useful if trial.comparable(name, use.arm)] or useful:
        alternative = _pair_with(trial, use.arm, min(useful, key=lambda name: trial.costs[name]))
    elif others:
        alternative = _pair_with(trial, use.arm, max(others, key=lambda name: right.get(name, 0)))
    return Compared(today=today, alternative=alternative)


def _pair_with(trial: Trial, use: str, other: str) -> ComparedArm:
    """Return by how much the used arm is above another one, with that one's right answers."""
    pair = compare_arms(trial.arms[use], trial.arms[other], trial.plan.seed)
    return ComparedArm(
        arm=other,
        difference=pair.difference,
        low=pair.low,
        high=pair.high,
        right=right_answers(trial.arms[other]),
    )


def _left_out_sentences(trial: Trial) -> list[str]:
    """Return a sentence on each arm that is left out of the comparison, but for the recommended one."""
    sentences = {
        name: f"{name} was not trained as planned and is not compared: {rows}."
        for name, rows in trial.lost.items()
    }
    for name, reason in trial.incomplete.items():
        sentences[name] = f"{name} is incomplete and is not compared: {reason}."
    return [sentence for name, sentence in sentences.items() if name != trial.plan.choice]


def _without_verdict(trial: Trial, measured: Mapping[str, ArmScores], model: str) -> Verdict:
    """Return the undecided verdict of a trial whose recommended arm was not trained as planned, or is incomplete.

    The arm to use until then is chosen among the others.
    """
    plan, others = trial.plan, trial.arms
    use = ArmToUse(
        None, f"{plan.choice}, the only arm measured, was not trained as planned", dict(trial.lost)
    )
    if others:
        best = best_combined(others, trial.costs)
        standing = compare_with_others(best, others, (), 0.0, plan.seed, trial.family)
        use = choose_arm(trial, standing)
    held = measured.get(plan.choice) or next(iter(measured.values()))
    strength, _ = _strength_and_limits(plan, {plan.choice: held}, None, held.question_count)
    why = f"it {trial.left_out[plan.choice]}"
    left_out = _left_out_sentences(trial)
    text = unverdicted_text(plan.choice, model, why, left_out, use, others)
    return Verdict(
        outcome=Outcome.UNDECIDED,
        strength=strength,
        recommended=plan.choice,
        winner=use.arm,
        model=model,
        text=text,
        more_questions_needed=None,
        gate_met=None,
        more_documents_needed=None,
        margin=None,
        taught="",
        advised=advised_arm(plan),
        use=use.arm,
        use_reason=use.reason,
        excluded=dict(use.excluded),
        compared=_compared(trial, use),
        usable_from=use.usable_from,
        unusable=use.unusable,
        tendency=use.tendency,
        in_place_of=use.in_place_of,
        cheaper=use.cheaper,
        not_worse=use.not_worse,
    )


def unverdicted_text(
    choice: str,
    model: str,
    why: str,
    left_out: Sequence[str],
    use: ArmToUse,
    others: Mapping[str, ArmScores],
) -> str:
    """Return the text where there is no verdict on the recommended arm: it was not trained as planned, or is incomplete.

    Args:
        choice: the recommended arm.
        model: the name of the base model.
        why: the reason, as a clause.
        left_out: sentences on other arms that are left out.
        use: the arm to use until then.
        others: the arms that were compared.
    """
    until = ""
    if use.arm:
        right = right_answers(others[use.arm])
        until = f"Until then use {use.arm}" + (f", which answers {right.text} right." if right else ".")
    elif others:
        until = f"No other arm can be used: {use.reason}."
    first = f"No verdict on {choice} with {model}: {why}."
    return " ".join(filter(None, (first, *left_out, until)))


def _mean_score(arm: ArmScores, name: str) -> float:
    return arm.mean_of(name)


def _spaced(name: str) -> str:
    """Return the name of a score as tables show it."""
    return name.replace("_", " ")


def _joined(parts: list[str]) -> str:
    """Return the parts as a list in words."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _outcome(standing: ArmStanding, gate: bool | None, unbeaten: str, use: ArmToUse) -> Outcome:
    """Return confirmed, overturned or undecided; nothing is confirmed that is not the arm to use."""
    if gate is False or standing.better or (unbeaten in standing.shown and standing.shown[unbeaten].same):
        return Outcome.OVERTURNED
    confirmed = gate and unbeaten == standing.choice == use.arm and standing.shown
    return Outcome.CONFIRMED if confirmed else Outcome.UNDECIDED


def _undecided_comparisons(standing: ArmStanding, unbeaten: str) -> list[ArmComparison]:
    """Return what keeps the verdict open: pairs of the gate, and the cheaper arm that is within noise."""
    comparisons = {name: comparison for name, comparison in standing.gate.items() if not comparison.above}
    if unbeaten in standing.shown and unbeaten not in standing.gate:
        comparisons[unbeaten] = standing.shown[unbeaten]
    return list(comparisons.values())


def _rival(
    outcome: Outcome, standing: ArmStanding, arms: Mapping[str, ArmScores], blocking: Sequence[ArmComparison]
) -> ArmComparison | None:
    """Return the comparison to name: what overturned, what is still open, else the strongest other arm.

    Arms that only explain the others are not named beside others.
    """
    if standing.better:
        named = [name for name in standing.better if not only_explains(name)] or standing.better
        return standing.shown[named[0]]
    if outcome is Outcome.OVERTURNED:
        lost = [c for c in (*standing.gate.values(), *standing.shown.values()) if c.below]
        return min(lost, key=lambda c: c.pair.difference)
    if blocking:
        return min(blocking, key=lambda c: c.pair.difference - c.by)
    rivals = [c for name, c in standing.shown.items() if is_rival(name, arms, standing)]
    return max(rivals or standing.shown.values(), key=lambda c: mean_combined(arms[c.pair.b]), default=None)


def _strength_and_limits(
    plan: Plan, arms: Mapping[str, ArmScores], rival: ArmComparison | None, count: int
) -> tuple[Strength, tuple[str, ...]]:
    """Return the verdict's strength, the weakest that applies, and a sentence for each weakness."""
    sentences = []
    strength = Strength.MEASURED
    documents = cluster_by_document(arms[plan.choice].sources())
    if not documents.by_document:
        sentences.append(
            f"The questions come from {count_noun(documents.documents, 'document')}, too few to judge by: nothing is sure "
            "beyond them, and the intervals are valid for these documents only."
        )
    elif documents.few:
        sentences.append(
            f"The questions come from {documents.documents} documents, so only large differences are sure: intervals are by "
            "document."
        )
    if len(arms[plan.choice].questions) > arms[plan.choice].question_count:
        sentences.append(
            f"Counted are all wordings of {count_noun(arms[plan.choice].question_count, 'question')}; "
            "for intervals those of one question are one."
        )
    spread = max((arms[n].seed_spread for n in (plan.choice, rival.pair.b)), default=0.0) if rival else 0.0
    if rival and rival.pair.labels is None and 0 < abs(rival.pair.difference) < spread:
        sentences.append(f"The difference is smaller than the spread between training seeds ({spread:.2f}).")
    if count < LEANING_BELOW:
        strength = Strength.LEANING
        sentences.append(f"With fewer than {LEANING_BELOW} questions the result is a tendency only.")
    elif not documents.by_document:
        strength = Strength.LEANING
    measured = next((plan.model_of(step) for step in plan.arms if step.arm == plan.choice), plan.model).name
    if meant := planned_model(plan, measured):
        strength = Strength.PROXY
        sentences.append(f"Measured with {measured} in place of {meant}: take it as a hint.")
    return strength, tuple(sentences)


def _margin(standing: ArmStanding, rival: ArmComparison | None) -> Margin | None:
    """Return the named comparison as a report has it."""
    if rival is None:
        return None
    pair = standing.shown[rival.pair.b].pair
    keys = ("difference", "low", "high", "p", "p_holm", "labels")
    return Margin(against=pair.b, **{key: getattr(pair, key) for key in keys})
