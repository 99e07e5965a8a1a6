"""The prompt of an arm without weights, chosen on dev questions: its examples and its instructions.

:func:`select_prompt` chooses by successive halving (Karnin, Koren and Somekh 2013) with the plan's own combined
score: a few questions for all prompts but the default, a few more for the better half, and so on, and more than half
of all answers, on fresh questions, for the best one and the default. Only those decide, because the questions that
picked the best prompt flatter it, and the default is not asked before, because it is not picked.
:attr:`ScoreLead.replaces` has the rule; where no prompt has scored anything on :data:`MIN_WITHOUT_SCORE` questions,
nothing more is asked. Certainty is not required: choosing a prompt claims nothing, since the test questions judge it
afterwards, and waiting for certainty gives a third or more of the gain away (`benchmarks/audition.py` has the
expected gain and loss of several rules). No test question is read. Every answer is in a journal before the next batch
starts, so that nothing is asked twice.

Every arm without weights has the same budget of answers. Where it is too small for all prompts, the first ones are tried
(:func:`runners.arms.few_shot.prompt_candidates` has the order), and the decision names the others.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.files import (
    UPDATE_LOCK,
    append_lines,
    canonical_json,
    parse_json,
    sha256_text,
    write_bytes,
    write_json,
)
from rag.text.words import count_noun
from rag.types import OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.answer_constraint import constraint_input
from runners.arms.few_shot import (
    PLAN_INSTRUCTIONS,
    ExamplePool,
    PromptCandidate,
    shot_json,
    stored_shot,
)
from runners.arms.prompts import MOST_ROOM
from runners.arms.retriever import PassageFinder
from runners.data.examples import Example
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from runners.scoring.prompt_lead import SMALL_LEAD, ScoreLead, is_cheaper, score_lead
from runners.scoring.scores import combined_score, question_weights, score_answer

if TYPE_CHECKING:
    import numpy as np

PROMPTS = "prompts.json"
TRIED = "tried.jsonl"
"""Every answer to a dev question, with the prompt and the limit of tokens that it was given."""
SHOT_VECTORS = "shots.npy"
"""The vectors of the questions of the examples in `prompts.json`, so that none is embedded again when the run is asked."""
MIN_SHARED_QUESTIONS = 8
"""Fresh questions that the last two prompts must share; with fewer, a difference cannot be distinguished from noise."""
SCREENING_SHARE = 0.5
"""Share of the answers that the rounds before the last may use; .3 and .4 gain a little less (`benchmarks/audition.py`)."""
ANSWERS_PER_PROMPT = 6
"""Answers of the budget for each prompt that is tried: 10 prompts for 60 answers. Eight to twelve gain as much as each
other when simulated, five less (`benchmarks/audition.py`)."""
MIN_WITHOUT_SCORE = 4
"""Questions on which no prompt of a round scores anything, after which none is tried further: simulated with 10 prompts and
60 answers, 86 to 98 % of the gain is kept where few prompts are right, or all are right on few questions."""
LONG_BANK = 16
"""Examples of a bank whose questions are asked apart from those of other prompts, so that it is read once."""


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
    pool: ExamplePool | None = None
    """What nearest examples are chosen from."""
    most_room: int = MOST_ROOM
    """Tokens up to which the limit of answers may grow."""


@dataclass(frozen=True, slots=True)
class PromptChoice:
    """What a selection decided, and why."""

    chosen: PromptCandidate
    reason: str
    lead: ScoreLead | None = None
    """Of the best other prompt over the default, on fresh questions; None where nothing was tried."""
    used: int = 0
    """Answers that were generated to choose."""
    answered: Sequence[str] = ()
    """Ids of the dev questions that were answered with the chosen prompt."""


def select_prompt(
    stage: SelectionContext, candidates: Sequence[PromptCandidate], budget: int
) -> PromptCandidate:
    """Return the prompt to use: the first candidate, unless another replaces it (:attr:`ScoreLead.replaces`).

    The decision and all candidates' scores are stored in the trial's folder and reported as events. A stored
    decision with the same candidates, questions, model and scores is returned without asking again.

    Args:
        stage: the plan, arm, dev questions, model and folder.
        candidates: the prompts, the default first, the others in the order in which they deserve a try.
        budget: the most answers that may be generated.
    """
    made_from = _input_digest(stage, candidates, budget)
    stored = read_stored_prompts(stage.folder).choices.get(stage.arm.arm)
    if stored is not None and stored["made_from"] == made_from:
        return PromptCandidate.from_json(stored["chosen"])
    tried = candidates[: max(2, budget // ANSWERS_PER_PROMPT)]
    untried = [candidate.name for candidate in candidates[len(tried) :]]
    rounds = halving_rounds(len(tried), len(stage.dev), budget)
    if not rounds:
        reason = _reason_for_no_rounds(stage, len(candidates), budget)
        return _store_choice(stage, made_from, PromptChoice(candidates[0], reason), (), [], budget)
    tries = _try_prompts(stage, tried, rounds)
    choice = _decide(tried[0], tries, _default_name(stage))
    choice = replace(choice, answered=tries.asked[choice.chosen.name])
    scores = tries.scores
    rows = [
        {**_described(c), "questions": len(scores[c.name]), "score": _mean(scores[c.name])}
        for c in tried
        if scores[c.name]
    ]
    return _store_choice(stage, made_from, choice, rows, untried, budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompts:
    """What a trial chose, as ``trial/prompts.json`` has it."""

    folder: Path
    """The trial's folder."""
    choices: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """The decisions by arm."""
    settings: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """What dev answers settled, by arm (:class:`runners.selective.on_dev.ArmSettings`)."""
    rows: Sequence[dict[str, Any]] = ()
    """The examples that the nearest are chosen from; none when no arm needs them."""

    def examples(self) -> tuple[tuple[Example, ...], np.ndarray | None]:
        """Return these examples, and the vectors of their questions [examples, dimensions].

        The vectors are None where their file is missing; then they are computed again.
        """
        from rag.stores.base import read_array

        path = self.folder / SHOT_VECTORS
        return tuple(map(stored_shot, self.rows)), read_array(path) if path.is_file() else None


def read_stored_prompts(folder: Path) -> StoredPrompts:
    """Read the decisions that a trial's folder holds, none before the first; BadInput when they are damaged."""
    path = folder / PROMPTS
    if not path.is_file():
        return StoredPrompts(folder=folder)
    try:
        body = parse_json(path.read_text("utf-8"))
        choices = {arm: dict(choice) for arm, choice in body["arms"].items()}
        rows, settings = body.get("examples", []), body["settings"]
        return StoredPrompts(folder=folder, choices=choices, settings=dict(settings), rows=rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}",
            f"remove it, and choose again: tunewise run {folder.parent} --resume",
        ) from None


def halving_rounds(count: int, dev: int, budget: int) -> tuple[tuple[int, int], ...]:
    """Return (prompts, questions each) of every round; () when the last two would share too few questions.

    The first round has all prompts but the default, each further one the better half of the one before, the last one the
    best and the default. Every round asks new questions. Together the rounds use at most ``dev`` questions and ``budget``
    answers.
    """
    if count < 2:
        return ()
    sizes: list[int] = []
    others = count - 1
    while others > 1:
        sizes.append(others)
        others = -(-others // 2)
    screening = min(SCREENING_SHARE * budget, budget - 2 * MIN_SHARED_QUESTIONS)
    questions = [max(1, int(screening / len(sizes) / size)) for size in sizes]
    # With few dev questions the rounds before the last have fewer, so that enough are left to compare the last two.
    while sum(questions) > dev - MIN_SHARED_QUESTIONS and max(questions, default=1) > 1:
        questions[questions.index(max(questions))] -= 1
    rounds = list(zip(sizes, questions, strict=True))
    left = budget - sum(size * each for size, each in rounds)
    fresh = min(left // 2, dev - sum(each for _, each in rounds))
    return (*rounds, (2, fresh)) if fresh >= MIN_SHARED_QUESTIONS else ()


@dataclass(slots=True)
class _Tries:
    """What the rounds gave: scores and prompt tokens of every prompt, question by question."""

    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    other: PromptCandidate | None = None
    """The best prompt beside the default; None where no prompt scored anything."""
    fresh: int = 0
    """Questions on which it was compared with the default."""

    def scored_nothing(self, running: Sequence[PromptCandidate]) -> bool:
        """Return whether these prompts have been asked enough and scored nothing."""
        scores = [self.scores[c.name] for c in running]
        return min(map(len, scores)) >= MIN_WITHOUT_SCORE and not any(map(any, scores))


def _try_prompts(
    stage: SelectionContext, tried: Sequence[PromptCandidate], rounds: Sequence[tuple[int, int]]
) -> _Tries:
    """Carry the rounds out."""
    tries = _Tries()
    default, *others = tried
    asked = 0
    for size, each in rounds[:-1]:
        others = _best(others, tries.scores, size)
        _ask_round(stage, others, stage.dev[asked : asked + each], tries)
        asked += each
        if tries.scored_nothing(others):
            return tries
    other = tries.other = _finalist(others, tries.scores, tries.tokens)
    tries.fresh = rounds[-1][1]
    _ask_round(stage, [default, other], stage.dev[asked : asked + tries.fresh], tries)
    return tries


def _ask_round(
    stage: SelectionContext,
    running: Sequence[PromptCandidate],
    questions: Sequence[Question],
    tries: _Tries,
) -> None:
    """Ask these questions with every prompt, and add the scores and tokens."""
    weight_of = question_weights(stage.plan, stage.dev)
    made_from = answers_digest(stage)
    for group in _groups(running, len(questions)):
        ask_candidates(stage, group, questions, made_from)
    journal = known_answers(stage, made_from)
    for candidate in running:
        rows = [journal[candidate.name, q.id] for q in questions]
        scores = tries.scores[candidate.name]
        tries.asked[candidate.name] += [question.id for question in questions]
        tries.tokens[candidate.name] += [row["prompt_tokens"] for row in rows]
        scores += [row["score"] * weight_of[q.id] for row, q in zip(rows, questions, strict=True)]
        stage.emit(
            {
                "event": "prompt.tried",
                "arm": stage.arm.arm,
                "prompt": candidate.name,
                "questions": len(scores),
                "score": _mean(scores),
            }
        )


def _decide(default: PromptCandidate, tries: _Tries, name: str) -> PromptChoice:
    """Return the prompt to use by what the rounds gave; ``name`` is what the default is called."""
    used, fresh, other = sum(map(len, tries.scores.values())), tries.fresh, tries.other
    if other is None:
        most = max(map(len, tries.scores.values()))
        return PromptChoice(default, f"{name} kept: no prompt scored anything on {most} questions", used=used)
    of_other, of_default = (tries.scores[c.name][-fresh:] for c in (other, default))
    tokens = [sum(tries.tokens[c.name][-fresh:]) / fresh for c in (other, default)]
    lead = score_lead(of_other, of_default, *tokens)
    return PromptChoice(other if lead.replaces else default, lead.reason(other.name, name), lead, used)


def _groups(running: Sequence[PromptCandidate], each: int) -> list[list[PromptCandidate]]:
    """Return which prompts are asked together; all of a group have the same user turn.

    A few questions of many prompts make one batch; many questions of one prompt share its prefix in the KV cache, and so do
    two of a long one.
    """
    if each >= MIN_SHARED_QUESTIONS:
        return [[c] for c in running]
    long = [c for c in running if each > 1 and len(c.shots) >= LONG_BANK]
    rest = [c for c in running if c not in long]
    together = [[c for c in rest if c.context == turn] for turn in dict.fromkeys(c.context for c in rest)]
    return [*together, *([c] for c in long)]


def _best(
    running: Sequence[PromptCandidate], scores: Mapping[str, Sequence[float]], size: int
) -> list[PromptCandidate]:
    """Return the prompts with the best scores; among equal scores the earlier one."""
    return sorted(running, key=lambda c: -(_mean(scores[c.name]) or 0.0))[:size]


def _finalist(
    running: Sequence[PromptCandidate],
    scores: Mapping[str, Sequence[float]],
    tokens: Mapping[str, Sequence[int]],
) -> PromptCandidate:
    """Return the best prompt, or the cheapest of those that are about as good as it."""
    if len(running) == 1:  # one prompt beside the default: nothing has been asked yet
        return running[0]
    best = _best(running, scores, 1)[0]
    mean = {c.name: sum(scores[c.name]) / len(scores[c.name]) for c in running}
    size = {c.name: sum(tokens[c.name]) / len(tokens[c.name]) for c in running}
    cheaper = [
        c
        for c in running
        if mean[best.name] - mean[c.name] < SMALL_LEAD - 1e-9 and is_cheaper(size[c.name], size[best.name])
    ]
    return min(cheaper, key=lambda c: size[c.name], default=best)


def ask_candidates(
    stage: SelectionContext, group: Sequence[PromptCandidate], questions: Sequence[Question], made_from: str
) -> None:
    """Ask these questions with every prompt of a group at once, except those that the journal holds."""
    journal = known_answers(stage, made_from)
    pairs = [(c, q) for c in group for q in questions]
    known = {str(n) for n, (c, q) in enumerate(pairs) if (c.name, q.id) in journal}
    if len(known) == len(pairs):
        return
    # A question's own system turn replaces the plan's instructions, of which there are none: it carries the candidate's.
    plan = replace(group[0], system="").applied(stage.plan)
    asked = [replace(q, id=str(n), system=q.system or c.system or None) for n, (c, q) in enumerate(pairs)]
    shown = {c.name: c.shown(stage.pool) for c in group}

    def row(answer: Answer) -> dict[str, Any]:
        candidate, question = pairs[int(answer.question.id)]
        answer = answer.withheld or answer
        scores = _scores(stage, question, answer)
        weights = {str(name): weight for name, weight in stage.plan.weights.items()}
        return {
            "made_from": made_from,
            "prompt": candidate.name,
            "id": question.id,
            "answer": answer.text,
            "score": combined_score(scores, weights),
            "right": scores.get("right"),
            "refused": answer.refused,
            "support": answer.support,
            "finish": answer.completion.finish,
            "prompt_tokens": answer.completion.prompt_tokens,
            "completion_tokens": answer.completion.completion_tokens,
            "seconds": round(answer.completion.seconds, 4),
        }

    def append_batch(answers: list[Answer]) -> None:
        append_lines(stage.folder / TRIED, map(row, answers))

    def shots(question: Question) -> tuple[Example, ...]:
        bank = shown[pairs[int(question.id)][0].name]
        examples = bank(question) if callable(bank) else bank
        # Dev questions may be drawn from the examples' file: the answer itself is not to be copied.
        return tuple(shot for shot in examples if _same_text(shot.question) != _same_text(question.question))

    answer_all(plan, stage.arm, asked, stage.generator, stage.finder, shots, append_batch, known)


def _same_text(text: str) -> str:
    return " ".join(text.split()).casefold()


def known_answers(stage: SelectionContext, made_from: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of the answers that are known, by prompt and question."""
    rows = (row for row in read_journal(stage.folder / TRIED) if row["made_from"] == made_from)
    return {(row["prompt"], row["id"]): row for row in rows}


def _scores(stage: SelectionContext, question: Question, answer: Answer) -> dict[str, float]:
    gold = stage.gold(question)
    return score_answer(stage.plan, question, answer.text, answer.citations, stage.arm.retrieval, gold)


def _default_name(stage: SelectionContext) -> str:
    return "the examples drawn by the seed" if stage.arm.shots else PLAN_INSTRUCTIONS


def _reason_for_no_rounds(stage: SelectionContext, count: int, budget: int) -> str:
    default = _default_name(stage)
    if budget == 0:
        return f"{default}: no others are tried in a quick run, or with a budget of 0"
    if count < 2:
        return f"{default}: there are no others to try"
    return f"{default}: {len(stage.dev)} dev questions and {budget} answers are too few to compare {count} prompts"


def _described(candidate: PromptCandidate) -> dict[str, Any]:
    """Return a candidate without its examples, which may be hundreds."""
    return {**candidate.to_json(), "shots": len(candidate.shots)}


def _store_choice(
    stage: SelectionContext,
    made_from: str,
    choice: PromptChoice,
    tried: Sequence[dict[str, Any]],
    untried: Sequence[str],
    budget: int,
) -> PromptCandidate:
    """Write the decision into `trial/prompts.json`, report it, and return the chosen prompt."""
    chosen, lead = choice.chosen, choice.lead
    stored = {
        "made_from": made_from,
        "answers": answers_digest(stage),
        "chosen": chosen.to_json(),
        "reason": choice.reason,
        "allowed": stage.arm.budget,
        "budget": budget,
        "used": choice.used,
        "answered": list(choice.answered),
        "lead": lead and asdict(lead),
        "tried": list(tried),
        "untried": list(untried),
    }
    with UPDATE_LOCK:
        before = read_stored_prompts(stage.folder)
        arms = {**before.choices, stage.arm.arm: stored}
        examples = before.rows
        if chosen.nearest and stage.pool:
            examples = list(map(shot_json, stage.pool.rows))
            _store_vectors(stage.pool, stage.folder)
        _write_prompts(replace(before, choices=arms, rows=examples))
    untried_text = (
        f"; {count_noun(len(untried), 'prompt')} not tried, beyond {count_noun(budget, 'answer')}"
        if untried
        else ""
    )
    reason = choice.reason + untried_text
    stage.emit({"event": "prompt.chosen", "arm": stage.arm.arm, "prompt": chosen.name, "reason": reason})
    return chosen


def store_settings(folder: Path, arm: str, settings: dict[str, Any]) -> None:
    """Write what dev answers settled for an arm into `trial/prompts.json`."""
    with UPDATE_LOCK:
        stored = read_stored_prompts(folder)
        _write_prompts(replace(stored, settings={**stored.settings, arm: settings}))


def _write_prompts(stored: StoredPrompts) -> None:
    body = {"schema": 1, "arms": stored.choices, "settings": stored.settings}
    write_json(stored.folder / PROMPTS, body | ({"examples": stored.rows} if stored.rows else {}))


def _store_vectors(pool: ExamplePool, folder: Path) -> None:
    import numpy as np

    vectors = io.BytesIO()
    np.save(vectors, pool.vectors(), allow_pickle=False)
    write_bytes(folder / SHOT_VECTORS, vectors.getvalue())


def _input_digest(stage: SelectionContext, candidates: Sequence[PromptCandidate], budget: int) -> str:
    """Return the digest of everything that the decision depends on."""
    parts = {"candidates": [c.to_json() for c in candidates], "budget": budget}
    return sha256_text(canonical_json({**parts, "answers": answers_digest(stage)}))


def answers_digest(stage: SelectionContext) -> str:
    """Return the digest of everything that a dev answer depends on besides its question and its prompt's name."""
    plan = stage.plan
    parts = {
        "examples": stage.pool.digest if stage.pool else "",
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
