"""The evaluate step of a router: its cut chosen on dev questions, its answers taken from those of its two arms.

Of the test questions it asks nothing: both arms have answered them in the same trial. On dev questions the first arm, which
asks no model, answers all; the other one those that it has not answered while its prompt was chosen, within the router's
budget. Every answer is in ``trial/routed.jsonl`` before the next batch starts, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import append_lines
from rag.text.words import count_noun
from runners.arms.answer import Answer, answer_all
from runners.arms.prompt_selection import TRIED, read_stored_prompts
from runners.data.examples import normalise_text
from runners.data.questions import Question, count_questions
from runners.plan.steps import EvaluateStep
from runners.run_folder import TRIAL, read_journal
from runners.runs.arm import choosing_step, prepare_arm
from runners.runs.opened import OpenRun
from runners.scoring.scores import combined_score, question_weights, score_answer
from runners.selective import routes
from runners.selective.cuts import choose_route_cut

DEV_ANSWERS = "routed.jsonl"


@dataclass(frozen=True, slots=True)
class RouterInputs:
    """What the answers of a router depend on."""

    made_from: str
    """Digest of everything."""
    otherwise: str
    """Digest of what the other arm's answers depend on."""
    gold: Callable[[Question], str]
    """Returns the text of a question's gold span."""
    journal: Path
    """The file of the trial's answers."""


def evaluate_router(context: OpenRun, step: EvaluateStep, inputs: RouterInputs) -> dict[str, Any]:
    """Choose the cut of a router, and write its answers; return counts of these."""
    first, otherwise = context.plan.routed(step)
    rows = read_journal(inputs.journal)
    _require_answers(context, (first, otherwise), rows)
    route = _route_of(context, step, inputs)
    known = {(row["seed"], row["id"]) for row in rows if row["arm"] == step.arm}
    own = routes.routed_rows(step, rows, _seeds(context, otherwise), route.cut)
    append_lines(inputs.journal, [row for row in own if (row["seed"], row["id"]) not in known])
    return {
        "arm": step.arm,
        "asked": 0,
        "questions": len(context.split.test),
        "cut": sum(row["finish"] == "length" for row in own),
        "estimated": sum(row.get("tokens_estimated", False) for row in own),
        "dev_asked": route.asked,
        "routed": sum(row[routes.ANSWERED_BY] == first.arm for row in own),
    }


def _seeds(context: OpenRun, arm: EvaluateStep) -> tuple[int, ...]:
    return context.plan.train_step(arm.weights).seeds if arm.weights else (context.plan.seed,)


def _require_answers(context: OpenRun, arms: Sequence[EvaluateStep], rows: Sequence[dict[str, Any]]) -> None:
    """Raise BadInput where an arm of the router has not answered every test question yet."""
    for arm in arms:
        answered = {(row["seed"], row["id"]) for row in rows if row["arm"] == arm.arm}
        wanted = {(seed, q.id) for seed in _seeds(context, arm) for q in context.split.test}
        if missing := wanted - answered:
            raise BadInput(
                f"a router takes the answers of its arms, and {arm.arm} lacks {count_noun(len(missing), 'answer')}",
                f"carry its step out first: --only evaluate:{arm.arm}, or the whole plan with --resume",
            )


def _route_of(context: OpenRun, step: EvaluateStep, inputs: RouterInputs) -> routes.StoredRoute:
    """Return the cut of a router: the stored one where it was chosen from the same, else it is chosen now."""
    trial = context.folder.path / TRIAL
    stored = routes.read_routes(trial).get(step.arm)
    if stored is None or stored.made_from != inputs.made_from:
        _choose(context, step, inputs)
        stored = routes.require_route(context.folder.path, trial, step)
    return stored


def _choose(context: OpenRun, step: EvaluateStep, inputs: RouterInputs) -> None:
    """Choose the cut on dev questions, store it and say why."""
    plan, trial = context.plan, context.folder.path / TRIAL
    first, otherwise = plan.routed(step)
    taught = {normalise_text(example.question) for example in context.examples}
    unseen = [q for q in context.split.dev if normalise_text(q.question) not in taught]
    before = _scores_of_choice(context, otherwise)
    budget = min(step.budget, count_questions(context.split.test))
    used = sorted(unseen, key=lambda question: question.id not in before)
    used = used[: max(budget, sum(question.id in before for question in unseen))]
    missing = [question for question in used if question.id not in before]
    _ask_otherwise(context, otherwise, missing, inputs)
    rows = {row["id"]: row for row in _rows_of(trial, inputs.otherwise)}
    scores = {**{id: row["score"] for id, row in rows.items()}, **before}
    answers = _first_answers(context, first, used)
    weight_of = question_weights(plan, used)
    cut = choose_route_cut(
        [routes.sureness(answer.completion) for answer in answers],
        [_score(context, first, answer, inputs) * weight_of[answer.question.id] for answer in answers],
        [scores[question.id] * weight_of[question.id] for question in used],
        (first.arm, otherwise.arm),
        routes.cut_without_dev(plan, first),
    )
    routes.store_route(trial, step, cut, len(missing), inputs.made_from)
    dropped = len(context.split.dev) - len(unseen)
    note = f"; {count_noun(dropped, 'dev question')} not used: the examples ask the same" * bool(dropped)
    context.emit({"event": "route.chosen", "arm": step.arm, "reason": cut.reason + note, **cut.to_json()})


def _scores_of_choice(context: OpenRun, arm: EvaluateStep) -> dict[str, float]:
    """Return the scores of an arm's dev answers with the prompt that it chose, as the choice of prompts left them."""
    trial = context.folder.path / TRIAL
    choice = read_stored_prompts(trial).choices.get(arm.arm)
    if choice is None or not arm.chooses_prompt or choosing_step(context.plan, arm).arm != arm.arm:
        return {}
    chosen = choice["answers"], choice["chosen"]["name"]
    rows = read_journal(trial / TRIED)
    return {row["id"]: row["score"] for row in rows if (row["made_from"], row["prompt"]) == chosen}


def _ask_otherwise(
    context: OpenRun, arm: EvaluateStep, questions: Sequence[Question], inputs: RouterInputs
) -> None:
    """Ask an arm dev questions, but for those of which the journal has its answer."""
    path = context.folder.path / TRIAL / DEV_ANSWERS
    known = {row["id"] for row in _rows_of(path.parent, inputs.otherwise)}
    if all(question.id in known for question in questions):
        return
    weights = context.folder.adapter(arm.weights, _seeds(context, arm)[0]) if arm.weights else None
    prepared = prepare_arm(context, arm, weights, inputs.gold)

    def append_batch(answers: list[Answer]) -> None:
        append_lines(
            path,
            [
                {
                    "made_from": inputs.otherwise,
                    "arm": arm.arm,
                    "id": answer.question.id,
                    "answer": answer.text,
                    "score": _score(context, arm, answer, inputs),
                    "prompt_tokens": answer.completion.prompt_tokens,
                    "completion_tokens": answer.completion.completion_tokens,
                    "seconds": round(answer.completion.seconds, 4),
                }
                for answer in answers
            ],
        )

    answer_all(
        prepared.plan,
        arm,
        questions,
        lambda: context.answering(arm, weights),
        prepared.finder,
        prepared.shots,
        append_batch,
        known,
    )


def _rows_of(trial: Path, made_from: str) -> list[dict[str, Any]]:
    return [row for row in read_journal(trial / DEV_ANSWERS) if row["made_from"] == made_from]


def _first_answers(context: OpenRun, arm: EvaluateStep, questions: Sequence[Question]) -> list[Answer]:
    generator = context.models.generator(None, arm)
    return answer_all(context.plan, arm, questions, lambda: generator, None)


def _score(context: OpenRun, arm: EvaluateStep, answer: Answer, inputs: RouterInputs) -> float:
    """Return the combined score of an answer, by which the verdict compares arms."""
    question, plan = answer.question, context.plan
    scores = score_answer(plan, question, answer.text, answer.citations, arm.retrieval, inputs.gold(question))
    return combined_score(scores, {str(name): weight for name, weight in plan.weights.items()})
