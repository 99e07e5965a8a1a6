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

from advisor.costs.step_time import (
    ANSWER_TOKENS,
    DECODE_TOKENS_PER_S,
    PREFILL_TOKENS_PER_S,
    REFERENCE_PARAMS_B,
)
from advisor.drafting.draft import draft_with_notes
from advisor.probe.answers_from_probe import (
    PROBE_SOURCE,
    overridden_answers,
    probe_change,
    settled_answers,
    without_probe,
)
from advisor.probe.diagnosis import Diagnosis, diagnose
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import complete_situation
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation, recommend_for_profile
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import canonical_json, sha256_text, write_json
from rag.types import OnEvent
from runners.catalog import models as facts
from runners.models.endpoint import check_may_contact
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import NO_QUANTIZATION, IndexStep, PlanModel
from runners.resources.gpu import MachineProbe
from runners.resources.machine import Machine, detect_machine, free_ram
from runners.run_folder import RunFolder
from runners.runs.dataset import read_data
from runners.runs.requirements import answering_memory
from runners.runs.session import BaseModel, RunContext, model_identity, must_stay_local, obtain_model
from runners.trial.base_probe import PROBE_EXAMPLES, ProbeReplies, probe_base_model

MAX_PROBE_SECONDS = 1800.0
"""Half an hour: a model that would take longer without a GPU is not asked."""
PROBE_PROMPT_TOKENS = 300
"""Tokens of a question with passages and instructions, on average over the modes."""


MAX_PROBE_QUESTIONS = 30
"""Dev questions to ask: about 30, as guides to knowledge probes advise (20 or more decide)."""
MAX_PROBE_TOKENS = 96
"""Longest answer of a probe in tokens: the plan's own limit where no example needs more."""
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


def too_large(profile: Profile, machine: Machine, answers: int, quantization: str = NO_QUANTIZATION) -> str:
    """Return why the model cannot give that many answers here: memory or time; "" when it can, or its size is unknown."""
    shape, params_b = profile.model_shape, profile.params_b
    if shape is None or not params_b:
        return ""
    own_memory = machine.own_memory
    available = machine.gpu_memory_gib.value if own_memory else free_ram(MachineProbe()).value
    needed = answering_memory(shape, machine, quantization, PROBE_PROMPT_TOKENS, MAX_PROBE_TOKENS).likely
    if available is not None and needed > available:
        return f"{profile.model or 'the model'} needs about {needed:.1f} GiB, {available:.1f} are free"
    seconds_each = PROBE_PROMPT_TOKENS / PREFILL_TOKENS_PER_S + ANSWER_TOKENS / DECODE_TOKENS_PER_S
    seconds = answers * seconds_each * params_b / REFERENCE_PARAMS_B
    if machine.device == "cpu" and seconds > MAX_PROBE_SECONDS:
        return f"{profile.model or 'the model'} would take about {seconds / 3600:.1f} hours without a GPU"
    return ""


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
    """

    answers: Answers
    replies: ProbeReplies
    diagnosis: Diagnosis
    model: str
    proxy: str
    before: BaseRecommendation
    after: BaseRecommendation
    seconds: float

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
            "set": {} if self.proxy else self.diagnosis.settled,
            "kept": {key: own.value for key, (own, _) in overridden_answers(self.answers).items()},
            "recommendation": probe_change(self.before, self.after, self.answers),
            "seconds": round(self.seconds, 1),
        }


def probe_model(
    answers: Answers, work: Path, limit: int = MAX_PROBE_QUESTIONS, on_event: OnEvent | None = None
) -> ProbeOutcome:
    """Ask the model that the answers name, or the default one as a proxy, and evaluate its replies.

    A proxy settles no answer: that a small model fails, or knows, does not measure the model that is planned for.

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
    before = recommend_for_profile(profile)
    full_plan = draft_with_notes(before, situation).plan
    plan = probe_plan(full_plan, limit)
    examples, split = read_data(plan, on_event)
    example_count = min(PROBE_EXAMPLES, len(examples))
    if not split.dev and not example_count:
        raise BadInput("there is nothing to ask: no dev question and no example", "give more questions")
    modes = 3 if plan.index else 1  # closed-book, open-book, retrieved; or closed-book alone
    chosen = choose_probed_model(
        plan, profile, detect_machine(work.parent), modes * len(split.dev) + example_count, on_event
    )
    plan = plan.model_copy(update={"model": chosen.model})
    embedder = obtain_model(plan.embedder, "embedder", on_event) if plan.index else None
    made_from = [plan.digest(), split.digest, model_identity(chosen.base), embedder and embedder.fingerprint]
    context = RunContext(
        plan,
        probe_folder(work, made_from),
        chosen.base,
        embedder,
        examples,
        split,
        on_event,
        {chosen.model.name: chosen.base},
    )
    replies = probe_base_model(context, longest=full_plan.max_new_tokens)
    diagnosis = diagnose(replies, plan.seed)
    settled = {} if chosen.why else settled_answers(diagnosis.settled, diagnosis.because, chosen.model.name)
    answers = answers.add(PROBE_SOURCE, settled)
    after = recommend_for_profile(complete_situation(answers).profile)
    shutil.rmtree(work, ignore_errors=True)
    seconds = time.monotonic() - started
    return ProbeOutcome(answers, replies, diagnosis, chosen.model.name, chosen.why, before, after, seconds)


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
    """Return the work folder, emptied when it belongs to a probe of something else."""
    digest = sha256_text(canonical_json(made_from))
    inputs_file = work / INPUTS_FILE
    if not inputs_file.is_file() or digest not in inputs_file.read_text("utf-8", errors="replace"):
        shutil.rmtree(work, ignore_errors=True)
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
