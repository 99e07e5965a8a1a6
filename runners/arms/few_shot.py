"""Examples for a few-shot prompt: a fixed bank, the nearest to each question, or a bank chosen on dev questions.

:func:`prompt_candidates` builds the prompts to compare and :func:`select_prompt` chooses one by successive
halving, with the plan's own combined score: a few questions for all prompts, a few more for the better half,
and half of all answers, on fresh questions, for the best one and the fixed bank alone. Only those decide,
because the questions that picked the best prompt flatter it. It replaces the fixed bank when it leads by more
than half of the lead's standard error. More certainty is not required: choosing a prompt claims nothing,
since the test questions judge it afterwards, and waiting for certainty gives most of the gain away
(`benchmarks/audition.py` has both rules' expected gain and loss). No test question is read. Every answer is
in a journal before the next batch starts, so that nothing is asked twice.

Only the few-shot arm's own prompt changes; the other arms keep the plan's instructions. All arms get the same
instructions so that none is weak by design, tuned rows are built on them, and a list of rules that helps a
base model with three examples need not help a model that has learnt the style. To have the list of rules in
every arm, write it into ``prompts.system``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.files import append_lines, canonical_json, sha256_text, write_json
from rag.types import OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.answer_constraint import constraint_input
from runners.arms.prompts import choose_shots
from runners.arms.retriever import PassageFinder
from runners.data.examples import Example
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from runners.scoring.scores import combined_score, question_weights, score_answer
from runners.scoring.style_checks import rule_text

if TYPE_CHECKING:
    import numpy as np

    from rag.embedding.protocol import Encoder

FIXED_BANK = "fixed"
"""Name of the default candidate: the bank drawn by the seed, with the plan's instructions."""
PROMPTS = "prompts.json"
TRIED = "tried.jsonl"
MIN_SHARED_QUESTIONS = 8
"""Fresh questions that the last two prompts must share; with fewer, a difference cannot be distinguished from noise."""
ROUND_SHARES = (0.27, 0.2)
"""Shares of the answers that the first two rounds may use."""
SWITCH_MARGIN = 0.5
"""Standard errors by which the other prompt must lead. No margin has the largest expected gain, but also the
largest loss where the fixed bank is the best; half a standard error halves that loss and keeps nine tenths of
the gain."""


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """One prompt to try: instructions, and the examples below them in order."""

    name: str
    system: str
    shots: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as stored in `trial/prompts.json`.

        The examples are stored with it, so that the run can be asked without the examples' file.
        """
        shots = [{"question": shot.question, "reply": shot.reply, "line": shot.line} for shot in self.shots]
        return {"name": self.name, "system": self.system, "shots": shots}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> PromptCandidate:
        """Return the candidate that :meth:`to_json` stored."""
        return cls(stored["name"], stored["system"], tuple(map(_stored_shot, stored["shots"])))


@dataclass(frozen=True, slots=True)
class ScoreLead:
    """The lead of one prompt over another on the same questions, with its standard error."""

    difference: float
    error: float
    """Standard error of the mean difference over the questions."""

    @property
    def enough(self) -> bool:
        """Whether the lead is large enough to switch to the other prompt."""
        return self.difference > SWITCH_MARGIN * self.error + 1e-9


@dataclass(frozen=True, slots=True)
class SelectionContext:
    """What the selection of a prompt needs besides the candidates."""

    plan: Plan
    arm: EvaluateStep
    dev: tuple[Question, ...]
    generator: Callable[[], Generator]
    """Loads the model; called only when there is something to ask."""
    finder: PassageFinder | None
    gold: Callable[[Question], str]
    base: str
    """Identifies the answering model and its weights."""
    folder: Path
    """The trial's folder."""
    emit: OnEvent


class NearestExamples:
    """Chooses the examples whose questions are nearest to a question by the embedder, the nearest last."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder, count: int) -> None:
        """Embed the examples' questions once; ``count`` examples are shown with each question."""
        self._rows = sorted(
            (e for e in examples if not e.raw), key=lambda e: sha256_text(f"{e.question}\0{e.reply}")
        )
        self._encoder = encoder
        self._count = count
        self._vectors: np.ndarray | None = (
            encoder.encode([e.question for e in self._rows]) if self._rows else None
        )

    def __call__(self, question: Question) -> tuple[Example, ...]:
        """Return the examples for one question."""
        if self._vectors is None:
            return ()
        similarity = self._vectors @ self._encoder.encode([question.question])[0]
        # Rounded, so that platforms whose float32 sums differ in the last digits choose the same examples.
        best = sorted(range(len(self._rows)), key=lambda n: (-round(float(similarity[n]), 6), n))[
            : self._count
        ]
        return tuple(self._rows[n] for n in reversed(best))


def prompt_candidates(
    plan: Plan, examples: Sequence[Example], count: int, own: bool = False
) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try, the fixed one first: up to four banks with one or two instructions.

    The banks are the fixed one; the same in reverse order, so that another example is nearest to the
    question; examples from documents that the fixed bank does not show; and such examples without a refusal.
    The instructions are the plan's, and the same followed by the plan's style checks as a list of rules.

    Args:
        plan: the run's plan.
        examples: the examples to draw from; plain texts are left out.
        count: examples in a bank.
        own: whether the questions bring their own instructions, so that these cannot be varied.
    """
    usable = [row for row in examples if not row.raw]
    fixed = choose_shots(usable, count, plan.seed)
    used = {shot.meta.get("doc_id") for shot in fixed} - {None}
    rest = [row for row in usable if row not in fixed and row.meta.get("doc_id") not in used]
    plain = [row for row in rest if not row.refuses]
    banks = {
        FIXED_BANK: fixed,
        "reversed": fixed[::-1],
        "others": choose_shots(rest, count, plan.seed + 1),
        "no refusal": choose_shots(plain, count, plan.seed + 2),
    }
    candidates: dict[tuple[str, tuple[Example, ...]], PromptCandidate] = {}
    for label, system in candidate_instructions(plan, own):
        for name, shots in banks.items():
            if len(shots) == len(fixed):
                full_name = ", ".join(filter(None, (name, label)))
                candidates.setdefault((system, _texts_of(shots)), PromptCandidate(full_name, system, shots))
    return tuple(candidates.values())


def candidate_instructions(plan: Plan, own: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the instructions to try as (label, text): the plan's, then the same with its checks as rules."""
    rules = [rule_text(check) for check in plan.checks if check.text]
    system = plan.prompts.system
    if own or not rules:
        return (("", system),)
    rule_list = "Rules for every reply:\n" + "\n".join(f"- {rule}" for rule in rules)
    return (("", system), ("rules listed", f"{system}\n\n{rule_list}" if system else rule_list))


def select_prompt(
    stage: SelectionContext, candidates: Sequence[PromptCandidate], budget: int
) -> PromptCandidate:
    """Return the prompt to use: the first candidate, unless another leads it by enough.

    The decision and all candidates' scores are stored in the trial's folder and reported as events. A stored
    decision with the same candidates, questions, model and scores is returned without asking again.

    Args:
        stage: the plan, arm, dev questions, model and folder.
        candidates: the prompts, the fixed bank first.
        budget: the most answers that may be generated.
    """
    made_from = _input_digest(stage, candidates)
    stored = read_choice(stage.folder, stage.arm.arm)
    if stored is not None and stored["made_from"] == made_from:
        return PromptCandidate.from_json(stored["chosen"])
    rounds = halving_rounds(len(candidates), len(stage.dev), budget)
    if not rounds:
        reason = _reason_for_no_rounds(len(candidates), len(stage.dev), budget)
        return _store_choice(stage, made_from, candidates[0], (), reason)
    scores: dict[str, list[float]] = {c.name: [] for c in candidates}
    weight_of = question_weights(stage.plan, stage.dev)
    running, asked = list(candidates), 0
    for size, each in rounds:
        running = _best(running, scores, size)
        questions = stage.dev[asked : asked + each]
        asked += each
        # A few questions of many prompts make one batch; many questions of one prompt share its prefix in the
        # KV cache.
        for group in [running] if each < MIN_SHARED_QUESTIONS else [[c] for c in running]:
            _ask(stage, group, questions, made_from)
        journal = _journal(stage, made_from)
        for candidate in running:
            scores[candidate.name] += [journal[candidate.name, q.id] * weight_of[q.id] for q in questions]
            stage.emit(
                {
                    "event": "prompt.tried",
                    "arm": stage.arm.arm,
                    "prompt": candidate.name,
                    "questions": len(scores[candidate.name]),
                    "score": _mean(scores[candidate.name]),
                }
            )
    chosen, reason = _decide(running, scores, rounds[-1][1])
    tried = [
        {**c.to_json(), "questions": len(scores[c.name]), "score": _mean(scores[c.name])} for c in candidates
    ]
    return _store_choice(stage, made_from, chosen, tried, reason)


def read_choice(folder: Path, arm: str) -> dict[str, Any] | None:
    """Return the stored decision for an arm from `trial/prompts.json`; None when there is none, BadInput when damaged."""
    path = folder / PROMPTS
    if not path.is_file():
        return None
    try:
        choice = json.loads(path.read_text("utf-8"))["arms"].get(arm)
        return dict(choice) if choice else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}",
            f"remove it, and choose again: tunewise run {folder.parent} --resume",
        ) from None


def halving_rounds(count: int, dev: int, budget: int) -> tuple[tuple[int, int], ...]:
    """Return (prompts, questions each) of every round; () when the last two would share too few questions.

    Each round asks new questions. Together the rounds use at most ``dev`` questions and ``budget`` answers.
    """
    if count < 2:
        return ()
    sizes = [count, -(-count // 2)] if count > 4 else [count] if count > 2 else []
    rounds: list[tuple[int, int]] = []
    left = budget
    for size, share in zip(sizes, ROUND_SHARES, strict=False):
        each = max(1, int(share * budget / size))
        rounds.append((size, each))
        left -= size * each
    fresh = min(left // 2, dev - sum(each for _, each in rounds))
    return (*rounds, (2, fresh)) if fresh >= MIN_SHARED_QUESTIONS else ()


def score_lead(other: Sequence[float], fixed: Sequence[float]) -> ScoreLead:
    """Return how far one prompt's scores are above another's, paired by question.

    Args:
        other: scores of the other prompt [questions], at least two.
        fixed: scores of the fixed bank on the same questions.
    """
    differences = [a - b for a, b in zip(other, fixed, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    return ScoreLead(mean, math.sqrt(variance / len(differences)))


def with_instructions(plan: Plan, system: str) -> Plan:
    """Return the plan with other instructions, for one arm."""
    return plan.model_copy(update={"prompts": plan.prompts.model_copy(update={"system": system})})


def _texts_of(shots: Sequence[Example]) -> Any:
    return tuple((shot.question, shot.reply) for shot in shots)


def _stored_shot(stored: dict[str, Any]) -> Example:
    turns = (
        {"role": "user", "content": stored["question"]},
        {"role": "assistant", "content": stored["reply"]},
    )
    return Example(turns, {}, stored["line"])


def _best(
    running: Sequence[PromptCandidate], scores: dict[str, list[float]], size: int
) -> list[PromptCandidate]:
    """Return the fixed bank and the best others; among equal scores the earlier one."""
    fixed, *others = running
    ranked = sorted(others, key=lambda c: -(_mean(scores[c.name]) or 0.0))
    return [fixed, *ranked[: size - 1]]


def _ask(
    stage: SelectionContext, group: Sequence[PromptCandidate], questions: Sequence[Question], made_from: str
) -> None:
    """Ask these questions with every prompt of a group at once, except those that the journal holds."""
    journal = _journal(stage, made_from)
    pairs = [(c, q) for c in group for q in questions]
    known = {str(n) for n, (c, q) in enumerate(pairs) if (c.name, q.id) in journal}
    if len(known) == len(pairs):
        return
    # A question's own system turn replaces the plan's instructions: it carries those of the candidate.
    asked = [replace(q, id=str(n), system=q.system or c.system or None) for n, (c, q) in enumerate(pairs)]

    def row(answer: Answer) -> dict[str, Any]:
        candidate, question = pairs[int(answer.question.id)]
        return {
            "made_from": made_from,
            "prompt": candidate.name,
            "id": question.id,
            "answer": answer.text,
            "score": _score(stage, question, answer),
            "prompt_tokens": answer.completion.prompt_tokens,
            "completion_tokens": answer.completion.completion_tokens,
            "seconds": round(answer.completion.seconds, 4),
        }

    def append_batch(answers: list[Answer]) -> None:
        append_lines(stage.folder / TRIED, map(row, answers))

    def shots(question: Question) -> tuple[Example, ...]:
        return pairs[int(question.id)][0].shots

    answer_all(stage.plan, stage.arm, asked, stage.generator(), stage.finder, shots, append_batch, known)


def _journal(stage: SelectionContext, made_from: str) -> dict[tuple[str, str], float]:
    """Return the scores that are known, by prompt and question."""
    rows = (row for row in read_journal(stage.folder / TRIED) if row["made_from"] == made_from)
    return {(row["prompt"], row["id"]): row["score"] for row in rows}


def _score(stage: SelectionContext, question: Question, answer: Answer) -> float:
    gold = stage.gold(question)
    scores = score_answer(stage.plan, question, answer.text, answer.citations, stage.arm.retrieval, gold)
    return combined_score(scores, {str(name): weight for name, weight in stage.plan.weights.items()})


def _decide(
    running: Sequence[PromptCandidate], scores: dict[str, list[float]], fresh: int
) -> tuple[PromptCandidate, str]:
    fixed, other = running
    lead = score_lead(scores[other.name][-fresh:], scores[fixed.name][-fresh:])
    evidence = (
        f"{lead.difference:+.2f} with a standard error of {lead.error:.2f}, on {fresh} fresh dev questions"
    )
    if lead.enough:
        return other, f"{other.name} leads the fixed bank: {evidence}"
    return fixed, f"the fixed bank stays: {other.name} does not lead it by half an error or more ({evidence})"


def _reason_for_no_rounds(count: int, dev: int, budget: int) -> str:
    if budget == 0:
        return "the fixed bank: a budget of 0 tries no other"
    if count < 2:
        return "the fixed bank: the examples make no other"
    return (
        f"the fixed bank: {dev} dev questions and {budget} answers are too few to tell {count} prompts apart"
    )


def _store_choice(
    stage: SelectionContext,
    made_from: str,
    chosen: PromptCandidate,
    tried: Sequence[dict[str, Any]],
    reason: str,
) -> PromptCandidate:
    """Write the decision into `trial/prompts.json`, report it, and return the chosen prompt."""
    path = stage.folder / PROMPTS
    arms = json.loads(path.read_text("utf-8"))["arms"] if path.is_file() else {}
    choice = {"made_from": made_from, "chosen": chosen.to_json(), "reason": reason, "tried": list(tried)}
    write_json(path, {"schema": 1, "arms": {**arms, stage.arm.arm: choice}})
    stage.emit({"event": "prompt.chosen", "arm": stage.arm.arm, "prompt": chosen.name, "reason": reason})
    return chosen


def _input_digest(stage: SelectionContext, candidates: Sequence[PromptCandidate]) -> str:
    """Return the digest of everything that the decision depends on."""
    plan = stage.plan
    parts = {
        "candidates": [c.to_json() for c in candidates],
        "step": stage.arm.model_dump(mode="json"),
        "dev": [(q.id, q.question) for q in stage.dev],
        "base": stage.base,
        "prompts": plan.prompts.model_dump(mode="json"),
        "max_new_tokens": plan.max_new_tokens,
        "checks": [c.model_dump(mode="json") for c in plan.checks],
        "weights": {str(name): weight for name, weight in plan.weights.items()},
        "seed": plan.seed,
        **constraint_input(plan, stage.arm),
    }
    return sha256_text(canonical_json(parts))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
