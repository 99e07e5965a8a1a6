"""The work behind `tunewise probe`: ask the plan's model a few dev questions in several ways before advising.

Which model the probe asks: the plan's, or, where that cannot run here, the default one as a stand-in.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.catalog import models as facts
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
from runners.models.endpoint import check_may_contact
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import IndexStep, PlanModel
from runners.resources.gpu import MachineProbe
from runners.resources.machine import Machine, detect_machine, free_ram
from runners.resources.memory_estimate import estimate_memory
from runners.resources.memory_terms import MemorySetup
from runners.run_folder import RunFolder
from runners.runs.dataset import read_data
from runners.runs.session import BaseModel, RunContext, model_identity, must_stay_local, obtain_model
from runners.trial.base_probe import PROBE_EXAMPLES, ProbeReplies, probe_base_model

MAX_PROBE_SECONDS = 1800.0
"""A probe is a look before the work: a model that would take over half an hour here is not asked."""
PROBE_PROMPT_TOKENS = 300
"""Tokens of a question with its passages and instructions, on average over the ways."""


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """The model that is asked, and why it is not the plan's; "" when it is."""

    model: PlanModel
    base: BaseModel
    why: str = ""


def choose_probed_model(
    plan: Plan, profile: Profile, machine: Machine, answers: int, on_event: OnEvent | None = None
) -> ProbedModel:
    """Return the plan's model where it can answer so many questions here, else the default model with the reason.

    Raises BadInput for an endpoint that may not be contacted, CannotRun when not even the default can be had.
    """
    remote = parse_remote(plan.model.name)
    if remote:
        check_may_contact(remote.name, remote.url, must_stay_local(plan))
        return ProbedModel(plan.model, remote)
    why = too_large(profile, machine, answers)
    if not why:
        try:
            return ProbedModel(plan.model, obtain_model(plan.model, "base", on_event))
        except (CannotRun, BadInput) as problem:
            if plan.model.name == facts.DEFAULT_MODEL:
                raise
            why = f"{plan.model.name} cannot be had here ({problem.message})"
    small = PlanModel(name=facts.DEFAULT_MODEL)
    return ProbedModel(small, obtain_model(small, "base", on_event), why)


def too_large(profile: Profile, machine: Machine, answers: int) -> str:
    """Say why the model cannot answer so many questions here: memory, or time; "" when it can, or its size is unknown."""
    shape, params_b = profile.model_shape, profile.params_b
    if shape is None or not params_b:
        return ""
    cuda = machine.gpu_kind.value == "cuda"
    have = machine.gpu_memory_gib.value if cuda else free_ram(MachineProbe()).value
    need = estimate_memory(shape, "inference", MemorySetup(seq_len=1024)).likely
    if have is not None and need > have:
        return f"{profile.model or 'the model'} needs about {need:.1f} GiB, {have:.1f} are free"
    each = PROBE_PROMPT_TOKENS / PREFILL_TOKENS_PER_S + ANSWER_TOKENS / DECODE_TOKENS_PER_S
    seconds = answers * each * params_b / REFERENCE_PARAMS_B
    if not cuda and seconds > MAX_PROBE_SECONDS:
        return f"{profile.model or 'the model'} would take about {seconds / 3600:.1f} hours without a GPU"
    return ""


MAX_PROBE_QUESTIONS = 30
"""Dev questions that are asked: about 30, as in the knowledge probe of the field's guides (deciding by 20+)."""
MAX_PROBE_TOKENS = 96
"""Longest answer of a probe, in tokens: a plan's own limit where no example shows another."""
INPUTS_FILE = "made_from.json"


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """What a probe found, and what it makes of the advice."""

    answers: Answers
    """The answers given, with what the probe settled."""
    asked: ProbeReplies
    found: Diagnosis
    model: str
    proxy: str
    """Why another model than the plan's was asked; "" when it was the plan's."""
    before: BaseRecommendation
    after: BaseRecommendation
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what ``probe --json`` prints."""
        return {
            "schema": 1,
            "model": self.model,
            "proxy": self.proxy or None,
            "questions": self.asked.questions,
            "without_passage": self.asked.ungrounded,
            "cut": self.asked.cut,
            "sampled": self.asked.portion.to_json() if self.asked.portion else None,
            **self.found.to_json(),
            "set": {} if self.proxy else self.found.settled,
            "kept": {key: mine.value for key, (mine, _) in overridden_answers(self.answers).items()},
            "recommendation": probe_change(self.before, self.after, self.answers),
            "seconds": round(self.seconds, 1),
        }


def probe_model(
    answers: Answers, work: Path, limit: int = MAX_PROBE_QUESTIONS, on_event: OnEvent | None = None
) -> ProbeOutcome:
    """Ask the model that the answers name, or the default one as a stand-in, and read what comes back.

    ``work`` holds index and answers until the probe is done, so that one that was interrupted asks nothing twice;
    it is removed at the end. A stand-in settles no answer: that a small model fails, or knows, is no measurement of
    the one that is planned for. Raises UsageProblem when there is nothing to ask, BadInput for broken files.
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
    full = draft_with_notes(before, situation).plan
    plan = probe_plan(full, limit)
    examples, split = read_data(plan, on_event)
    shown = min(PROBE_EXAMPLES, len(examples))
    if not split.dev and not shown:
        raise BadInput("there is nothing to ask: no dev question and no example", "give more questions")
    ways = 3 if plan.index else 1
    chosen = choose_probed_model(
        plan, profile, detect_machine(work.parent), ways * len(split.dev) + shown, on_event
    )
    plan = plan.model_copy(update={"model": chosen.model})
    embedder = obtain_model(plan.embedder, "embedder", on_event) if plan.index else None
    made_from = [plan.digest(), split.digest, model_identity(chosen.base), embedder and embedder.fingerprint]
    bench = RunContext(
        plan,
        probe_folder(work, made_from),
        chosen.base,
        embedder,
        examples,
        split,
        on_event,
        {chosen.model.name: chosen.base},
    )
    asked = probe_base_model(bench, longest=full.max_new_tokens)
    found = diagnose(asked, plan.seed)
    settled = {} if chosen.why else settled_answers(found.settled, found.because, chosen.model.name)
    answers = answers.add(PROBE_SOURCE, settled)
    after = recommend_for_profile(complete_situation(answers).profile)
    shutil.rmtree(work, ignore_errors=True)
    took = time.monotonic() - started
    return ProbeOutcome(answers, asked, found, chosen.model.name, chosen.why, before, after, took)


def probe_plan(plan: Plan, limit: int) -> Plan:
    """Return the plan as a probe carries it out: its index and dev questions, no arms, short answers.

    Dev is what the plan's own run would call dev; the test questions stay unread.
    """
    steps = tuple(step for step in plan.steps if isinstance(step, IndexStep))
    data = plan.data.model_copy(update={"max_dev": min(limit, plan.data.max_dev or limit)})
    most = min(MAX_PROBE_TOKENS, plan.max_new_tokens)
    return plan.model_copy(
        update={
            "steps": steps,
            "data": data,
            "max_new_tokens": most,
            "answers": _policy(plan),
            "predicted": {},
        }
    )


def _policy(plan: Plan) -> dict[str, Any]:
    """The answers that a probe obeys; the others (free disk, ...) change by the hour and would disown its work."""
    return {k: v for k, v in plan.answers.items() if k in ("data_must_stay_local", "hosted_api_allowed")}


def probe_folder(work: Path, made_from: list[Any]) -> RunFolder:
    """Return the work folder, emptied when it belongs to a probe of something else."""
    mark = sha256_text(canonical_json(made_from))
    place = work / INPUTS_FILE
    if not place.is_file() or mark not in place.read_text("utf-8", errors="replace"):
        shutil.rmtree(work, ignore_errors=True)
        write_json(place, {"schema": 1, "made_from": mark})
    return RunFolder(work)
