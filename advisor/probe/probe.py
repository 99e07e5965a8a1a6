"""The work behind ``tunewise probe``: ask the plan's model a few dev questions in several modes, before advising.

:func:`probe_model` does the probe. :func:`choose_probed_model` decides which model is asked: the plan's, or the default
model as a proxy where that one cannot run here.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.drafting.draft import draft_with_notes
from advisor.history import own_decided_trials
from advisor.probe.answers_from_probe import (
    CLASSIFIER_NOTE,
    PROBE_SOURCE,
    overridden_answers,
    probe_change,
    settled_answers,
    without_probe,
)
from advisor.probe.diagnosis import Diagnosis, diagnose
from advisor.probe.offer import MAX_PROBE_QUESTIONS, MAX_PROBE_TOKENS, price_of_probe, too_large
from advisor.questionnaire.answers import Answer, Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.probe_facts import PROBE_FACTS, ProbeFacts
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation, recommend_for_profile
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import canonical_json, empty_folder, sha256_text, write_json, writer_lock
from rag.types import OnEvent
from runners.arms.few_shot import NEAREST_TOKENS_CPU
from runners.catalog import models as facts
from runners.made_from import content_digest
from runners.models.endpoint import check_may_contact
from runners.models.registry import planned_model
from runners.models.resolve import Model, parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import IndexStep, PlanModel
from runners.resources.machine import Machine, detect_machine
from runners.run_folder import RunFolder
from runners.runs.dataset import read_data
from runners.runs.opened import OpenRun
from runners.runs.plan_models import (
    BaseModel,
    ObtainedModels,
    model_identity,
    must_stay_local,
    obtain_model,
)
from runners.trial.base_probe import FEW_SHOT, PROBE_EXAMPLES, PROBE_SHOTS, ProbeReplies, probe_base_model

NO_BANK = "not asked again with examples in the prompt: fewer than two of them have together at most"
INPUTS_FILE = "made_from.json"


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """The model that is asked, and why it is not the plan's; "" when it is."""

    model: PlanModel
    base: BaseModel
    why: str = ""


def choose_probed_model(
    plan: Plan, profile: Profile, machine: Machine, answers: int, on_event: OnEvent | None = None
) -> ProbedModel:
    """Return the plan's model where it can answer that many questions here, else the default model with the reason.

    Args:
        plan: the plan.
        profile: the situation, for the model's size.
        machine: the machine, for memory and GPU.
        answers: number of answers to generate.
        on_event: receives the events of downloads.

    Raises:
        BadInput: for an endpoint that may not be contacted.
        CannotRun: when even the default model cannot be obtained.
    """
    remote = parse_remote(plan.model.name)
    if remote:
        check_may_contact(remote.name, remote.url, must_stay_local(plan))
        return ProbedModel(plan.model, remote)
    if meant := planned_model(plan):
        return ProbedModel(
            plan.model, obtain_model(plan.model, "base", on_event), f"{meant} was suggested, not named"
        )
    why = too_large(profile, machine, answers, plan.model.quantization)
    if not why:
        try:
            return ProbedModel(plan.model, obtain_model(plan.model, "base", on_event))
        except (CannotRun, BadInput) as problem:
            if plan.model.name == facts.DEFAULT_MODEL:
                raise
            why = f"{plan.model.name} cannot be had here ({problem.message})"
    small = PlanModel(name=facts.DEFAULT_MODEL)
    return ProbedModel(small, obtain_model(small, "base", on_event), why)


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """What a probe measured, and what it changes in the advice.

    Attributes:
        answers: the answers given, with those that the probe settled.
        replies: the model's replies.
        diagnosis: their evaluation.
        model: name of the model that was asked.
        proxy: why another model than the plan's was asked; "" when it was the plan's.
        before: the recommendation without the probe.
        after: the recommendation with it.
        seconds: time the probe took.
        left_out: what was not measured although the files allow it, one sentence each.
    """

    answers: Answers
    replies: ProbeReplies
    diagnosis: Diagnosis
    model: str
    proxy: str
    before: BaseRecommendation
    after: BaseRecommendation
    seconds: float
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what ``probe --json`` prints."""
        return {
            "schema": 1,
            "model": self.model,
            "proxy": self.proxy or None,
            "questions": self.replies.questions,
            "without_passage": self.replies.ungrounded,
            "cut": self.replies.cut,
            "sampled": self.replies.portion.to_json() if self.replies.portion else None,
            **self.diagnosis.to_json(),
            "facts": self.answers.probe.to_json(),
            "left_out": list(self.left_out),
            "set": {} if self.proxy else self.diagnosis.settled,
            "kept": {key: own.value for key, (own, _) in overridden_answers(self.answers).items()},
            "recommendation": probe_change(self.before, self.after, self.answers),
            "seconds": round(self.seconds, 1),
        }


def probe_model(
    answers: Answers, work: Path, limit: int = MAX_PROBE_QUESTIONS, on_event: OnEvent | None = None
) -> ProbeOutcome:
    """Ask the model that the answers name, or the default one as a proxy, and evaluate its replies.

    A proxy settles no answer: that a small model fails, or knows, does not measure the model that is planned for. Of
    its probe only the classifier is carried on, which needs no language model.

    Args:
        answers: the answers of the questionnaire.
        work: folder for index and replies. An interrupted probe continues from it; it is removed at the end.
        limit: most dev questions to ask.
        on_event: receives the events of the probe.

    Raises:
        UsageProblem: when there is nothing to ask.
        BadInput: for broken files.
    """
    started = time.monotonic()
    answers = without_probe(answers)
    situation = complete_situation(answers)
    profile = situation.profile
    if not (profile.questions or profile.examples):
        raise UsageProblem(
            "there is nothing to ask: no questions and no examples", "give --questions, --examples"
        )
    before = recommend_for_profile(profile, own=own_decided_trials())
    full_plan = draft_with_notes(before, situation).plan
    plan = probe_plan(full_plan, limit)
    data = read_data(plan, on_event)
    examples, split = data.examples, data.split
    example_count = min(PROBE_EXAMPLES, len(examples))
    if not split.dev and not example_count:
        raise BadInput("there is nothing to ask: no dev question and no example", "give more questions")
    modes = 3 if plan.index else 1  # closed-book, open-book, retrieved; or closed-book alone
    shots, left_out = _shots(profile, example_count)
    asked = modes * len(split.dev) + example_count + (len(split.dev) + example_count if shots else 0)
    chosen = choose_probed_model(plan, profile, detect_machine(work.parent), asked, on_event)
    plan = plan.model_copy(update={"model": chosen.model})
    labels = any(arm.classifier for arm in full_plan.arms)
    embedder, missing = _embedder(plan, labels, on_event)
    # The journal holds answers by their place in a file, and the index passages: by other files it is begun again.
    files = [data.files, content_digest(plan.data.documents)]
    made_from = [plan.digest(), split.digest, files, model_identity(chosen.base)]
    classify = labels and embedder is not None
    with writer_lock(work):
        folder = probe_folder(work, [*made_from, embedder and embedder.fingerprint, shots])
        obtained = ObtainedModels(bases={chosen.model.name: chosen.base}, embedder=embedder)
        context = OpenRun(folder, plan, obtained, data=data, on_event=on_event)
        replies = probe_base_model(context, longest=full_plan.max_new_tokens, shots=shots, classify=classify)
        diagnosis = diagnose(replies, plan.seed)
        answers = answers.add(PROBE_SOURCE, _measured_answers(diagnosis, chosen))
        after = recommend_for_profile(complete_situation(answers).profile, own=before.probability.own)
        shutil.rmtree(work, ignore_errors=True)
    if shots and not replies.of(FEW_SHOT):
        left_out = (f"{NO_BANK} {NEAREST_TOKENS_CPU:,} tokens",)
    seconds, name = time.monotonic() - started, chosen.model.name
    return ProbeOutcome(
        answers, replies, diagnosis, name, chosen.why, before, after, seconds, (*left_out, *missing)
    )


def _shots(profile: Profile, example_count: int) -> tuple[int, tuple[str, ...]]:
    """Return how many examples to show when asking again, 0 not to ask again, and why not where examples are there."""
    if profile.examples_known < example_count + 2:
        return 0, ()
    if profile.remote:
        return 0, ("an endpoint is not asked again with examples in the prompt: the trial does that",)
    price = price_of_probe(profile)
    if not price.with_few_shot:
        minutes = price.few_shot / 60
        return 0, (
            f"not asked again with examples in the prompt: that would take about {minutes:.0f} minutes",
        )
    return PROBE_SHOTS, ()


def _embedder(plan: Plan, labels: bool, on_event: OnEvent | None) -> tuple[Model | None, tuple[str, ...]]:
    """Return the embedder where the probe needs one, and what cannot be measured without it.

    Raises:
        CannotRun: it cannot be obtained, and an index is needed.
    """
    near = any(check.kind in ("labels", "json_schema") for check in plan.checks)
    if not (plan.index or labels or near):
        return None, ()
    try:
        return obtain_model(plan.embedder, "embedder", on_event), ()
    except CannotRun as problem:
        if plan.index:
            raise
        return None, (f"no classifier and no nearest examples: {problem.message}",) if labels else ()


def _measured_answers(diagnosis: Diagnosis, chosen: ProbedModel) -> dict[str, Answer]:
    """Return the answers that a probe settled, and what it measured; of a stand-in only the classifier."""
    facts = diagnosis.facts()
    if chosen.why:
        value = ProbeFacts(classifier=facts.classifier).to_json()
        return {PROBE_FACTS: Answer(value, PROBE_SOURCE, CLASSIFIER_NOTE)} if value else {}
    settled = settled_answers(diagnosis.settled, diagnosis.because, chosen.model.name)
    measured = {PROBE_FACTS: facts.to_json()}
    return settled | settled_answers(
        measured, {PROBE_FACTS: ", ".join(measured[PROBE_FACTS])}, chosen.model.name
    )


def probe_plan(plan: Plan, limit: int) -> Plan:
    """Return the plan as a probe carries it out: its index and dev questions, no arms, short answers.

    The dev questions are those of the plan's own run; the test questions are not read.
    """
    steps = tuple(step for step in plan.steps if isinstance(step, IndexStep))
    data = plan.data.model_copy(update={"max_dev": min(limit, plan.data.max_dev or limit)})
    max_tokens = min(MAX_PROBE_TOKENS, plan.max_new_tokens)
    return plan.model_copy(
        update={
            "steps": steps,
            "data": data,
            "max_new_tokens": max_tokens,
            "answers": _policy_answers(plan),
            "predicted": {},
        }
    )


def probe_folder(work: Path, made_from: list[Any]) -> RunFolder:
    """Return the work folder, whose lock is held, emptied when it belongs to a probe of something else."""
    digest = sha256_text(canonical_json(made_from))
    inputs_file = work / INPUTS_FILE
    if not inputs_file.is_file() or digest not in inputs_file.read_text("utf-8", errors="replace"):
        empty_folder(work)
        write_json(inputs_file, {"schema": 1, "made_from": digest})
    return RunFolder(work)


def _policy_answers(plan: Plan) -> dict[str, Any]:
    """Return the answers that a probe obeys.

    The others (free disk space, ...) change by the hour; with them in the digest, an interrupted probe could not continue.
    """
    return {
        key: value
        for key, value in plan.answers.items()
        if key in ("data_must_stay_local", "hosted_api_allowed")
    }
