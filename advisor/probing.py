"""The work behind `tunewise probe`: ask the plan's model a few dev questions in several ways before advising."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.answers import Answers
from advisor.diagnosis import Diagnosis, diagnose
from advisor.draft import draft
from advisor.engine import Recommendation, recommend
from advisor.gather import complete
from advisor.probed import SOURCE, as_answers, change, hidden, without
from advisor.stand_in import choose
from rag.durable import canonical_json, sha256_text, write_json
from rag.errors import BadInput, UsageProblem
from rag.types import OnEvent
from runners.bench import RunContext, identity, obtain
from runners.dataset import read_data
from runners.machine import detect
from runners.plan import IndexStep, Plan
from runners.rundir import RunFolder
from runners.ways import EXAMPLES, Asked, ask

LIMIT = 30
"""Dev questions that are asked: about 30, as in the knowledge probe of the field's guides (deciding by 20+)."""
MOST_TOKENS = 96
"""Longest answer of a probe, in tokens: a plan's own limit where no example shows another."""
MADE_FROM = "made_from.json"


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found, and what it makes of the advice."""

    answers: Answers
    """The answers given, with what the probe settled."""
    asked: Asked
    found: Diagnosis
    model: str
    proxy: str
    """Why another model than the plan's was asked; "" when it was the plan's."""
    before: Recommendation
    after: Recommendation
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what ``probe --json`` prints."""
        return {
            "schema": 1, "model": self.model, "proxy": self.proxy or None,
            "questions": self.asked.questions, "without_passage": self.asked.ungrounded, "cut": self.asked.cut,
            "sampled": self.asked.portion.to_json() if self.asked.portion else None,
            **self.found.to_json(), "set": {} if self.proxy else self.found.settled,
            "kept": {key: mine.value for key, (mine, _) in hidden(self.answers).items()},
            "recommendation": change(self.before, self.after, self.answers), "seconds": round(self.seconds, 1),
        }  # fmt: skip


def probe(answers: Answers, work: Path, limit: int = LIMIT, on_event: OnEvent | None = None) -> Probed:
    """Ask the model that the answers name, or the default one as a stand-in, and read what comes back.

    ``work`` holds index and answers until the probe is done, so that one that was interrupted asks nothing twice;
    it is removed at the end. A stand-in settles no answer: that a small model fails, or knows, is no measurement of
    the one that is planned for. Raises UsageProblem when there is nothing to ask, BadInput for broken files.
    """
    started = time.monotonic()
    answers = without(answers)
    situation = complete(answers)
    profile = situation.profile
    if not (profile.questions or profile.examples):
        raise UsageProblem(
            "there is nothing to ask: no questions and no examples", "give --questions, --examples"
        )
    before = recommend(profile)
    full = draft(before, situation).plan
    plan = cut_down(full, limit)
    examples, split = read_data(plan, on_event)
    shown = min(EXAMPLES, len(examples))
    if not split.dev and not shown:
        raise BadInput("there is nothing to ask: no dev question and no example", "give more questions")
    ways = 3 if plan.index else 1
    chosen = choose(plan, profile, detect(work.parent), ways * len(split.dev) + shown, on_event)
    plan = plan.model_copy(update={"model": chosen.model})
    embedder = obtain(plan.embedder, "embedder", on_event) if plan.index else None
    made_from = [plan.digest(), split.digest, identity(chosen.base), embedder and embedder.fingerprint]
    bench = RunContext(plan, folder(work, made_from), chosen.base, embedder, examples, split, on_event,
                  {chosen.model.name: chosen.base})  # fmt: skip
    asked = ask(bench, longest=full.max_new_tokens)
    found = diagnose(asked, plan.seed)
    settled = {} if chosen.why else as_answers(found.settled, found.because, chosen.model.name)
    answers = answers.add(SOURCE, settled)
    after = recommend(complete(answers).profile)
    shutil.rmtree(work, ignore_errors=True)
    took = time.monotonic() - started
    return Probed(answers, asked, found, chosen.model.name, chosen.why, before, after, took)


def cut_down(plan: Plan, limit: int) -> Plan:
    """Return the plan as a probe carries it out: its index and dev questions, no arms, short answers.

    Dev is what the plan's own run would call dev; the test questions stay unread.
    """
    steps = tuple(step for step in plan.steps if isinstance(step, IndexStep))
    data = plan.data.model_copy(update={"max_dev": min(limit, plan.data.max_dev or limit)})
    most = min(MOST_TOKENS, plan.max_new_tokens)
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


def folder(work: Path, made_from: list[Any]) -> RunFolder:
    """Return the work folder, emptied when it belongs to a probe of something else."""
    mark = sha256_text(canonical_json(made_from))
    place = work / MADE_FROM
    if not place.is_file() or mark not in place.read_text("utf-8", errors="replace"):
        shutil.rmtree(work, ignore_errors=True)
        write_json(place, {"schema": 1, "made_from": mark})
    return RunFolder(work)
