"""From answers to a recommendation in one call: used by the commands, and public as ``advisor.recommend``.

Where the answers compare several models, the advice is made for each (:class:`ModelsRecommendation`), and for the set: which
arms of which models are worth measuring (:mod:`advisor.drafting.measured_arms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from advisor.compared_models import asking_order, best_model, key_note, unusable_because
from advisor.costs.step_time import model_profiles
from advisor.costs.trial_price import arm_usd, is_hosted, price_of_tokens
from advisor.drafting.additional_arms import without_what
from advisor.drafting.draft import (
    DraftedPlan,
    draft_plan,
    draft_with_notes,
    plan_answers,
    recorded_prediction,
    with_full_paths,
)
from advisor.drafting.measured_arms import ArmSelection, ArmSelector, ComparedArm, TrialLimits, WeighedModel
from advisor.drafting.merged_plan import merge_plans, with_arms_only, with_choice
from advisor.drafting.seeds import with_second_seed, with_seed_reasons
from advisor.drafting.tuned_retriever import with_tuned_retriever
from advisor.history import own_decided_trials
from advisor.probe.answers_from_probe import answers_of_this_model
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import (
    Situation,
    answers_of_model,
    check_model,
    compared_models,
    complete_situation,
    with_answers_of,
)
from advisor.questionnaire.model_questions import LIMITS, SEVERAL_KEYS
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation
from advisor.verdict.predictions import corrected_step_times
from advisor.verdict.trial_forecast import asked_in_trial
from rag.errors import CannotRun, UsageProblem
from runners.models.resolve import parse_remote
from runners.plan.arm_names import arm_name, split_arm
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import PlanModel
from runners.plan.train_config import TUNING_METHODS
from runners.resources.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation(BaseRecommendation):
    """The ranking with reasons, estimates and what would change it; it can become a plan."""

    def plan(self, name: str = "") -> Plan:
        """Return the plan that measures this recommendation: :func:`advisor.draft_plan`."""
        return draft_plan(self, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsRecommendation(Recommendation):
    """Advice on several models: that for each, and which of their arms are worth measuring together.

    What it has of a recommendation for one model is that of the model which is expected best (``best``), and its choice is
    METHOD@ALIAS; which that is, says :func:`advisor.compared_models.best_model`.

    Attributes:
        models: the advice for each model by its alias, as they were named.
        unusable: why a model cannot be used here at all, by its alias.
        best: the alias of the model that is expected best.
        limits: what the trial may take.
        drafted: the plan that measures them, and notes.
        selection: the arms that are measured, and those left out; None without a plan, or where one model is left.
        notes_on_models: sentences about the models, such as that a key is missing.
    """

    models: Mapping[str, Recommendation]
    unusable: Mapping[str, str]
    best: str
    limits: TrialLimits
    drafted: DraftedPlan | None = None
    selection: ArmSelection | None = None
    notes_on_models: tuple[str, ...] = ()

    @property
    def by_alias(self) -> Mapping[str, BaseRecommendation]:
        """The advice for each model that can be used, the one that is expected best first; one alone has no alias."""
        usable = {alias: advice for alias, advice in self.models.items() if alias not in self.unusable}
        if len(usable) == 1:
            return {"": usable[self.best]}
        return {self.best: usable[self.best], **usable}

    @property
    def choice(self) -> str:
        """The recommended arm: the method that is advised for the model which is expected best."""
        return self.arm_of(self.ranking.choice, next(iter(self.by_alias)))

    def plan(self, name: str = "") -> Plan:
        """Return the plan that measures the arms that are worth it, with absolute paths.

        Raises:
            UsageProblem: there are no files, so that nothing could be run.
            BadInput: for a name that no plan may have.
        """
        assert self.drafted is not None
        plan = with_full_paths(self.drafted.plan)
        return parse_plan({**plan.model_dump(mode="json", by_alias=True), "name": name}) if name else plan

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``plan --json`` prints: with the rows of all models, and what is measured.

        The choice comes first among them, then what is feasible, the better fit first.
        """
        rows = [
            {**row, "method": self.arm_of(row["method"], alias)}
            for alias, advice in self.by_alias.items()
            for row in advice.to_json()["ranked"]
        ]
        ranked = [
            {**row, "probability": row["probability"] if row["method"] == self.choice else None}
            for row in rows
        ]
        ranked.sort(key=lambda row: (row["method"] != self.choice, not row["feasible"], -row["score"]))
        own = next(iter(self.by_alias))
        also = {self.arm_of(arm, own): why for arm, why in self.also_measure.items()}
        second = self.runner_up
        chosen = self.selection
        return BaseRecommendation.to_json(self) | {
            "choice": self.choice,
            "also_measure": list(also),
            "also_measure_because": also,
            "also_measure_probability": dict.fromkeys(also),
            "runner_up": self.arm_of(second.method.name, own) if second else None,
            "ranked": ranked,
            "models": {alias: self._model_row(alias) for alias in self.models},
            "model_notes": list(self.notes_on_models),
            "limits": {"minutes": self.limits.minutes, "usd": self.limits.usd},
            "measured": [arm.to_json() for arm in chosen.measured] if chosen else [],
            "left_out": [arm.to_json() for arm in self.left_out],
            "trial_minutes": round(chosen.minutes, 1) if chosen else None,
            "trial_usd": None if chosen is None or chosen.usd is None else float(f"{chosen.usd:.3g}"),
        }

    @property
    def left_out(self) -> tuple[ComparedArm, ...]:
        """What is not measured: models that cannot be used, methods that are blocked or lack files, arms that do not fit."""
        rows = [
            ComparedArm(arm=f"*@{alias}", reason=why, kind="model") for alias, why in self.unusable.items()
        ]
        rows += self.selection.left_out if self.selection else ()
        planned = {row.arm for row in (*rows, *(self.selection.measured if self.selection else ()))}
        for alias, advice in self.by_alias.items() if self.drafted else ():
            tuned = next((name for name in TUNING_METHODS if arm_name(name, alias) in planned), "")
            for scored in advice.ranking.shown:
                method, arm = scored.method.name, self.arm_of(scored.method.name, alias)
                if arm in planned or (not alias and not scored.blockers):
                    continue
                if scored.blockers:
                    rows.append(ComparedArm(arm=arm, reason=scored.blockers[0].text, kind="blocked"))
                elif method in TUNING_METHODS and tuned:
                    why = f"one way of tuning is tried with a model, and that is {tuned}"
                    rows.append(ComparedArm(arm=arm, reason=why, kind="ranked_low"))
                else:
                    why = without_what(
                        method, self.drafted.plan.steps if self.drafted else (), advice.profile
                    )
                    rows.append(ComparedArm(arm=arm, reason=why, kind="files"))
            for method, why in advice.also_measure.items():
                arm = self.arm_of(method, alias)
                if alias and arm not in planned and arm not in [row.arm for row in rows]:
                    why = f"worth measuring ({why}), but the files or this machine do not allow it in a trial"
                    rows.append(ComparedArm(arm=arm, reason=why, kind="files"))
        return tuple(rows)

    def arm_of(self, method: str, alias: str) -> str:
        """Return the arm of a method with a model; methods that ask none have no alias."""
        return method if method in WITHOUT_MODEL else arm_name(method, alias)

    def _model_row(self, alias: str) -> dict[str, Any]:
        """Return what ``plan --json`` says of one model."""
        advice = self.models[alias]
        estimate = advice.estimates[advice.choice].to_json()
        model = PlanModel(name=str(advice.profile.model))
        price = price_of_tokens(model) if parse_remote(model.name) else None
        return {
            "name": model.name,
            "choice": advice.choice,
            "probability": round(advice.probability.value, 3),
            "usable": alias not in self.unusable,
            "left_out_because": self.unusable.get(alias),
            "hosted": is_hosted(model),
            "usd_per_million": {"input": price.read, "output": price.written} if price else None,
            "fits": estimate["memory_gib"] and estimate["memory_gib"]["fits"],
            "memory_gib": estimate["memory_gib"],
            "hours": estimate["hours"],
            "usd": estimate["usd"],
            "per_call_usd": estimate["per_call_usd"],
            "blockers": {
                scored.method.name: [blocker.to_json() for blocker in scored.blockers]
                for scored in advice.ranking.methods
                if scored.blockers
            },
        }


WITHOUT_MODEL = ("classifier", "nearest-reply")
"""Methods that ask no language model: with several models they are the same arm for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSettings:
    """How the plan of several models is drafted: its folder, the embedder that was named, whether the retriever is tuned."""

    folder: Path = Path()
    embedder: str | None = None
    tune_retriever: bool = False


def recommend(
    answers: Mapping[str, Any] | Path | str | Profile,
    *,
    models: Mapping[str, str] | None = None,
    minutes: float | None = None,
    usd: float | None = None,
    machine: Machine | None = None,
    today: date | None = None,
    drafting: DraftSettings | None = None,
) -> Recommendation:
    """Recommend a method for answers, or arms of several models.

    Files that the answers name are counted and the machine is detected, as ``tunewise plan --yes`` does. The rate of right
    advice is moved by the decided trials of the history.

    Args:
        answers: a mapping of question ids to values, an answers file or a plan, or a profile, which is taken
            as it is.
        models: names of several models by alias, which are compared in one trial: as the answer ``models``.
        minutes: the most that the trial of several models may take, as the answer ``minutes``.
        usd: the most that its answers may cost, as the answer ``usd``.
        machine: the machine to plan for; by default this one is detected.
        today: the day from which the age of prices is counted.
        drafting: how the plan of several models is drafted; as :meth:`Recommendation.plan` does it by default.

    Returns:
        The recommendation; of several models a :class:`ModelsRecommendation`.

    Raises:
        BadInput: for an unknown question, an invalid value, or files that are missing or broken.
        UsageProblem: for limits without several models, or too narrow ones.
        CannotRun: none of several models can be used here.
    """
    own = own_decided_trials()
    if isinstance(answers, Profile):
        if models:
            raise UsageProblem("a profile is about one model", "recommend several from answers")
        return Recommendation.of(answers, today, own=own)
    answers = _read_answers(answers)
    limits = {key: value for key, value in (("minutes", minutes), ("usd", usd)) if value is not None}
    answers = answers.put("flag", {"models": models, **limits} if models else limits)
    named = compared_models(answers)
    if len(named) > 1:
        return _SeveralAdvice(answers, named, machine, today, drafting or DraftSettings()).recommend()
    limited = [key for key in LIMITS if answers.value(key) not in (None, "none")]
    if limited and (named or not answers.value("models")):
        raise UsageProblem(
            f"{' and '.join(limited)}: a limit is for the trial of several models",
            "name two or more: --models ALIAS=NAME",
        )
    if named:
        check_model(next(iter(named.values())))
        answers = answers_of_model(answers, "", next(iter(named.values())))
    situation = complete_situation(answers, machine)
    return Recommendation.of(situation.profile, today, situation, own)


def _read_answers(answers: Mapping[str, Any] | Path | str) -> Answers:
    """Return answers that were given as a file, a plan or a mapping."""
    if isinstance(answers, str | Path):
        return with_answers_of(Answers(), Path(answers))
    if isinstance(answers, Answers):
        return answers
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in answers.items()}
    read = Answers().put("flag", plain)
    if "model" in read:
        check_model(read["model"].value)
    return read


@dataclass(frozen=True, slots=True)
class _SeveralAdvice:
    """The work of advising on several models.

    Args:
        answers: the answers, those on the models among them.
        named: the models by alias, two or more.
        machine: the machine to plan for; None detects it.
        today: the day from which the age of prices is counted.
        drafting: how the plan is drafted.
    """

    answers: Answers
    named: Mapping[str, str]
    machine: Machine | None
    today: date | None
    drafting: DraftSettings

    def recommend(self) -> ModelsRecommendation:
        """Return the advice for each model and for the set; see :func:`recommend` for errors."""
        notes: list[str] = []
        models = {alias: self._advise(alias, name, notes) for alias, name in self.named.items()}
        unusable = {
            alias: why for alias, advice in models.items() if (why := unusable_because(advice.profile))
        }
        usable = {alias: advice for alias, advice in models.items() if alias not in unusable}
        if not usable:
            reasons = "; ".join(f"{alias} {why}" for alias, why in unusable.items())
            raise CannotRun(
                f"none of the models can be used here: {reasons}", "name a smaller model, or an endpoint"
            )
        notes += [f"{alias}: {note}" for alias in usable if (note := key_note(self.named[alias]))]
        best = best_model(usable)
        own = usable[best]
        assert own.situation is not None
        answers = self._answers_of_all(own.situation.answers)
        rec = ModelsRecommendation(
            **{
                each.name: getattr(own, each.name)
                for each in fields(Recommendation)
                if each.name != "situation"
            },
            situation=Situation(answers, own.situation.stats, own.situation.profile),
            models=models,
            unusable=unusable,
            best=best,
            limits=TrialLimits(**{key: self._limit(key) for key in LIMITS}),
            notes_on_models=tuple(notes),
        )
        rec = replace(rec, estimates={**rec.estimates, rec.choice: own.estimates[own.choice]})
        return self._with_plan(rec)

    def _advise(self, alias: str, name: str, notes: list[str]) -> Recommendation:
        """Return the advice for one model, made as for it alone."""
        if check_model(name):
            notes.append(f"{alias}: the size of {name} is not known here, and so is whether it fits")
        answers, line = answers_of_this_model(answers_of_model(self.answers, alias, name))
        notes += [f"{alias}: {line}"] if line else []
        situation = complete_situation(answers, self.machine)
        return Recommendation.of(situation.profile, self.today, situation, own_decided_trials())

    def _answers_of_all(self, answers: Answers) -> Answers:
        """Return the answers for one model with those on all models in place of its name."""
        for layer in answers.layers:
            answers = answers.drop(layer, ["model"])
        for key in SEVERAL_KEYS:
            if key in self.answers:
                answers = answers.add(self.answers[key].source, {key: self.answers[key]})
        return answers

    def _limit(self, key: str) -> float | None:
        value = self.answers.value(key)
        return None if value in (None, "none") else float(value)

    def _with_plan(self, rec: ModelsRecommendation) -> ModelsRecommendation:
        """Return the advice with the plan that measures it, and what is left out of it."""
        drafts = {alias: self._draft(advice) for alias, advice in rec.by_alias.items()}
        first = next(iter(drafts.values()))
        notes = [note for note in first.notes if all(note in draft.notes for draft in drafts.values())]
        for alias, draft in drafts.items():
            notes += [f"{alias}: {note}" for note in draft.notes if note not in notes]
        if len(drafts) == 1:
            if rec.limits != TrialLimits():
                notes.append(
                    "one model is left, whose whole plan is written: minutes and usd are not applied to it"
                )
            return replace(rec, drafted=DraftedPlan(first.plan, tuple(notes)))
        order = sorted(drafts, key=lambda alias: asking_order(rec.models[alias].profile))
        whole = merge_plans({alias: drafts[alias].plan for alias in order}, rec.best, rec.limits.usd)
        selector = self._selector(rec, whole, {alias: draft.plan.choice for alias, draft in drafts.items()})
        measured = selector.select()
        advised = [rec.arm_of(draft.plan.choice, alias) for alias, draft in drafts.items()]
        fits = {arm: selector.fit_of(arm) for arm in measured}
        choice = next((arm for arm in advised if arm in measured), max(measured, key=lambda arm: fits[arm]))
        if choice != whole.choice:
            notes.append(
                f"{whole.choice} is expected to be best, but does not fit the limits; {choice} is held to account"
            )
        if len(measured) == 1:
            notes.append(f"only {choice} fits the limits: it is measured, and compared with nothing")
        plan = with_arms_only(whole, measured)
        plan = self._seeded(rec, plan, selector)
        assert rec.situation is not None
        recorded = plan_answers(rec.situation.answers, self.drafting.folder)
        rec = replace(rec, selection=selector.selection_of(plan))
        plan = with_choice(plan, choice, recorded_prediction(rec), recorded)
        return replace(rec, drafted=DraftedPlan(plan, tuple(notes)))

    def _draft(self, advice: BaseRecommendation) -> DraftedPlan:
        """Return the plan that a model would have alone."""
        assert advice.situation is not None
        draft = draft_with_notes(advice, advice.situation, self.drafting.folder, self.drafting.embedder)
        return (
            replace(draft, plan=with_tuned_retriever(draft.plan)) if self.drafting.tune_retriever else draft
        )

    def _selector(self, rec: ModelsRecommendation, whole: Plan, choices: Mapping[str, str]) -> ArmSelector:
        """Return what takes arms from the plan with all of them."""
        rows, _, asked = self._counts(rec, whole)
        profiles = model_profiles(whole) | {alias: advice.profile for alias, advice in rec.by_alias.items()}
        steps = {step.arm: step for step in whole.arms}
        return ArmSelector(
            plan=whole,
            models={
                alias: WeighedModel(
                    choice=choices[alias],
                    also_measure=advice.also_measure,
                    fits={m.method.name: m.score for m in advice.ranking.methods if not m.blockers},
                )
                for alias, advice in rec.by_alias.items()
            },
            limits=rec.limits,
            seconds_of=lambda plan: {
                name: seconds for name, _, seconds in corrected_step_times(plan, rows, asked)[0]
            },
            usd_of=lambda arm: arm_usd(whole, steps[arm], profiles[split_arm(arm)[1]], asked),
        )

    def _seeded(self, rec: ModelsRecommendation, plan: Plan, selector: ArmSelector) -> Plan:
        """Return the plan with a second seed of all tuned arms where it takes little, and fits the minutes."""
        rows, test, _ = self._counts(rec, plan)
        seeded = with_second_seed(plan, rec.profile, rows, test)
        limit = rec.limits.minutes
        if limit is not None and sum(selector.seconds_of(seeded).values()) / 60 > limit:
            return with_seed_reasons(
                plan, f"1 because a second seed of all tuned arms does not fit into {limit:g} minutes"
            )
        return seeded

    def _counts(self, rec: ModelsRecommendation, plan: Plan) -> tuple[int, int, int]:
        """Return the rows to train on, the test questions, and how often these are asked with their wordings."""
        assert rec.situation is not None
        stats = rec.situation.stats
        questions = stats.questions or ()
        wordings = sum(len(question.wordings) for question in questions)
        return len(stats.examples.rows) if stats.examples else 0, *asked_in_trial(
            len(questions), wordings, plan.data
        )
