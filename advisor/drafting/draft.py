"""From a recommendation to a plan: every arm worth measuring, in order, with checks, weights and gate.

:func:`draft_plan` is the entry point, :func:`draft_with_notes` also returns notes for the user. Beside the
methods' arms there are those that are drafted where they fit: labels scored after the prompts, a classifier for
labels, all documents in the prompt, and passages with examples (rag-few-shot).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from advisor.costs.arm_costs import cheaper_arms, only_explains
from advisor.costs.hosting import answering_quantization
from advisor.costs.rental import memory_use_of
from advisor.costs.tokens import device_plan
from advisor.drafting.additional_arms import (
    FILES_OF_METHODS,
    router_note,
    with_additional_arms,
    with_router,
    with_scored_arms,
    without_what,
)
from advisor.drafting.embedder_choice import choose_embedder
from advisor.drafting.example_refusals import refusals_of_examples
from advisor.drafting.form_checks import derive_checks, fixed_sentences
from advisor.drafting.score_weights import score_weights
from advisor.drafting.seeds import with_second_seed
from advisor.drafting.train_steps import with_passages_settings, with_refusal_share, with_smaller_batches
from advisor.methods.base import Drafting, Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.registry import METHOD_PLUGINS, methods_by_name
from advisor.questionnaire.answers import Answers, names_a_path
from advisor.questionnaire.answers_files import probe_facts_entry
from advisor.questionnaire.gather import Situation, columns_of, for_trial, prompt_text
from advisor.questionnaire.profile import READING_EXAMPLES, Profile
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import BaseRecommendation
from advisor.rules.resources import ENCODER_B, FEW_FOR_ENCODER
from rag.errors import UsageProblem
from runners.catalog import models
from runners.data.examples import Example
from runners.data.reasoning import split_message
from runners.models.endpoint import reasons_by_name
from runners.plan.data import NOT_NAMED
from runners.plan.schema import (
    Plan,
    PlanData,
    PlanGate,
    Prompts,
    RecordedAnswer,
    RefusalSettings,
    Step,
    parse_plan,
)
from runners.plan.steps import EvaluateStep, IndexStep, PlanModel, Thinking, TrainStep
from runners.plan.train_config import TUNING_METHODS
from runners.resources.parallel_memory import REFUSED_WHEN_SHARDED
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

COSTLY_MOST_WRONG = 0.15
"""Largest share of answerable questions that may be refused where a wrong answer is expensive."""


@dataclass(frozen=True, slots=True)
class DraftedPlan:
    """A plan, and notes on how it was drafted."""

    plan: Plan
    notes: tuple[str, ...]


def draft_plan(recommendation: BaseRecommendation, name: str = "") -> Plan:
    """Return the plan that measures a recommendation, with absolute paths; ``name`` names its run folder.

    Raises:
        UsageProblem: when there is nothing to run: no files, or only a profile was given.
        BadInput: for a name that no plan may have.
    """
    if recommendation.situation is None:
        raise UsageProblem("a profile alone cannot be run", "recommend from answers that name files")
    plan = with_full_paths(draft_with_notes(recommendation, recommendation.situation).plan)
    return parse_plan({**plan.model_dump(mode="json", by_alias=True), "name": name}) if name else plan


def draft_with_notes(
    recommendation: BaseRecommendation,
    situation: Situation,
    folder: Path = Path(),
    embedder: str | None = None,
) -> DraftedPlan:
    """Return the plan of a recommendation with notes.

    Args:
        recommendation: what to measure.
        situation: the answers and the rows of the files.
        folder: where the plan will be written; data paths are relative to it where they are below it.
        embedder: the embedder that the user named; None chooses it by the language of the texts.

    Without any files it has the arms of the advice, and stands for the paths that they need
    (:attr:`runners.plan.data.PlanData.not_named`).
    """
    answers = situation.answers
    profile, stands_in = for_trial(_with_files_to_name(situation.profile, recommendation.named))
    learnable = situation.stats.examples.rows if situation.stats.examples else ()
    rows = tuple(row for row in learnable if not row.raw)
    count = len(learnable) or (profile.examples_known or READING_EXAMPLES if profile.examples else 0)
    notes = [*([stands_in] if stands_in else []), *situation.stats.warnings]
    tuning = _tuning_method(recommendation, profile, bool(count), notes)
    steps = _method_steps(profile, tuning, count, bool(rows) or count > len(learnable))
    steps = with_passages_settings(with_refusal_share(steps, situation), count, _params_b(profile))
    prompts = _prompts(answers, rows, profile.data.language, notes)
    steps = with_smaller_batches(steps, rows, prompts.system)
    steps = with_additional_arms(steps, profile, [row.reply for row in rows], recommendation.named)
    no_checks = ((), "no checks of style: there are no examples")
    checks, style_note = derive_checks([row.reply for row in rows]) if rows else no_checks
    notes.append(style_note)
    steps = with_scored_arms(steps, checks, profile)
    thinking, reasoning_note = _thinking(profile, rows)
    notes += [reasoning_note] if reasoning_note else []
    choice, steps = _choice_and_router(recommendation, steps, profile, notes)
    weights = score_weights(profile, checks, situation.stats.questions or ())
    plan = {
        "schema": 1,
        "name": _run_name(profile),
        "choice": choice,
        "model": _plan_model(profile, tuning, notes).model_dump(),
        "embedder": choose_embedder(profile, embedder, notes).model_dump(),
        "data": _data(profile, columns_of(answers), folder).model_dump(mode="json"),
        "prompts": prompts.model_dump(mode="json"),
        "steps": [step.model_dump(mode="json") for step in steps],
        "checks": [check.model_dump(mode="json") for check in checks],
        "weights": {weight.name: weight.weight for weight in weights},
        "weight_reasons": {weight.name: weight.reason for weight in weights},
        "gate": _gate(choice, steps).model_dump(mode="json"),
        "refusal": _refusal(profile).model_dump(mode="json"),
        "max_new_tokens": _max_new_tokens(profile, rows),
        "thinking": thinking.model_dump(),
        "answers": plan_answers(answers, folder),
        "predicted": recorded_prediction(recommendation),
    }
    parsed = parse_plan(plan, "the drafted plan")
    asked = len(situation.stats.questions or ())
    test = asked - round(asked * parsed.data.dev_share)
    return DraftedPlan(with_second_seed(parsed, profile, count, test), tuple(notes))


def _with_files_to_name(profile: Profile, advised: Sequence[str]) -> Profile:
    """Return a profile without any files with what stands for those that the advised methods need, or that were counted."""
    if profile.documents or profile.examples or profile.questions:
        return profile
    needed = {key for method in advised for key in FILES_OF_METHODS.get(method, ())} | {"questions"}
    needed |= {"documents"} if profile.corpus_tokens else set()
    needed |= {"examples"} if profile.labelled_examples else set()
    names: dict[str, Any] = {key: NOT_NAMED.format(key=key) for key in needed}
    return replace(profile, **names)


def with_full_paths(plan: Plan) -> Plan:
    """Return a drafted plan with absolute paths, so that it can be run from any folder; UsageProblem without files."""
    if plan.data.not_named:
        raise UsageProblem(
            "there is nothing to run yet: no documents, examples or questions",
            "recommend from answers that name files: documents, examples, questions",
        )
    paths = {name: getattr(plan.data, name) for name in ("documents", "examples", "questions")}
    full = {name: path.resolve() for name, path in paths.items() if path}
    plan = plan.model_copy(update={"data": plan.data.model_copy(update=full)})
    return parse_plan(plan.model_dump(mode="json", by_alias=True))


def tuning_settings(tuning: str, rows: int, profile: Profile) -> Mapping[str, Any]:
    """Return the training settings of a tuning method for this number of rows, with their reasons."""
    from runners.training.defaults import choose_defaults

    row_tokens = (profile.prompt_tokens or 0) + (profile.answer_tokens or 0)
    chosen = choose_defaults(tuning, rows=rows, params_b=_params_b(profile), row_tokens=row_tokens)
    values = {key: value for key, value in chosen.values.items() if key != "method"}
    reasons = chosen.reasons
    known = profile.model_shape is not None and not profile.remote
    if known and values["optimizer"] in REFUSED_WHEN_SHARDED:
        plan = device_plan(profile, memory_use_of(tuning))
        if plan.sharded:
            values["optimizer"] = "adamw"
            why = f"adamw because the weights are sharded over {profile.devices} GPUs, where 8-bit states are refused"
            reasons = {**reasons, "optimizer": why}
    return {**values, "reasons": reasons}


def _params_b(profile: Profile) -> float:
    """Return the parameters of the base in billions, those of the built-in model where they are unknown."""
    return profile.params_b or models.MODELS[0].params_b


def _tuning_method(
    recommendation: BaseRecommendation, profile: Profile, rows: bool, notes: list[str]
) -> str | None:
    """Return the plan's tuning method: the chosen one, else the hybrid's, else the best feasible.

    Where no tuning is advised, a model of an encoder's size with 50 examples is tuned whole, as rule RS004 has it. None
    without rows to train on, or when every tuning method is blocked; then a note says why.
    """
    if not rows:
        return None
    if recommendation.choice in TUNING_METHODS:
        return recommendation.choice
    ranking = (
        recommendation.ranking if profile.model == recommendation.profile.model else rank_methods(profile)
    )
    feasible = [
        scored for scored in ranking.methods if scored.method.name in TUNING_METHODS and not scored.blockers
    ]
    if recommendation.choice == "hybrid" or profile.documents:
        method = Hybrid().tuned_by(profile)
        if method:
            return method.name
    names = [scored.method.name for scored in feasible]
    tiny = (profile.params_b or ENCODER_B) < ENCODER_B and profile.examples_known >= FEW_FOR_ENCODER
    if "full" in names and tiny:
        return "full"
    if names:
        return names[0]
    blocked = next(scored for scored in ranking.methods if scored.method.name in TUNING_METHODS)
    notes.append(f"no fine-tuning is tested: {blocked.method.name} is ruled out: {blocked.blockers[0].text}")
    return None


def _plan_model(profile: Profile, tuning: str | None, notes: list[str]) -> PlanModel:
    """Return the plan's model with its prices, held in 4 bits where 16 do not fit when it answers; a note says so."""
    quantization, why = answering_quantization(profile, tuning == "qlora")
    notes += [why] if why else []
    usd = (profile.usd_per_million_input, profile.usd_per_million_output)
    prices: dict[str, Any] = {}
    if profile.remote and None not in usd:  # a plan gives both or none
        prices = dict(zip(("usd_per_million_input", "usd_per_million_output"), usd, strict=True))
    return PlanModel(name=profile.model or models.DEFAULT_MODEL, quantization=quantization, **prices)


def _method_steps(profile: Profile, tuning: str | None, rows: int, chats: bool) -> tuple[Step, ...]:
    """Return all arms that the files allow, simplest first; retrieval arms after the index.

    ``rows`` is the number of rows to train on. Raw texts among them (no ``chats``) cannot be shown as
    examples, nor be asked with passages.
    """
    names = ["prompting"]
    if chats:
        names.append("few-shot")
    if profile.documents:
        names.append("rag")
    if tuning:
        names.append(tuning)
        if profile.documents and chats:
            names.append("hybrid")
    drafting = Drafting(tuning, tuning_settings(tuning, rows, profile) if tuning else {})
    steps: list[Step] = [IndexStep()] if profile.documents else []
    for name in names:
        steps += methods_by_name()[name].steps(profile, drafting)
        if name == "rag" and chats:
            few = EvaluateStep(arm="rag-few-shot", retrieval=True, shots=drafting.shots, bank="chosen")
            steps.append(few)
    for method in METHOD_PLUGINS.all:
        steps += _plugin_steps(method, profile, drafting, steps, chats)
    return tuple(steps)


def _plugin_steps(
    method: Method, profile: Profile, drafting: Drafting, before: Sequence[Step], chats: bool
) -> Sequence[Step]:
    """Return the steps of a plug-in's method; none where it is blocked or lacks a file or weights.

    Raises:
        BadInput: naming the package, when they are not steps of this arm that a run can execute.
    """
    if method.blocked(profile):
        return ()
    plugin = METHOD_PLUGINS.plugins[method.name]
    try:
        declared = tuple(method.steps(profile, drafting))
    except Exception as error:  # a plug-in may raise anything; the user gets a message, no traceback
        raise plugin.unusable(f"its steps: {type(error).__name__}: {error}") from error
    steps = tuple(step for step in declared if isinstance(step, TrainStep | EvaluateStep))
    if wrong := [step for step in declared if not isinstance(step, TrainStep | EvaluateStep)]:
        raise plugin.unusable(
            f"its steps have a {type(wrong[0]).__name__}, not only TrainStep and EvaluateStep"
        )
    if [step.arm for step in steps if isinstance(step, EvaluateStep)] != [method.name]:
        raise plugin.unusable(f"its steps do not evaluate exactly one arm, {method.name!r}")
    if {step.arm for step in steps} != {method.name}:
        raise plugin.unusable(f"its steps train another arm than {method.name!r}")
    trained = {step.arm for step in (*before, *steps) if isinstance(step, TrainStep)}
    for step in steps:
        if isinstance(step, TrainStep):
            passages = step.rows == "retrieval"
            weights = step.start_from
            examples = True
        else:
            passages = step.retrieval
            weights = step.weights
            examples = bool(step.shots or step.without_model)
        if (
            (passages and not profile.documents)
            or (examples and not chats)
            or (weights and weights not in trained)
        ):
            return ()
    return steps


def _choice_and_router(
    recommendation: BaseRecommendation, steps: Sequence[Step], profile: Profile, notes: list[str]
) -> tuple[str, tuple[Step, ...]]:
    """Return the choice, and the steps with a router where one fits; a note says what that asks."""
    steps = with_router(steps, recommendation.choice)
    choice = _choice_in_plan(recommendation, steps, profile, notes)
    notes += filter(None, [router_note(steps)])
    return choice, steps


def _choice_in_plan(
    recommendation: BaseRecommendation, steps: Sequence[Step], profile: Profile, notes: list[str]
) -> str:
    """Return the recommended method when the plan has its arm, else the best-ranked one that it has."""
    arms = {step.arm for step in steps if isinstance(step, EvaluateStep)}
    if recommendation.choice in arms:
        return recommendation.choice
    ranked = [scored.method.name for scored in recommendation.ranking.methods]
    substitute = next(name for name in ranked if name in arms)
    why = without_what(recommendation.choice, steps, profile)
    notes.append(f"{recommendation.choice} is recommended but {why}; the plan tests {substitute} instead")
    return substitute


def _data(profile: Profile, columns: dict[str, str] | None, folder: Path) -> PlanData:
    """Return the paths of the answered files, and what stands for those to be named."""
    paths: dict[str, Any] = {}
    base = folder.resolve()
    for key in ("documents", "examples", "questions"):
        value = getattr(profile, key)
        if value == NOT_NAMED.format(key=key):
            paths[key] = Path(value)
        elif value:
            paths[key] = _relative_path(Path(value), base)
    return PlanData(**paths, columns=columns)


def _relative_path(path: Path, base: Path) -> Path:
    """Return the path relative to ``base`` when at most two steps up lead to it, else absolute."""
    full = path.expanduser().resolve()
    relative = Path(os.path.relpath(full, base))
    return full if relative.parts[:3] == ("..", "..", "..") else relative


def plan_answers(answers: Answers, folder: Path) -> dict[str, Any]:
    """Return the answers that are known, with their sources; paths are relative to the plan's folder, as its data are."""
    recorded = {}
    for key in answers:
        value = answers[key].value
        answer = answers[key]
        if value is None:
            continue
        is_file = key == "prompt" and value and names_a_path(value)
        if value and (key in ("documents", "examples", "questions") or is_file):
            value = str(_relative_path(Path(value), folder.resolve()))
        recorded[key] = RecordedAnswer(value=value, source=answer.source, note=answer.note).model_dump()
    return recorded | probe_facts_entry(answers)


def _prompts(answers: Answers, rows: Sequence[Example], language: str | None, notes: list[str]) -> Prompts:
    """Return the instructions, and the refusals and fixed sentences of the examples; a note says which were taken.

    The instructions are those of today, else the system turn that all examples share.
    """
    system = prompt_text(answers)
    if not system and rows and len({row.system for row in rows}) == 1:
        system = rows[0].system
    refusals = refusals_of_examples(rows, language)
    notes += [refusals.note] if refusals.note else []
    return Prompts(
        system=system, refusals=refusals.texts, formulas=fixed_sentences([row.reply for row in rows])
    )


def _gate(choice: str, steps: Sequence[Step]) -> PlanGate:
    """Return the gate: the chosen arm must beat every arm that costs less.

    So a tuned arm has to beat all prompts, a hybrid every single arm.
    """
    return PlanGate(must_beat=tuple(arm for arm in cheaper_arms(steps, choice) if not only_explains(arm)))


def _refusal(profile: Profile) -> RefusalSettings:
    """Return when arms with retrieval refuse: sooner where a wrong answer is expensive or must cite, else as is usual."""
    costly = profile.wrong_answer_cost == "high"
    if not profile.documents or not (costly or profile.must_cite):
        return RefusalSettings()
    why = "a wrong answer is expensive" if costly else "answers must name their source"
    reasons = {
        "check": f"{why}: what no passage supports is refused, where dev shows that few right answers are lost"
    }
    if not costly:
        return RefusalSettings(check="refuse", reasons=reasons)
    reasons["most_wrong"] = f"{why}: more questions with an answer may be refused for it"
    return RefusalSettings(check="refuse", most_wrong=COSTLY_MOST_WRONG, reasons=reasons)


def _max_new_tokens(profile: Profile, rows: Sequence[Example]) -> int:
    """Return the token limit of an answer: 1.3 x the longest of 99 % of the examples, else twice the mean.

    Characters of a token are those of the examples where they are fewer than usual: JSON, digits and Chinese have about 2.
    """
    if rows:
        lengths = sorted(len(row.reply) for row in rows)
        per_token = float(CHARS_PER_TOKEN)
        if profile.answer_tokens and lengths[-1]:
            per_token = min(per_token, fmean(lengths) / profile.answer_tokens)
        # The 99th percentile; then 30 % more, in tokens, rounded up to a multiple of 8.
        chars = lengths[min(len(lengths) - 1, math.ceil(0.99 * len(lengths)) - 1)]
        return max(16, min(1024, 8 * math.ceil(1.3 * chars / per_token / 8)))
    return max(16, min(1024, 2 * profile.answer_tokens)) if profile.answer_tokens else 96


def _thinking(profile: Profile, rows: Sequence[Example]) -> tuple[Thinking, str]:
    """Return the settings of reasoning before answers, and a note on them: on where most examples hold it."""
    held = sorted(
        len(split.reasoning) for row in rows if (split := split_message(row.messages[-1])).reasoning
    )
    if 2 * len(held) > len(rows):
        chars = held[min(len(held) - 1, math.ceil(0.99 * len(held)) - 1)]
        most = max(256, min(16_384, 64 * math.ceil(1.3 * chars / CHARS_PER_TOKEN / 64)))
        return (
            Thinking(enabled=True, max_tokens=most),
            f"{len(held)} of {len(rows)} examples have reasoning before the reply: it is learnt, and cut from "
            "answers before they are scored (thinking.enabled)",
        )
    some = (
        f"{len(held)} of {len(rows)} examples have reasoning before the reply: it is learnt; " if held else ""
    )
    name = profile.model or models.DEFAULT_MODEL
    known = models.find_model(name)
    if profile.remote and reasons_by_name(name.removeprefix("openai:").rpartition("@")[0]):
        return (
            Thinking(),
            some + f"this model reasons before it answers: it gets {Thinking().max_tokens} tokens for that",
        )
    if known and known.reasons == "always":
        return Thinking(), some + (
            f"{known.name} always reasons before it answers: it gets {Thinking().max_tokens} tokens for that, "
            "and the reasoning is cut from its answers (thinking.max_tokens)"
        )
    if known and known.reasons:
        return Thinking(), some + f"{known.name} can reason before it answers: that is off (thinking.enabled)"
    return Thinking(), some.removesuffix("; ")


def _run_name(profile: Profile) -> str:
    """Return a name for the run folder: from the goal, else from the folder that holds the files."""
    source = profile.goal or (
        Path(profile.documents or profile.examples or profile.questions or "plan").resolve().parent.name
    )
    slug = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")[:40].strip("-")
    return slug or "plan"


def recorded_prediction(recommendation: BaseRecommendation) -> dict[str, Any]:
    """Return what is recorded of the recommendation, to be compared with the measurement."""
    full = recommendation.to_json()
    ranked = [
        {**row, "reasons": row["reasons"][:4], "estimate": _short_estimate(row["estimate"])}
        for row in full["ranked"]
    ]
    predicted = {
        key: full[key]
        for key in (
            "choice",
            "confidence",
            "probability",
            "also_measure",
            "also_measure_probability",
            "runner_up",
            "ask_again_when",
            "break_even",
        )
    }
    predicted |= {key: full[key] for key in ("strongest_against", "said_first") if full[key] != []}
    return {**predicted, "ranked": ranked, "flips": full["flips"][:5]}


def _short_estimate(estimate: dict[str, Any]) -> dict[str, Any]:
    """Return an estimate without the details that a plan does not record."""
    memory = estimate["memory_gib"]
    figures = {key: memory[key] for key in ("low", "likely", "high", "fits")} if memory else None
    return {**estimate, "memory_gib": figures, "assumptions": estimate["assumptions"][:2]}
