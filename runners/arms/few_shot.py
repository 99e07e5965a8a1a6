"""Banks of examples for a few-shot prompt: the fixed one, a few others to try against it, the nearest per question.

Few-shot's prompt, chosen on dev questions: a small prompt optimiser that keeps the fixed bank unless one leads it.

A handful of prompts (``runners.arms.few_shot``) is scored with the plan's own combined score. Successive halving spends the
answers where they count: a few questions for all, a few more for the better half, and half of the answers on fresh
questions for the best one and the fixed bank alone. Only those decide, because the questions that picked the best one
flatter it: it is taken when it leads by more than half of the lead's standard error. To be sure is not asked for:
taking a prompt claims nothing, the test questions judge it afterwards, and waiting to be sure gives most of the gain
away (`benchmarks/audition.py` has both rules' expected gain and loss). No test question is read. Every answer is in a
journal before the next batch starts, so nothing is asked twice.

Only the few-shot arm's own prompt changes. The other arms keep the plan's instructions: all are asked alike so that
none is a straw man, tuned rows are built on them, and a list of rules that helps a base model with three examples need
not help a model that has learnt the style. Who wants the list of rules everywhere writes it into ``prompts.system``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.files import sha256_text
from runners.arms.prompts import choose_shots
from runners.data.examples import Example
from runners.data.questions import Question
from runners.plan.schema import Plan

if TYPE_CHECKING:
    import numpy as np

    from rag.embedding.protocol import Encoder
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rag.errors import BadInput
from rag.files import append_lines, canonical_json, write_json
from rag.types import OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.retriever import PassageFinder
from runners.inference.types import Generator
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from runners.scoring.scores import combined_score, score_answer

FIXED_BANK = "fixed"
"""The name of what every other candidate must beat: the bank drawn by the seed, under the plan's instructions."""


@dataclass(frozen=True, slots=True)
class PromptCandidate:
    """One prompt to try: instructions, and the examples below them in their order."""

    name: str
    system: str
    shots: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as `trial/prompts.json` keeps it, so that the run can be asked without the examples' file."""
        shots = [{"question": shot.question, "reply": shot.reply, "line": shot.line} for shot in self.shots]
        return {"name": self.name, "system": self.system, "shots": shots}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> PromptCandidate:
        """Return what :meth:`to_json` kept."""
        return cls(kept["name"], kept["system"], tuple(map(_shot, kept["shots"])))


def prompt_candidates(
    plan: Plan, examples: Sequence[Example], count: int, own: bool = False
) -> tuple[PromptCandidate, ...]:
    """Return the prompts to try, the fixed one first: up to four banks under one or two instructions.

    The banks: the fixed one; the same in the opposite order, so that another example stands nearest to the question;
    others from documents that the fixed one does not show; others again, without a refusal. The instructions: the
    plan's, and the same with the plan's checks of style as a list of rules. With `own`, questions bring instructions
    of their own, so that there is nothing to vary.
    """
    asked = [row for row in examples if not row.raw]
    fixed = choose_shots(asked, count, plan.seed)
    used = {shot.meta.get("doc_id") for shot in fixed} - {None}
    rest = [row for row in asked if row not in fixed and row.meta.get("doc_id") not in used]
    plain = [row for row in rest if not row.refuses]
    banks = {
        FIXED_BANK: fixed,
        "reversed": fixed[::-1],
        "others": choose_shots(rest, count, plan.seed + 1),
        "no refusal": choose_shots(plain, count, plan.seed + 2),
    }
    found: dict[tuple[str, tuple[Example, ...]], PromptCandidate] = {}
    for said, system in candidate_instructions(plan, own):
        for name, shots in banks.items():
            if len(shots) == len(fixed):
                known = ", ".join(filter(None, (name, said)))
                found.setdefault((system, _words(shots)), PromptCandidate(known, system, shots))
    return tuple(found.values())


def candidate_instructions(plan: Plan, own: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the instructions to try, with what is said of each: the plan's, then with its checks as rules."""
    rules = [check.text for check in plan.checks if check.text]
    system = plan.prompts.system
    if own or not rules:
        return (("", system),)
    listed = "Rules for every reply:\n" + "\n".join(f"- {rule}" for rule in rules)
    return (("", system), ("rules listed", f"{system}\n\n{listed}" if system else listed))


class NearestExamples:
    """The examples whose questions are nearest to a question by the embedder, the nearest last."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder, count: int) -> None:
        """Embed the examples' questions once."""
        self._rows = sorted(
            (e for e in examples if not e.raw), key=lambda e: sha256_text(f"{e.question}\0{e.reply}")
        )
        self._encoder, self._count = encoder, count
        self._vectors: np.ndarray | None = (
            encoder.encode([e.question for e in self._rows]) if self._rows else None
        )

    def __call__(self, question: Question) -> tuple[Example, ...]:
        """Return the question's own examples."""
        if self._vectors is None:
            return ()
        near = self._vectors @ self._encoder.encode([question.question])[0]
        best = sorted(range(len(self._rows)), key=lambda n: (-round(float(near[n]), 6), n))[: self._count]
        return tuple(self._rows[n] for n in reversed(best))


def _words(shots: Sequence[Example]) -> Any:
    return tuple((shot.question, shot.reply) for shot in shots)


def _shot(kept: dict[str, Any]) -> Example:
    turns = ({"role": "user", "content": kept["question"]}, {"role": "assistant", "content": kept["reply"]})
    return Example(turns, {}, kept["line"])


PROMPTS, TRIED = "prompts.json", "tried.jsonl"
MIN_SHARED_QUESTIONS = 8
"""Fresh questions that the last two prompts must both be asked: with fewer a difference cannot be told from noise."""
FIRST, SECOND = 0.27, 0.2
"""Shares of the answers that the first two rounds may take."""
SWITCH_MARGIN = 0.5
"""Standard errors by which the other prompt must lead. Of what the better of the last two would bring on average, no
margin gets most, but loses most where the fixed bank is the best; half an error loses half of that and gets as much but
for a tenth."""


@dataclass(frozen=True, slots=True)
class ScoreLead:
    """How far one prompt is ahead of another on the same questions, and how far that may be chance."""

    difference: float
    error: float
    """Standard error of the difference, from question to question."""

    @property
    def enough(self) -> bool:
        """Whether the lead is worth following."""
        return self.difference > SWITCH_MARGIN * self.error + 1e-9


@dataclass(frozen=True, slots=True)
class SelectionContext:
    """What an audition needs besides the candidates: who answers, what is asked, where it is kept."""

    plan: Plan
    arm: EvaluateStep
    dev: tuple[Question, ...]
    generator: Callable[[], Generator]
    """Makes the model ready; called only when there is something to ask."""
    finder: PassageFinder | None
    gold: Callable[[Question], str]
    base: str
    """What tells the answering model and its weights from every other."""
    folder: Path
    """The trial's folder."""
    emit: OnEvent


def halving_rounds(count: int, dev: int, budget: int) -> tuple[tuple[int, int], ...]:
    """Return (prompts, questions each) of every round; empty when the last two would share too few questions.

    The questions of a round are new ones; together they are at most `dev`, and the answers at most `budget`.
    """
    if count < 2:
        return ()
    sizes = [count, -(-count // 2)] if count > 4 else [count] if count > 2 else []
    planned: list[tuple[int, int]] = []
    left = budget
    for size, share in zip(sizes, (FIRST, SECOND), strict=False):
        each = max(1, int(share * budget / size))
        planned.append((size, each))
        left -= size * each
    fresh = min(left // 2, dev - sum(each for _, each in planned))
    return (*planned, (2, fresh)) if fresh >= MIN_SHARED_QUESTIONS else ()


def select_prompt(
    stage: SelectionContext, candidates: Sequence[PromptCandidate], budget: int
) -> PromptCandidate:
    """Return the prompt to use, the first candidate unless another leads it; what was tried is kept and told.

    What an earlier call with the same candidates, questions, model and scores decided is not asked again.
    """
    made_from = _made_from(stage, candidates)
    known = read_choice(stage.folder, stage.arm.arm)
    if known is not None and known["made_from"] == made_from:
        return PromptCandidate.from_json(known["chosen"])
    planned = halving_rounds(len(candidates), len(stage.dev), budget)
    if not planned:
        reason = _why_not(len(candidates), len(stage.dev), budget)
        return _keep(stage, made_from, candidates[0], (), reason)
    scores: dict[str, list[float]] = {c.name: [] for c in candidates}
    running, asked = list(candidates), 0
    for size, each in planned:
        running = _best(running, scores, size)
        questions = stage.dev[asked : asked + each]
        asked += each
        # Few questions of many prompts make one batch; many of a prompt share what they begin with.
        for group in [running] if each < MIN_SHARED_QUESTIONS else [[c] for c in running]:
            _ask(stage, group, questions, made_from)
        journal = _journal(stage, made_from)
        for candidate in running:
            scores[candidate.name] += [journal[candidate.name, q.id] for q in questions]
            stage.emit(
                {
                    "event": "prompt.tried",
                    "arm": stage.arm.arm,
                    "prompt": candidate.name,
                    "questions": len(scores[candidate.name]),
                    "score": _mean(scores[candidate.name]),
                }
            )
    chosen, reason = _decide(running, scores, planned[-1][1])
    tried = [
        {**c.to_json(), "questions": len(scores[c.name]), "score": _mean(scores[c.name])} for c in candidates
    ]
    return _keep(stage, made_from, chosen, tried, reason)


def read_choice(folder: Path, arm: str) -> dict[str, Any] | None:
    """Return what was decided for an arm, from `trial/prompts.json`; None when nothing was, BadInput when damaged."""
    path = folder / PROMPTS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))["arms"].get(arm)
        return dict(found) if found else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}",
            f"remove it, and choose again: tunewise run {folder.parent} --resume",
        ) from None


def _best(
    running: Sequence[PromptCandidate], scores: dict[str, list[float]], size: int
) -> list[PromptCandidate]:
    """The fixed bank and the best others; of equals the earlier."""
    fixed, *others = running
    ranked = sorted(others, key=lambda c: -(_mean(scores[c.name]) or 0.0))
    return [fixed, *ranked[: size - 1]]


def _ask(
    stage: SelectionContext, group: Sequence[PromptCandidate], questions: Sequence[Question], made_from: str
) -> None:
    """Ask these questions of every prompt of a group at once, but for what the journal holds."""
    have = _journal(stage, made_from)
    pairs = [(c, q) for c in group for q in questions]
    known = {str(n) for n, (c, q) in enumerate(pairs) if (c.name, q.id) in have}
    if len(known) == len(pairs):
        return
    # A question's own system turn stands in for the plan's instructions: so each brings its prompt's.
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

    def keep(answers: list[Answer]) -> None:
        append_lines(stage.folder / TRIED, map(row, answers))

    def shots(question: Question) -> tuple[Example, ...]:
        return pairs[int(question.id)][0].shots

    answer_all(stage.plan, stage.arm, asked, stage.generator(), stage.finder, shots, keep, known)


def _journal(stage: SelectionContext, made_from: str) -> dict[tuple[str, str], float]:
    """The scores that are known, by prompt and question."""
    rows = (row for row in read_journal(stage.folder / TRIED) if row["made_from"] == made_from)
    return {(row["prompt"], row["id"]): row["score"] for row in rows}


def with_instructions(plan: Plan, system: str) -> Plan:
    """Return the plan with other instructions, for one arm."""
    return plan.model_copy(update={"prompts": plan.prompts.model_copy(update={"system": system})})


def _score(stage: SelectionContext, question: Question, answer: Answer) -> float:
    gold = stage.gold(question)
    scores = score_answer(stage.plan, question, answer.text, answer.citations, stage.arm.retrieval, gold)
    return combined_score(scores, {str(name): weight for name, weight in stage.plan.weights.items()})


def score_lead(other: Sequence[float], fixed: Sequence[float]) -> ScoreLead:
    """Return how far one prompt's scores are above another's, question by question; at least two questions."""
    apart = [a - b for a, b in zip(other, fixed, strict=True)]
    mean = sum(apart) / len(apart)
    variance = sum((value - mean) ** 2 for value in apart) / (len(apart) - 1)
    return ScoreLead(mean, math.sqrt(variance / len(apart)))


def _decide(
    running: Sequence[PromptCandidate], scores: dict[str, list[float]], fresh: int
) -> tuple[PromptCandidate, str]:
    fixed, other = running
    found = score_lead(scores[other.name][-fresh:], scores[fixed.name][-fresh:])
    told = (
        f"{found.difference:+.2f} with a standard error of {found.error:.2f}, on {fresh} fresh dev questions"
    )
    if found.enough:
        return other, f"{other.name} leads the fixed bank: {told}"
    return fixed, f"the fixed bank stays: {other.name} does not lead it by half an error or more ({told})"


def _why_not(count: int, dev: int, budget: int) -> str:
    if budget == 0:
        return "the fixed bank: a budget of 0 tries no other"
    if count < 2:
        return "the fixed bank: the examples make no other"
    return (
        f"the fixed bank: {dev} dev questions and {budget} answers are too few to tell {count} prompts apart"
    )


def _keep(
    stage: SelectionContext,
    made_from: str,
    chosen: PromptCandidate,
    tried: Sequence[dict[str, Any]],
    reason: str,
) -> PromptCandidate:
    path = stage.folder / PROMPTS
    arms = json.loads(path.read_text("utf-8"))["arms"] if path.is_file() else {}
    found = {"made_from": made_from, "chosen": chosen.to_json(), "reason": reason, "tried": list(tried)}
    write_json(path, {"schema": 1, "arms": {**arms, stage.arm.arm: found}})
    stage.emit({"event": "prompt.chosen", "arm": stage.arm.arm, "prompt": chosen.name, "reason": reason})
    return chosen


def _made_from(stage: SelectionContext, candidates: Sequence[PromptCandidate]) -> str:
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
    }
    return sha256_text(canonical_json(parts))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
